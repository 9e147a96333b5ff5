"""Who the client is, behind proxies: what X-Forwarded-* and Forwarded (RFC 7239) say, as far as it can be believed.

A request is believed if its peer, the other end of the connection, is a trusted proxy (config/trusted.py). Each proxy has put the
address that it saw at the end of the list, so the list is read from its end: the last address that is not itself a trusted proxy is
the client. What stands before that was sent by the client, and says nothing. Of the single values, scheme, host, port and prefix, the
last is the trusted proxy's own.

Only headers that were named (`forwarded_headers`) are believed: a client can send any of them, and a proxy hands on those that it
does not set.

The engines note whether a request has any of these headers at all (`Head.forwarded`); one that has none costs nothing here.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from cavalcade import limits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.wsgi import environ
from cavalcade.config.addresses import join
from cavalcade.config.trusted import Trusted
from cavalcade.types import Address, Headers
from cavalcade.wire.fields import FORWARDING_NAMES, HOST
from cavalcade.wire.proxy_header import plain
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    from cavalcade.net.link import Link

log = logging.getLogger("cavalcade")

_NAMES = frozenset(FORWARDING_NAMES)
FOR, PROTO, NAME, PORT, PREFIX, FORWARDED = FORWARDING_NAMES

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_DEFAULT_PORTS = {"http": b"80", "https": b"443"}
_PORT = re.compile(rb"[1-9][0-9]{0,4}")
# A path without empty, `.` and `..` segments: `//evil.example` would be another host where it is put into a Location.
_PREFIX = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+)*/?")
# RFC 7239 section 4. Values with a colon or brackets must be quoted; some do not.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"""[!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+|"(?:[^"\\]|\\.)*\""""
_PAIR = re.compile(rb"[ \t]*(" + _TOKEN + rb")=(" + _VALUE + rb")[ \t]*([;,]|\Z)", re.DOTALL)
_V4_NODE = re.compile(r"([0-9.]+):([0-9]{1,5})")
_V6_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?")


class Origin(NamedTuple):
    """What is believed of one request. What is not known is None or empty: there the connection's own counts."""

    client: Address | None = None
    scheme: str = ""
    host: bytes = b""
    prefix: bytes | None = None


class Forwarding:
    """Reads the headers for all connections of one worker."""

    def __init__(self, trusted: Trusted, believed: tuple[str, ...]) -> None:
        self.trusted = trusted
        self._believed = frozenset(name.encode() for name in believed)
        self._origins: dict[tuple[tuple[bytes, bytes], ...], Origin] = {}  # those that were read, by what was said
        self._warned: set[tuple[str, str]] = set()
        self._warn_at = 0.0
        self.advise: Callable[[str, str], None] = _advise  # called with a key and a line for the operator

    def origin(self, link: Link, headers: Headers) -> Origin | None:
        """What a request of this connection says of its origin; None where its peer is not trusted."""
        peer = None if link.client is None else link.client[0]
        if peer not in self.trusted:
            self._warn_of_untrusted(link, headers)
            return None
        said: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _NAMES:
                said[name] = said[name] + b"," + value if name in said else value  # RFC 9110 section 5.3
        key = tuple(said.items())
        origin = self._origins.get(key)
        if origin is None:
            origin = self._read(link, said, headers)
            # What is made of a port depends on the rest of the request.
            if PORT not in said and sum(map(len, said.values())) <= limits.FORWARDED_KEPT_BYTES:
                if len(self._origins) >= limits.FORWARDED_KEPT:
                    self._origins.clear()
                self._origins[key] = origin
        return origin

    def _read(self, link: Link, said: dict[bytes, bytes], headers: Headers) -> Origin:
        believed = self._believed
        silent = believed and not said.keys() & believed
        for name in said.keys() - believed:
            if (silent and name in (FOR, FORWARDED)) or name == PREFIX or (name == NAME and _last(said[name]) != _own_host(headers)):
                self._warn_of_unused(link, name)
        said = {name: value for name, value in said.items() if name in believed}
        client: Address | None = None
        scheme, host = "", b""
        if FORWARDED in said:
            client, scheme, host = self._read_forwarded(said[FORWARDED])
        if FOR in said:
            client, _ = self._walk(said[FOR].split(b","))
        if PROTO in said:
            scheme = _SCHEMES.get(_last(said[PROTO]).lower(), "")
        if NAME in said:
            host = _host(_last(said[NAME]))
        if PORT in said:
            host = _with_port(host or _own_host(headers), _last(said[PORT]), scheme or link.scheme)
        return Origin(client, scheme, host, _prefix(_last(said[PREFIX])) if PREFIX in said else None)

    def view(self, link: Link, template: dict[str, Any], head: Head) -> tuple[dict[str, Any], str]:
        """What this request has in common with others, from the connection's own `template`; and its client for the access log, "" where
        nothing is believed. A Host that is believed is put in the place of the request's own."""
        origin = self.origin(link, head.headers)
        if origin is None:
            return template, ""
        if origin.host:
            head.headers[:] = [(name, origin.host if name == b"host" else value) for name, value in head.headers]
        prefix = None if origin.prefix is None else unquote(origin.prefix.decode("ascii"))
        on_behalf = asgi_scope.on_behalf if link.context.wsgi is None else environ.on_behalf
        return on_behalf(template, origin.client, origin.scheme, prefix), _written(origin.client) if origin.client else link.peer()

    # -- the hops --------------------------------------------------------------------------------------------------------------

    def _walk(self, nodes: list[bytes]) -> tuple[Address | None, int]:
        """The client, and at which place from the end (0 is the last) it was named.

        A hop that is not known, "unknown", obfuscated or garbage, ends the search: what stands before it may be anybody's. The client is
        then who has said so, as far as that one is known: None for the peer itself.
        """
        client: Address | None = None
        for place, node in enumerate(reversed(nodes)):
            address = read_node(node.strip(b" \t").decode("latin-1"))
            if address is None:
                return client, place
            client = address
            if not self.trusted.is_proxy(address[0]):
                return client, place
        return client, len(nodes) - 1

    def _read_forwarded(self, value: bytes) -> tuple[Address | None, str, bytes]:
        """(client, scheme, host) of a Forwarded field."""
        elements = read_forwarded(value)
        if not elements:
            # A client may have sent a quote that swallows what the proxies put behind it. What they put is whole between its commas, and
            # the search ends at the first that is not.
            elements = [(read_forwarded(piece) or [{}])[-1] for piece in value.split(b",")]
        client, place = self._walk([element.get(b"for", b"") for element in elements])
        element = elements[-1 - place]
        return client, _SCHEMES.get(element.get(b"proto", b"").lower(), ""), _host(element.get(b"host", b""))

    # -- what was not believed -------------------------------------------------------------------------------------------------

    def _warn_of_untrusted(self, link: Link, headers: Headers) -> None:
        if self.trusted.entries == ("none",):
            return  # asked for, in so many words
        address = "unix" if link.client is None else link.client[0]
        if self._may_warn(link, address, ""):
            names = ", ".join(sorted({_shown(name) for name, _ in headers if name in FORWARDING_NAMES}))
            whose = "a unix socket is" if address == "unix" else f"{address} is"
            trusted = ", ".join(self.trusted.entries)
            self.advise(
                f"forwarded {address}",
                f"{names} from {link.peer()} ignored, {whose} not trusted (trusted_proxies: {trusted}); "
                f"if that is your proxy: --trusted-proxies {address}",
            )

    def _warn_of_unused(self, link: Link, name: bytes) -> None:
        """A proxy that is trusted says something that would change what the app sees."""
        address = "unix" if link.client is None else link.client[0]
        if self._may_warn(link, address, _shown(name)):
            others = {FOR, PROTO, NAME} if name == FORWARDED else {FORWARDED}  # these cannot be believed together
            names = ",".join(sorted(each.decode() for each in self._believed - others | {name}))
            self.advise(
                f"forwarded {address} {_shown(name)}",
                f"{_shown(name)} from trusted {link.peer()} not used; if it sets that header itself, whatever its clients send: "
                f"--forwarded-headers {names}",
            )

    def _may_warn(self, link: Link, address: str, what: str) -> bool:
        """Once for each address, not too often, and not for ever more of them."""
        now = link.context.now
        if now < self._warn_at or (address, what) in self._warned or len(self._warned) >= limits.FORWARDED_WARNED:
            return False
        self._warned.add((address, what))
        self._warn_at = now + limits.FORWARDED_WARN_EVERY_S
        return True


def _advise(key: str, text: str) -> None:
    log.warning("%s", text)


def read_node(text: str) -> Address | None:
    """A node of X-Forwarded-For or Forwarded (RFC 7239 section 6): an address with its port, 0 where none is given; None for "unknown", an
    obfuscated identifier, and for what is none of them."""
    port = "0"
    match = _V6_NODE.fullmatch(text) or _V4_NODE.fullmatch(text)
    if match is not None:
        text, port = match[1], match[2] or "0"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text or int(port) > 65535:
        return None
    return plain(address), int(port)


def read_forwarded(value: bytes) -> list[dict[bytes, bytes]]:
    """The elements of a Forwarded field, its parameters in lower case, first hop first; [] for one that is malformed."""
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(value):
        match = _PAIR.match(value, at)
        if match is None:
            return []
        name, text, end = match[1].lower(), match[2], match[3]
        if name in elements[-1]:
            return []  # section 4: each parameter must not occur more than once
        if text[:1] == b'"':
            text = re.sub(rb"\\(.)", rb"\1", text[1:-1], flags=re.DOTALL)
        elements[-1][name] = text
        at = match.end()
        if end == b",":
            elements.append({})
    return elements


def _written(client: Address) -> str:
    host, port = client
    return join(host, port) if port else host


def _last(value: bytes) -> bytes:
    return value.rpartition(b",")[2].strip(b" \t")


def _host(value: bytes) -> bytes:
    return value if HOST.fullmatch(value) else b""


def _own_host(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"host":
            return value
    return b""


def _with_port(host: bytes, port: bytes, scheme: str) -> bytes:
    if not host or not _PORT.fullmatch(port) or int(port) > 65535:
        return host
    bare = host[: host.index(b"]") + 1] if host[:1] == b"[" else host.partition(b":")[0]
    return bare if _DEFAULT_PORTS.get(scheme) == port else bare + b":" + port


def _prefix(value: bytes) -> bytes | None:
    return value.rstrip(b"/") if _PREFIX.fullmatch(value) else None


def _shown(name: bytes) -> str:
    return name.decode().title()
