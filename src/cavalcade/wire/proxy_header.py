"""The PROXY protocol, versions 1 and 2: the header with which a load balancer says, before anything else, whose connection it passes on.

Source: "The PROXY protocol", HAProxy, 2020/03/05. TLVs at the end of a version 2 header are skipped.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from cavalcade import limits
from cavalcade.errors import PeerError
from cavalcade.types import Address

V1 = b"PROXY "
V1_BYTES = 107  # the longest line, its end included (section 2.1)
V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED_BYTES = 16

_V1_LINE = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_UNKNOWN = b"PROXY UNKNOWN"

# Section 2.2: address family and transport in one byte.
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_ADDRESS_BYTES = {0x1: 12, 0x2: 36, 0x3: 216}
_LOCAL, _PROXY = 0x20, 0x21


@dataclass(frozen=True)
class ProxyHeader:
    """What was said. Where `told` is false the connection is the proxy's own, a health check for example, and its own addresses count.

    Of a client of a unix socket there is no address. `size` is how many bytes the header has.
    """

    size: int
    told: bool = False
    client: Address | None = None
    server: Address | None = None


def read(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with; None while more is needed. Raises `PeerError` where it begins with none.

    It never needs more than `limits.PROXY_HEADER_BYTES`.
    """
    if data[: len(V1)] == V1[: len(data)]:
        return _read_v1(data)
    if data[: len(V2)] == V2[: len(data)]:
        return _read_v2(data)
    raise PeerError("it does not begin with a PROXY protocol header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_BYTES)
    if end < 0:
        if len(data) >= V1_BYTES or b"\n" in data:
            raise PeerError("a PROXY protocol line that does not end")
        return None
    line = data[:end]
    if line == _UNKNOWN or line.startswith(_UNKNOWN + b" "):
        return ProxyHeader(end + 2)
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise PeerError("a PROXY protocol line that makes no sense")
    version = 4 if match[1] == b"TCP4" else 6
    client, server = _address(match[2].decode(), match[4], version), _address(match[3].decode(), match[5], version)
    return ProxyHeader(end + 2, True, client, server)


def _address(text: str, port: bytes, version: int) -> Address:
    try:
        host = ipaddress.ip_address(text)
    except ValueError:
        raise PeerError("a PROXY protocol line with an address that is none") from None
    if host.version != version or int(port) > 65535:
        raise PeerError("a PROXY protocol line whose addresses are of another kind than it says, or a port that is none")
    return plain(host), int(port)


def plain(host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The text of an address; an IPv4 address in the clothes of an IPv6 one (RFC 4291 section 2.5.5.2) is one of IPv4."""
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return str(mapped or host)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < V2_FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    size = V2_FIXED_BYTES + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise PeerError("a PROXY protocol header of a version or command that does not exist")
    if size > limits.PROXY_HEADER_BYTES:
        raise PeerError(f"a PROXY protocol header over {limits.PROXY_HEADER_BYTES} bytes")
    if family >> 4 > 3 or family & 15 > 2:
        raise PeerError("a PROXY protocol header with an address family or transport that does not exist")
    least = _ADDRESS_BYTES.get(family >> 4, 0) if command == _PROXY else 0
    if size < V2_FIXED_BYTES + least:
        raise PeerError("a PROXY protocol header that is too short for its addresses")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size)
    if family == _TCP4:
        client, server = (plain(ipaddress.IPv4Address(data[at : at + 4])) for at in (16, 20))
        ports = data[24:28]
    elif family == _TCP6:
        client, server = (plain(ipaddress.IPv6Address(data[at : at + 16])) for at in (16, 32))
        ports = data[48:52]
    elif family == _UNIX:
        path = data[124:232].partition(b"\0")[0]
        return ProxyHeader(size, True, None, (path.decode("utf-8", "replace"), None))
    else:
        return ProxyHeader(size)  # datagrams, or not specified: the addresses are to be ignored
    return ProxyHeader(size, True, (client, int.from_bytes(ports[:2])), (server, int.from_bytes(ports[2:])))
