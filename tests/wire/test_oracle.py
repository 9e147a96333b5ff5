"""Differential: what we take, h11 takes too, and reads the same in it. Where h11 is laxer, we refuse; never the other way round."""

from __future__ import annotations

from typing import Any

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def as_h11_reads(data: bytes) -> list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
    """The whole requests in `data`, until one is refused, broken off, or the last of its connection."""
    found = []
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    try:
        while True:
            request = server.next_event()
            if not isinstance(request, h11.Request):
                return found
            body = b""
            while isinstance(event := server.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                return found
            found.append((request.method, request.target, request.http_version, list(request.headers), body))
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                return found
            server.start_next_cycle()
    except h11.RemoteProtocolError:
        return found


METHOD = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"get", b"FOO", b""])
TARGET = st.sampled_from([b"/", b"/a?b=c", b"/%00%2f", b"*", b"http://h/x", b"//", b"/a#b", b"a", b"/\xc3\xa9", b"/ b", b"/\t"])
VERSION = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0"] * 2 + [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""])
END = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b" \r\n"])
FIELD = st.sampled_from(
    [b"Host: h"] * 8
    + [
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: Upgrade",
        b"Upgrade: x",
        b"X: y",
        b"X:",
        b"X:\ty\t",
        b"X: \x00",
        b" X: y",
    ]
    + [b"Content-Length: 5"] * 4
    + [
        b"Content-Length: 05",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 0",
        b"Content-Length : 5",
        b"Content-Length: \x0b5",
    ]
    + [b"Transfer-Encoding: chunked"] * 3
    + [b"Transfer-Encoding: Chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:\x0bchunked"]
)
BODY = st.sampled_from(
    [b""] * 3
    + [b"hello"] * 4
    + [b"5\r\nhello\r\n0\r\n\r\n"] * 3
    + [
        b"5;a=b\r\nhello\r\n0\r\nT: t\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    data = []
    for _ in range(draw(st.integers(1, 3))):
        data.append(draw(METHOD) + b" " + draw(TARGET) + b" " + draw(VERSION) + draw(END))
        data += [field + draw(END) for field in draw(st.lists(FIELD, min_size=1, max_size=4))]
        data += [draw(END), draw(BODY)]
    return b"".join(data)


@settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(requests())
def test_what_we_take_h11_reads_the_same(feed: Any, data: bytes) -> None:
    ours = [request for request in feed(data).requests if request.whole]
    theirs = as_h11_reads(data)
    for ours_, (method, target, version, headers, body) in zip(ours, theirs, strict=False):
        assert (ours_.method.encode(), ours_.target, ours_.version.encode(), ours_.body) == (method, target, version, body)
        if not ours_.target.startswith(b"http"):
            assert [(name, value.strip(b"\t ")) for name, value in ours_.headers] == headers
    # More requests than h11 saw would be requests that somebody smuggled past it. It knows of two things that are none of that: it
    # does not go on after an upgrade that was offered, nor after HTTP/1.0.
    if len(ours) > len(theirs):
        last = ours[len(theirs) - 1] if theirs else None
        assert last is not None, data
        assert last.upgrade or last.version == "1.0", data
