"""The corpus: every case is fed whole, byte by byte and cut at random, to an engine whose app answers at once and one whose app
answers later. Nothing of that may change what comes out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cavalcade import limits
from cavalcade.wire.h1 import H1
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.sink import Head

HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def get(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


# What is taken: the bytes, and for each request in them what is to be found of it.
TAKEN: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "plain": (get(), [{"method": "GET", "path": "/", "raw_path": b"/", "query": b"", "version": "1.1", "keep_alive": True, "length": 0}]),
    "query": (get(b"GET /a?b=c?d HTTP/1.1"), [{"path": "/a", "raw_path": b"/a", "query": b"b=c?d", "target": b"/a?b=c?d"}]),
    "empty query": (get(b"GET /? HTTP/1.1"), [{"path": "/", "query": b""}]),
    "percent": (get(b"GET /%C3%A9%2F%zz?%20 HTTP/1.1"), [{"path": "/é/%zz", "raw_path": b"/%C3%A9%2F%zz", "query": b"%20"}]),
    "percent, not UTF-8": (get(b"GET /%ff HTTP/1.1"), [{"path": "/\ufffd", "raw_path": b"/%ff"}]),
    "percent NUL": (get(b"GET /%00 HTTP/1.1"), [{"path": "/\0"}]),
    "double slash": (get(b"GET //a/../b HTTP/1.1"), [{"path": "//a/../b"}]),
    "absolute form": (
        get(b"GET http://b:80/x?y HTTP/1.1"),
        [{"path": "/x", "query": b"y", "target": b"http://b:80/x?y", "headers": [(b"host", b"b:80")]}],
    ),
    "absolute form without a path": (get(b"GET HTTPS://b?x=1 HTTP/1.1"), [{"path": "/", "query": b"x=1", "headers": [(b"host", b"b")]}]),
    "absolute form, 1.0, no Host": (get(b"GET http://b/ HTTP/1.0", b""), [{"path": "/", "headers": []}]),
    "asterisk form": (get(b"OPTIONS * HTTP/1.1"), [{"method": "OPTIONS", "path": "*", "raw_path": b"*"}]),
    "1.0": (get(b"GET / HTTP/1.0", b""), [{"version": "1.0", "keep_alive": False}]),
    "1.0 keep-alive": (get(b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n"), [{"version": "1.0", "keep_alive": True}]),
    "1.1 close": (get(fields=HOST + b"Connection: close\r\n"), [{"keep_alive": False}]),
    "1.1 close in a list": (get(fields=HOST + b"Connection: x, Close\r\n"), [{"keep_alive": False}]),
    "what follows a close is not looked at": (get(fields=HOST + b"Connection: close\r\n") + b"\0junk", [{"keep_alive": False}]),
    "names in lower case, values as they are": (
        get(fields=b"HOST: A\r\nX-Thing:  V v\t \r\nx-empty:\r\nX-THING: 2\r\n"),
        [{"headers": [(b"host", b"A"), (b"x-thing", b"V v"), (b"x-empty", b""), (b"x-thing", b"2")]}],
    ),
    "bytes over 127 in a value": (get(fields=HOST + b"X: \xc3\xa9\xff\r\n"), [{"headers": [(b"host", b"a"), (b"x", b"\xc3\xa9\xff")]}]),
    "pipelined": (get() * 3, [{}, {}, {}]),
    "pipelined behind bodies": (
        post(b"Content-Length: 3\r\n", b"abc") + CHUNKED + b"1\r\nx\r\n0\r\n\r\n" + get(b"HEAD /3 HTTP/1.1"),
        [{"body": b"abc"}, {"body": b"x"}, {"method": "HEAD", "path": "/3"}],
    ),
    "empty lines before a request": (b"\r\n\r\n" + get() + b"\r\n" + get(), [{}, {}]),
    "length 0": (post(b"Content-Length: 0\r\n") + get(), [{"length": 0, "body": b""}, {}]),
    "length": (post(b"Content-Length: 5\r\n", b"a\r\n\r\n"), [{"length": 5, "body": b"a\r\n\r\n"}]),
    "length with leading zeros": (post(b"Content-Length: 0001\r\n", b"x"), [{"length": 1, "body": b"x"}]),
    "length with white space": (post(b"Content-Length: \t1\t \r\n", b"x"), [{"length": 1, "body": b"x"}]),
    "GET with a body": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx", [{"method": "GET", "body": b"x"}]),
    "chunked": (CHUNKED + b"1\r\na\r\n00A\r\n0123456789\r\n0\r\n\r\n", [{"length": -1, "body": b"a0123456789"}]),
    "chunked, nothing in it": (CHUNKED + b"000\r\n\r\n" + get(), [{"length": -1, "body": b""}, {}]),
    "chunked, in capitals": (post(b"Transfer-Encoding: CHUNKED\r\n", b"1\r\nx\r\n0\r\n\r\n"), [{"body": b"x"}]),
    "chunk with line ends in it": (CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n" + get(), [{"body": b"\r\n0\r\n\r\n"}, {}]),
    "chunk extensions": (CHUNKED + b'1;a;b=c;d="e;f"\r\nx\r\n0;z\r\n\r\n' + get(), [{"body": b"x"}, {}]),
    "trailers": (
        CHUNKED + b"1\r\nx\r\n0\r\nA: b\r\nHost: z\r\n\r\n" + get(fields=b"Host: y\r\n"),
        [{"body": b"x", "headers": [(b"host", b"a"), (b"transfer-encoding", b"chunked")]}, {"headers": [(b"host", b"y")]}],
    ),
    "a trailer is no expectation of the next request": (
        CHUNKED + b"0\r\nExpect: 100-continue\r\n\r\n" + post(b"Content-Length: 1\r\n", b"x"),
        [{}, {"expects_continue": False}],
    ),
    "expectation": (post(b"Expect: 100-Continue\r\nContent-Length: 1\r\n", b"x"), [{"expects_continue": True}]),
    "expectation without a body": (get(fields=HOST + b"Expect: 100-continue\r\n") + get(), [{"expects_continue": False}, {}]),
    "expectation in 1.0": (
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        [{"expects_continue": False, "body": b"x"}],
    ),
    "upgrade that is not taken": (get(fields=HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + get(), [{"upgrade": True}, {}]),
    "upgrade with a body": (
        post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n", b"abc") + get(),
        [{"upgrade": True, "body": b"abc"}, {"upgrade": False}],
    ),
    "upgrade with a chunked body": (
        post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n") + get(),
        [{"upgrade": True, "body": b"abc"}, {"upgrade": False}],
    ),
    "upgrade with a body, in 1.0": (
        b"POST / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx",
        [{"version": "1.0", "body": b"x"}],
    ),
    "method QUERY": (get(b"QUERY / HTTP/1.1"), [{"method": "QUERY"}]),
    "method that is not in the table": (get(b"M-SEARCH / HTTP/1.1"), [{"method": "M-SEARCH"}]),
    "empty Host": (get(fields=b"Host:\r\n"), [{"headers": [(b"host", b"")]}]),
    "request line at its limit": (get(b"GET /" + b"a" * 8178 + b" HTTP/1.1"), [{"raw_path": b"/" + b"a" * 8178}]),
    "as many header fields as may be": (get(fields=HOST + b"X: y\r\n" * 99), [{}]),
    "head at its limit": (get(fields=HOST + b"X: " + b"a" * (65536 - 16 - 9 - 7) + b"\r\n"), [{}]),
}

for _host in (b"example.org", b"a.b:65535", b"a:", b"127.0.0.1:80", b"[::1]", b"[::1]:8000", b"[v1.x]", b"a_b", b"%41", b"a!$&'()*+,;=~-"):
    TAKEN[f"Host {_host.decode()}"] = (get(fields=b"Host: " + _host + b"\r\n"), [{"headers": [(b"host", _host)]}])

# What is refused: the bytes, and the status. A good request stands before each, and must be whole whatever follows.
REFUSED: dict[str, tuple[bytes, int]] = {
    # -- framing: two parsers that read one message differently are how requests are smuggled
    "length and chunked": (post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n"), 400),
    "list of lengths": (post(b"Content-Length: 1, 1\r\n", b"x"), 400),
    "same length twice": (post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"x"), 400),
    "two lengths": (post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"xx"), 400),
    "length with a plus": (post(b"Content-Length: +1\r\n", b"x"), 400),
    "negative length": (post(b"Content-Length: -1\r\n", b"x"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x1\r\n", b"x"), 400),
    "length with an underscore": (post(b"Content-Length: 1_0\r\n", b"x" * 10), 400),
    "length with a fraction": (post(b"Content-Length: 1.0\r\n", b"x"), 400),
    "length in other digits": (post("Content-Length: ١\r\n".encode(), b"x"), 400),
    "empty length": (post(b"Content-Length:\r\n", b"x"), 400),
    "length beyond 2^53": (post(b"Content-Length: 9007199254740992\r\n"), 413),
    "length 2^63 - 1": (post(b"Content-Length: 9223372036854775807\r\n"), 413),
    "length 2^63": (post(b"Content-Length: 9223372036854775808\r\n"), 413),
    "length 2^64 - 1": (post(b"Content-Length: 18446744073709551615\r\n"), 413),
    "length 2^64 + 1": (post(b"Content-Length: 18446744073709551617\r\n", b"x"), 413),
    "endless length": (post(b"Content-Length: " + b"9" * 300 + b"\r\n"), 413),
    "length made long with zeros": (post(b"Content-Length: " + b"0" * 30 + b"1\r\n", b"x"), 413),
    "length in the trailers": (CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n", 400),
    "chunked in the trailers": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked twice in a list": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    "another coding": (post(b"Transfer-Encoding: gzip\r\n"), 501),
    "another coding before chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "another coding behind chunked": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), 400),
    "nearly chunked": (post(b"Transfer-Encoding: xchunked\r\n"), 501),
    "identity": (post(b"Transfer-Encoding: identity\r\n"), 501),
    "no coding": (post(b"Transfer-Encoding:\r\n"), 400),
    "vertical tab before chunked": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "quoted chunked": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    # -- chunks
    "chunk size with 0x": (CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size with a sign": (CHUNKED + b"+1\r\nx\r\n0\r\n\r\n", 400),
    "negative chunk size": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size with an underscore": (CHUNKED + b"1_0\r\nx\r\n0\r\n\r\n", 400),
    "no chunk size": (CHUNKED + b"\r\nx\r\n0\r\n\r\n", 400),
    "only an extension": (CHUNKED + b";a\r\nx\r\n0\r\n\r\n", 400),
    "space before the chunk size": (CHUNKED + b" 1\r\nx\r\n0\r\n\r\n", 400),
    "space behind the chunk size": (CHUNKED + b"1 \r\nx\r\n0\r\n\r\n", 400),
    "chunk size 2^53": (CHUNKED + b"20000000000000\r\nx", 413),
    "chunk size 2^63 - 1": (CHUNKED + b"7fffffffffffffff\r\nx", 413),
    "chunk size 2^63": (CHUNKED + b"8000000000000000\r\nx", 413),
    "chunk size 2^64 - 1": (CHUNKED + b"ffffffffffffffff\r\nx", 413),
    "chunk size 2^64 + 1": (CHUNKED + b"10000000000000001\r\nx\r\n0\r\n\r\n", 413),
    "chunk longer than its size": (CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n", 400),
    "chunk shorter than its size": (CHUNKED + b"5\r\nxyz\r\n0\r\n\r\n", 400),
    "bare line feeds between chunks": (CHUNKED + b"1\nx\n0\n\n", 400),
    "bare line feed behind an extension": (CHUNKED + b"1;a\nx\r\n0\r\n\r\n", 400),
    "carriage return in an extension": (CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n", 400),
    "bare line feed behind a chunk": (CHUNKED + b"1\r\nx\n0\r\n\r\n", 400),
    "bare line feed in the trailers": (CHUNKED + b"0\r\nA: b\n\r\n", 400),
    "junk for trailers": (CHUNKED + b"0\r\n\0: b\r\n\r\n", 400),
    "endless extension": (CHUNKED + b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n", 400),
    "endless zeros": (CHUNKED + b"0" * 300 + b"1\r\nx\r\n0\r\n\r\n", 400),
    # -- Host
    "no Host": (get(fields=b""), 400),
    "two Hosts": (get(fields=HOST + HOST), 400),
    "two Hosts in 1.0": (get(b"GET / HTTP/1.0", HOST + HOST), 400),
    "list of Hosts": (get(fields=b"Host: a, b\r\n"), 400),
    "Host with a path": (get(fields=b"Host: a/b\r\n"), 400),
    "Host with user information": (get(fields=b"Host: u@a\r\n"), 400),
    "Host with a space": (get(fields=b"Host: a b\r\n"), 400),
    "Host with a query": (get(fields=b"Host: a?b\r\n"), 400),
    "Host with a fragment": (get(fields=b"Host: a#b\r\n"), 400),
    "Host with a backslash": (get(fields=b"Host: a\\b\r\n"), 400),
    "Host with a port that is none": (get(fields=b"Host: a:b\r\n"), 400),
    "Host with an endless port": (get(fields=b"Host: a:123456\r\n"), 400),
    "Host with two ports": (get(fields=b"Host: a:1:2\r\n"), 400),
    "Host with half a bracket": (get(fields=b"Host: [::1\r\n"), 400),
    "Host with a bad percent": (get(fields=b"Host: %zz\r\n"), 400),
    "Host over 127": (get(fields=b"Host: \xc3\xa9\r\n"), 400),
    "white space before the colon of Host": (get(fields=b"Host : a\r\n"), 400),
    # -- fields
    "folded field": (get(fields=HOST + b"X: a\r\n b\r\n"), 400),
    "white space before the first field": (get(fields=b" " + HOST), 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare line feed behind a field": (get(fields=b"Host: a\nX: b\r\n"), 400),
    "bare line feed at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "bare carriage return in a field": (get(fields=b"Host: a\rX: b\r\n"), 400),
    "bare carriage return behind the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    "NUL in a value": (get(fields=HOST + b"X: a\0b\r\n"), 400),
    "control character in a value": (get(fields=HOST + b"X: \x01\r\n"), 400),
    "DEL in a value": (get(fields=HOST + b"X: \x7f\r\n"), 400),
    "NUL in a name": (get(fields=HOST + b"X\0: a\r\n"), 400),
    "field without a name": (get(fields=HOST + b": a\r\n"), 400),
    "field without a colon": (get(fields=HOST + b"abc\r\n"), 400),
    "parenthesis in a name": (get(fields=HOST + b"X(: a\r\n"), 400),
    "name over 127": (get(fields=HOST + b"\xc3\xa9: a\r\n"), 400),
    # -- request line
    "fragment": (get(b"GET /a#b HTTP/1.1"), 400),
    "target over 127": (get(b"GET /\xc3\xa9 HTTP/1.1"), 400),
    "DEL in the target": (get(b"GET /\x7f HTTP/1.1"), 400),
    "NUL in the target": (get(b"GET /\0 HTTP/1.1"), 400),
    "space in the target": (get(b"GET /a b HTTP/1.1"), 400),
    "two spaces before the target": (get(b"GET  / HTTP/1.1"), 400),
    "two spaces behind the target": (get(b"GET /  HTTP/1.1"), 400),
    "space behind the version": (get(b"GET / HTTP/1.1 "), 400),
    "tab in the request line": (get(b"GET\t/ HTTP/1.1"), 400),
    "no target": (get(b"GET  HTTP/1.1"), 400),
    "target without a slash": (get(b"GET abc HTTP/1.1"), 400),
    "only a query": (get(b"GET ?a HTTP/1.1"), 400),
    "asterisk, not with OPTIONS": (get(b"GET * HTTP/1.1"), 400),
    "asterisk and more": (get(b"OPTIONS *a HTTP/1.1"), 400),
    "URL with user information": (get(b"GET http://u@b/ HTTP/1.1"), 400),
    "URL without a host": (get(b"GET http:///x HTTP/1.1"), 400),
    "URL of another scheme": (get(b"GET ftp://b/ HTTP/1.1"), 400),
    "CONNECT": (get(b"CONNECT a:80 HTTP/1.1"), 501),
    "CONNECT with a target that is known": (get(b"CONNECT / HTTP/1.1"), 501),
    "method that does not exist": (get(b"FOO / HTTP/1.1"), 501),
    "method in small letters": (get(b"get / HTTP/1.1"), 501),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (get(b"GET / HTTP/1.2"), 505),
    "HTTP/1.9": (get(b"GET / HTTP/1.9"), 505),
    "HTTP/2.0": (get(b"GET / HTTP/2.0"), 505),
    "HTTP/1.10": (get(b"GET / HTTP/1.10"), 400),
    "another protocol": (get(b"OPTIONS / RTSP/1.0"), 400),
    "yet another protocol": (get(b"SOURCE / ICE/1.0"), 400),
    "http in small letters": (get(b"GET / http/1.1"), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400),
    "junk": (b"\x00\x01\x02\x03\r\n\r\n", 400),
    "endless empty lines": (b"\r\n" * 33, 400),
    # -- limits
    "expectation that nobody knows": (post(b"Expect: 200-ok\r\nContent-Length: 1\r\n", b"x"), 417),
    "request line over its limit": (get(b"GET /" + b"a" * 8179 + b" HTTP/1.1"), 414),
    "request line over the limit of the head": (get(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), 414),
    "request line without an end": (b"GET /" + b"a" * 9000, 414),
    "request line over its limit in 1.0": (get(b"GET /" + b"a" * 8179 + b" HTTP/1.0"), 414),
    "too many header fields": (get(fields=HOST + b"X: y\r\n" * 100), 431),
    "head over its limit": (get(fields=HOST + b"X: " + b"a" * (65536 - 16 - 9 - 6) + b"\r\n"), 431),
    "header field of 100 KB": (get(fields=HOST + b"X: " + b"a" * 100_000 + b"\r\n"), 431),
    "header field without an end": (b"GET / HTTP/1.1\r\nX: " + b"a" * 66_000, 431),
    "trailers over the limit": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 11_000 + b"\r\n", 431),
    "trailer without an end": (CHUNKED + b"0\r\nX: " + b"y" * 66_000, 431),
}

LONG = 5000  # beyond this, byte by byte and many random cuts take too long; such cases are cut coarsely


def check(said: Any, wanted: list[dict[str, Any]], status: int = 0) -> None:
    requests, found_status = said.outcome
    assert (found_status, len(requests)) == (status, len(wanted)), said
    assert status or len(said.requests) == len(wanted)
    for request, facts in zip(requests, wanted, strict=True):
        for name, value in facts.items():
            assert getattr(request, name) == value, name


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(set(places)), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start != end]


ALL = {**{name: (data, wanted, 0) for name, (data, wanted) in TAKEN.items()}} | {
    f"refused: {name}": (get(b"GET /first HTTP/1.1") + data, [{"path": "/first"}], status) for name, (data, status) in REFUSED.items()
}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("name", ALL)
def test_fed_whole(feed: Any, name: str, at_once: bool) -> None:
    data, wanted, status = ALL[name]
    check(feed(data, at_once=at_once), wanted, status)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("name", ALL)
def test_fed_byte_by_byte(feed: Any, name: str, at_once: bool) -> None:
    data, wanted, status = ALL[name]
    check(feed(*pieces_of(data, 1 if len(data) < LONG else 509), at_once=at_once), wanted, status)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fed_in_random_pieces(feed: Any, name: str, data: st.DataObject) -> None:
    raw, wanted, status = ALL[name]
    places = data.draw(st.lists(st.integers(0, len(raw)), max_size=12))
    check(feed(*cut(raw, places), at_once=data.draw(st.booleans())), wanted, status)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_as_a_first_request_too(feed: Any, name: str) -> None:
    data, status = REFUSED[name]
    check(feed(data), [], status)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (REFUSED["TLS"][0], "TLS spoken to a plain HTTP port"),
        (REFUSED["HTTP/2 preface"][0], "HTTP/2 preface"),
        (REFUSED["no Host"][0], "without a Host header"),
        (REFUSED["request line over its limit"][0], "limit_request_line"),
        (REFUSED["too many header fields"][0], "limit_request_fields"),
        (REFUSED["head over its limit"][0], "limit_request_head"),
    ],
)
def test_the_cause_names_what_is_wrong(feed: Any, data: bytes, words: str) -> None:
    assert words in feed(data).cause


def test_what_follows_a_refusal_is_not_looked_at(feed: Any) -> None:
    said = feed(get(fields=b"") + get(), get())
    assert said.requests == []


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_ten_thousand_pipelined_requests_do_not_recurse(feed: Any, at_once: bool) -> None:
    said = feed(get() * 10_000, at_once=at_once)
    assert len(said.requests) == 10_000


def test_only_so_many_pipelined_requests_are_begun_at_a_time() -> None:
    """An app that answers at once would otherwise answer thousands before any other connection has its turn."""
    begun = 0

    class AtOnce:
        def on_request(self, head: Head) -> None:
            nonlocal begun
            begun += 1
            engine.next_request()

        def on_body(self, chunk: bytes) -> None:
            raise AssertionError

        def on_end(self) -> None:
            raise AssertionError

    engine = H1(AtOnce(), Rules())
    engine.feed(get() * 40)
    counts = [begun]
    while engine.due():
        assert not engine.idle()
        engine.next_request()
        counts.append(begun)
    assert counts == [limits.PIPELINED_PER_TURN, 2 * limits.PIPELINED_PER_TURN, 40]
    assert engine.idle()


@pytest.mark.parametrize("size", [1, 3, 17, 18, 19, 100])
def test_an_http2_preface_goes_to_whoever_speaks_it_with_all_that_follows(recorder: Any, size: int) -> None:
    sink = recorder(Rules(), at_once=False)
    sink.http2 = True
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    at = 0
    while not sink.preface:
        sink.engine.feed(data[at : at + size])
        at += size
    assert sink.preface + data[at:] == data
    assert sink.engine.head_bytes == 0
    assert not sink.engine.idle()
    assert sink.said.requests == []


@pytest.mark.parametrize(
    "data", [b"PRI * HTTP/2.0\r\nA: b\r\n\r\nSM\r\n\r\n", b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\n\nSM\n\n"]
)
def test_what_only_looks_like_a_preface_goes_to_nobody(recorder: Any, data: bytes) -> None:
    sink = recorder(Rules(), at_once=False)
    sink.http2 = True
    assert sink.feed([data]).status in (400, 505)
    assert not sink.preface


# -- options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "data", "status"),
    [
        ({"body_bytes": 3}, post(b"Content-Length: 3\r\n", b"abc"), 0),
        ({"body_bytes": 3}, post(b"Content-Length: 4\r\n", b"abcd"), 413),
        ({"body_bytes": 3}, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 0),
        ({"body_bytes": 3}, CHUNKED + b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", 413),
        ({"body_bytes": 3}, CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n", 413),
        ({"request_line": 64}, get(b"GET /" + b"a" * 50 + b" HTTP/1.1"), 0),
        ({"request_line": 64}, get(b"GET /" + b"a" * 51 + b" HTTP/1.1"), 414),
        ({"header_fields": 2}, get(fields=HOST + b"X: y\r\n"), 0),
        ({"header_fields": 2}, get(fields=HOST + b"X: y\r\n" * 2), 431),
        ({"head_bytes": 256}, get(fields=HOST + b"X: " + b"a" * (256 - 16 - 9 - 7) + b"\r\n"), 0),
        ({"head_bytes": 256}, get(fields=HOST + b"X: " + b"a" * (256 - 16 - 9 - 6) + b"\r\n"), 431),
        # By default, where nobody has set any.
        ({}, get(b"GET /" + b"a" * limits.REQUEST_LINE_BYTES + b" HTTP/1.1"), 414),
        ({}, get(fields=HOST + b"X: y\r\n" * limits.HEADER_FIELDS), 431),
        ({}, get(fields=HOST + b"X: " + b"a" * limits.HEAD_BYTES + b"\r\n"), 431),
    ],
)
def test_each_limit_holds_to_the_byte(feed: Any, rules: dict[str, int], data: bytes, status: int) -> None:
    for size in (len(data), 7, 1):
        assert feed(*pieces_of(data, size), **rules).status == status
