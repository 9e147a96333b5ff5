"""The PROXY protocol: every header is read the same whole, byte by byte and cut anywhere, and nothing behind it is touched."""

from __future__ import annotations

import ipaddress
import random

import pytest

from cavalcade import limits
from cavalcade.errors import PeerError
from cavalcade.types import Address
from cavalcade.wire.proxy_header import V2, ProxyHeader, read

Told = tuple[bool, Address | None, Address | None]
NOT_TOLD: Told = (False, None, None)


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2 + bytes([command, family]) + len(body).to_bytes(2) + body


def inet(client: str, server: str, ports: tuple[int, int]) -> bytes:
    both = ipaddress.ip_address(client).packed + ipaddress.ip_address(server).packed
    return both + ports[0].to_bytes(2) + ports[1].to_bytes(2)


TLVS = b"\x03\x00\x04\x01\x02\x03\x04" + b"\xea\x00\x03vpc"
UNIX = b"/client".ljust(108, b"\0") + b"/run/app.sock".ljust(108, b"\0")

HERE: Address = ("10.0.0.1", 80)

HEADERS: dict[str, tuple[bytes, Told]] = {
    "v1 tcp4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", (True, ("203.0.113.7", 56324), ("10.0.0.1", 443))),
    "v1 tcp6": (b"PROXY TCP6 2001:DB8::0:7 ::1 0 65535\r\n", (True, ("2001:db8::7", 0), ("::1", 65535))),
    "v1 tcp6 mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", (True, ("192.0.2.1", 1), ("::1", 2))),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", NOT_TOLD),
    "v1 unknown with addresses": (b"PROXY UNKNOWN ffff:f...f ffff 65535 65535\r\n", NOT_TOLD),
    "v1 the longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOT_TOLD),
    "v2 tcp4": (v2(0x21, 0x11, inet("203.0.113.7", "10.0.0.1", (56324, 443))), (True, ("203.0.113.7", 56324), ("10.0.0.1", 443))),
    "v2 tcp6": (v2(0x21, 0x21, inet("2001:db8::7", "::1", (1, 2))), (True, ("2001:db8::7", 1), ("::1", 2))),
    "v2 tcp6 mapped": (v2(0x21, 0x21, inet("::ffff:192.0.2.1", "::1", (1, 2))), (True, ("192.0.2.1", 1), ("::1", 2))),
    "v2 with TLVs": (v2(0x21, 0x11, inet("192.0.2.9", "10.0.0.1", (9, 80)) + TLVS), (True, ("192.0.2.9", 9), ("10.0.0.1", 80))),
    "v2 with garbage for TLVs": (
        v2(0x21, 0x11, inet("192.0.2.9", "10.0.0.1", (9, 80)) + b"\xff"),
        (True, ("192.0.2.9", 9), ("10.0.0.1", 80)),
    ),
    "v2 unix": (v2(0x21, 0x31, UNIX), (True, None, ("/run/app.sock", None))),
    "v2 udp": (v2(0x21, 0x12, inet("192.0.2.9", "10.0.0.1", (9, 80))), NOT_TOLD),
    "v2 unspecified": (v2(0x21, 0x00, b""), NOT_TOLD),
    "v2 local": (v2(0x20, 0x00, b""), NOT_TOLD),
    "v2 local with addresses": (v2(0x20, 0x11, inet("192.0.2.9", "10.0.0.1", (9, 80))), NOT_TOLD),
    "v2 the longest": (
        v2(0x21, 0x11, inet("192.0.2.9", "10.0.0.1", (9, 80)) + bytes(limits.PROXY_HEADER_BYTES - 28)),
        (True, ("192.0.2.9", 9), ("10.0.0.1", 80)),
    ),
}

BAD: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
    "no such family": b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
    "udp": b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
    "two spaces": b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
    "a space at the end": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
    "no ports": b"PROXY TCP4 1.1.1.1 1.1.1.1\r\n",
    "no port": b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
    "a port that is none": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
    "a port with a zero before it": b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
    "a port with a sign": b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n",
    "no address": b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n",
    "a host name": b"PROXY TCP4 localhost 1.1.1.1 1 1\r\n",
    "v6 in TCP4": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "v4 in TCP6": b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
    "a scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
    "bare line feed": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
    "UNKNOWNS": b"PROXY UNKNOWNS\r\n",
    "too long a line": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v2 of version 1": V2 + b"\x11\x11\x00\x00",
    "v2 no such command": V2 + b"\x22\x11\x00\x0c",
    "v2 no such family": V2 + b"\x21\x41\x00\x00",
    "v2 no such transport": V2 + b"\x21\x13\x00\x0c",
    "v2 too short": v2(0x21, 0x11, bytes(11)),
    "v2 unix too short": v2(0x21, 0x31, bytes(215)),
    "v2 too long": V2 + b"\x21\x11\xff\xff",
    "v2 broken signature": V2[:-1] + b"!",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_read_the_same_however_it_is_cut(name: str) -> None:
    data, (told, client, server) = HEADERS[name]
    expected = ProxyHeader(len(data), told, client, server)
    assert read(data) == expected
    assert read(data + b"GET / HTTP/1.1\r\n\r\n") == expected
    for size in [*range(min(len(data), 300)), len(data) - 1]:
        assert read(data[:size]) is None, data[:size]
    choice = random.Random(name)
    at = 0
    while (found := read(data[:at])) is None:
        at += choice.randint(1, 40)
    assert found == expected


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_as_soon_as_that_is_sure(name: str) -> None:
    data = BAD[name]
    with pytest.raises(PeerError):
        read(data)
    for size in range(len(data)):
        try:
            assert read(data[:size]) is None
        except PeerError:
            break


def test_random_bytes_never_do_anything_else_than_being_read_or_refused() -> None:
    choice = random.Random(1)
    for _ in range(3000):
        start = choice.choice([b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21", V2 + b"\x21\x11", V2 + b"\x21\x21\x00\x30"])
        data = start + choice.randbytes(choice.randint(0, 80))
        try:
            found = read(data)
        except PeerError:
            continue
        assert found is None or found.size <= len(data)
