"""Whose word is taken for who the client is: the values of `trusted_proxies`.

- `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`: addresses and networks.
- `loopback`: this machine; `private`: the networks that no router of the internet knows (RFC 1918, RFC 4193) and link-local ones.
- `unix`: whoever may connect to a unix socket.
- `*`: every peer. It says nothing of the hops before the peer: of those that a header names, the last one is the client.
- `none`: nobody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from cavalcade.config.addresses import parse
from cavalcade.config.options import Settings

HEADERS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "forwarded")
PRESETS: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
}
UNIX, ANY, NONE = "unix", "*", "none"
KEPT = 4096  # addresses whose answer is remembered

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def entry(text: str) -> str:
    """One value in its canonical form. Raises `ValueError` with what to write instead."""
    word = text.lower()
    if word in PRESETS or word in (UNIX, ANY, NONE):
        return word
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        network = ipaddress.ip_network(bare)
    except ValueError as problem:
        if "has host bits set" in str(problem):
            raise ValueError(f'"{text}" is no network: write {ipaddress.ip_network(bare, strict=False)}, or the address alone') from None
        words = ", ".join((*PRESETS, UNIX, ANY, NONE))
        raise ValueError(f'"{text}" is not an IP address, a network such as 10.0.0.0/8, or one of {words}') from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def header(text: str) -> str:
    """One of `forwarded_headers`, in lower case. Raises `ValueError`."""
    name = text.lower()
    if name not in HEADERS:
        raise ValueError(f'"{text}" is none of {", ".join(HEADERS)}')
    return name


class Trusted:
    """The proxies that are trusted. `value in trusted` asks for the peer of a connection, None for that of a unix socket."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = tuple(entries)
        self.any = ANY in self.entries
        self.unix = UNIX in self.entries or self.any
        words = [word for text in self.entries for word in PRESETS.get(text, (text,))]
        self._networks: list[Network] = [ipaddress.ip_network(word) for word in words if word not in (UNIX, ANY, NONE)]
        self._known: dict[str, bool] = {}

    def __contains__(self, host: str | None) -> bool:
        if self.any:
            return True
        return self.unix if host is None else self.is_proxy(host)

    def is_proxy(self, host: str) -> bool:
        """Is this address, of a peer or named in a header, that of a trusted proxy by its number?"""
        known = self._known.get(host)
        if known is None:
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                return False
            known = any(address in network for network in self._networks)
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[host] = known
        return known


def path_prefix(text: str) -> str:
    """A path prefix in its canonical form: no slash at its end, none twice; "" for the root."""
    return re.sub(r"/{2,}", "/", text).rstrip("/")


def check(settings: Settings, complain: Callable[[str, str], None]) -> None:
    """What is wrong with the options about proxies, taken together."""
    trusted, believed = settings.trusted_proxies, settings.forwarded_headers
    if NONE in trusted and len(trusted) > 1:
        complain("trusted_proxies", "has none and others: keep one of both")
    both = [name for name in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host") if name in believed]
    if "forwarded" in believed and both:
        complain("forwarded_headers", f"has forwarded and {both[0]}: a proxy sets one of them, and hands the other on as a client sent it")
    if NONE in trusted:
        for bind in settings.bind:
            if parse(bind).proxy_protocol:
                complain("bind", f"{bind} needs trusted_proxies: whose PROXY protocol headers are to be believed")
