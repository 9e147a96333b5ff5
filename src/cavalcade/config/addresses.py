"""Addresses to listen on, from their text to their parts and back.

- `host:port`, `[v6]:port`: every address the host name has, IPv4 and IPv6. `:port` is every IPv4 interface; a host alone gets port 8000.
- `unix:/path`, with `?mode=660&user=www&group=www` for the socket file; `unix:@name` lives in the kernel only, where there is Linux.
- `fd://3`: a socket that listens already, inherited under this number.

Behind any of them `?proxy_protocol=on`: every connection begins with a PROXY protocol header.

One rule for IPv6, on every platform and with any number of workers: an IPv6 address takes IPv6 only, `[::]:8000` does not take IPv4
along. So `0.0.0.0:8000` and `[::]:8000` can stand side by side, and who wants both says both.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote

PORT = 8000  # of a host alone, as gunicorn has it

_HOST = re.compile(r"[A-Za-z0-9_.-]+")
_MODE = re.compile(r"0?[0-7]{3}")
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")
_ON = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Bind:
    """One address. What does not belong to its kind is empty; `mode` is -1 where none was asked for."""

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    mode: int = -1
    user: str = ""
    group: str = ""
    proxy_protocol: bool = False

    @property
    def plain(self) -> str:
        """The address without what is asked of it."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"fd://{self.fd}" if self.kind == "fd" else join(self.host, self.port)

    def __str__(self) -> str:
        """The canonical form, which reads back as the same."""
        wishes = [f"mode={self.mode:o}"] if self.mode >= 0 else []
        wishes += [f"{name}={quote(value)}" for name, value in (("user", self.user), ("group", self.group)) if value]
        wishes += ["proxy_protocol=on"] if self.proxy_protocol else []
        return self.plain + ("?" + "&".join(wishes) if wishes else "")


def parse(text: str) -> Bind:
    """Take an address apart. Raises `ValueError` with what to write instead."""
    plain, question, query = text.partition("?")
    wishes = _wishes(text, query) if question else {}
    proxy_protocol = _switch(text, wishes.pop("proxy_protocol", "off"))
    if plain.startswith("unix:"):
        return _unix(text, plain, wishes, proxy_protocol)
    if wishes:
        raise ValueError(f'"{text}": {", ".join(sorted(wishes))} is for unix sockets only')
    if plain.startswith("fd://"):
        number = plain.removeprefix("fd://")
        if not re.fullmatch(r"[0-9]{1,6}", number):
            raise ValueError(f'"{text}": write fd:// and the number of a descriptor, as in fd://3')
        return Bind("fd", fd=int(number), proxy_protocol=proxy_protocol)
    host, port = _host_and_port(plain)
    return Bind("tcp", host=host, port=port, proxy_protocol=proxy_protocol)


def join(host: str, port: int) -> str:
    """The text of a host and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_name(text: str) -> str:
    """A host name or IP address, without brackets. Raises `ValueError`."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare.count(":") == 1 and bare.rpartition(":")[2].isdigit():
        raise ValueError(f'"{text}" has a port: give it as port, or both as bind')
    if ":" in bare:
        literal, _, _zone = bare.partition("%")
        if _is_ipv6(literal):
            return bare
    if not _HOST.fullmatch(bare):
        raise ValueError(f'"{text}" is not a host name or IP address')
    return bare


def _wishes(text: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    wishes = dict(pairs)
    if len(wishes) < len(pairs):
        raise ValueError(f'"{text}" says something twice')
    unknown = sorted(wishes.keys() - {"mode", "user", "group", "proxy_protocol"})
    if unknown or not pairs:
        what = f"{unknown[0]} is unknown" if unknown else "nothing follows the question mark"
        raise ValueError(f'"{text}": {what}; there are mode, user and group for unix sockets, and proxy_protocol')
    return wishes


def _switch(text: str, value: str) -> bool:
    if value.lower() not in _ON:
        raise ValueError(f'"{text}": proxy_protocol must be on or off')
    return _ON[value.lower()]


def _unix(text: str, plain: str, wishes: dict[str, str], proxy_protocol: bool) -> Bind:
    path = plain.removeprefix("unix:")
    path = path[2:] if path.startswith("///") else path
    if not path or "\0" in path:
        raise ValueError(f'"{text}" has no path: write unix:/run/app.sock')
    if path.startswith("@") and wishes:
        raise ValueError(f'"{text}": a name that begins with @ is no file, and has no {" or ".join(sorted(wishes))}')
    mode = wishes.get("mode", "")
    if "mode" in wishes and not _MODE.fullmatch(mode):
        raise ValueError(f'"{text}": the mode must be octal, as in mode=660')
    for name in ("user", "group"):
        if name in wishes and not _OWNER.fullmatch(wishes[name]):
            raise ValueError(f'"{text}": {name} must be a name or a number')
    user, group = wishes.get("user", ""), wishes.get("group", "")
    return Bind("unix", path=path, mode=int(mode, 8) if mode else -1, user=user, group=group, proxy_protocol=proxy_protocol)


def _host_and_port(text: str) -> tuple[str, int]:
    if not text:
        raise ValueError("an empty address: write host:port, [v6]:port, unix:/path or fd://N")
    if text.startswith(("http://", "https://", "tcp://")):
        raise ValueError(f'"{text}" is a URL: write {text.split("://", 1)[1].rstrip("/") or "host:port"}')
    if text.startswith("/"):
        raise ValueError(f'"{text}" is a path: write unix:{text}')
    if text.isdigit():
        raise ValueError(f'"{text}" is only a port: write 127.0.0.1:{text}, or :{text} for every interface')
    host, port = _halves(text)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}": the port must be a number from 0 to 65535')
    return host_name(host) if host else "0.0.0.0", int(port)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _halves(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}": write an IPv6 address as [::1]:8000')
        return host, rest[1:] or str(PORT)
    if text.count(":") > 1:
        host, _, port = text.rpartition(":")
        whole = f"[{host}]:{port}" if _is_ipv6(host) and len(port) > 1 else f"[{text}]:{PORT}"
        raise ValueError(f'"{text}": write an IPv6 address in brackets, {whole}')
    host, colon, port = text.partition(":")
    return host, port if colon else str(PORT)
