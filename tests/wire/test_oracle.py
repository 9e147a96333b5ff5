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
            if not isinstance(request, h11.Request) or request.method == b"CONNECT":
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


# Parts of a request: those that go together, and those that go wrong. Most requests get none of the latter, some get one or two.
GOOD = {
    "method": [b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE"],
    "target": [b"/", b"/a?b=c", b"/%00%2f", b"http://h/x", b"//"],
    "version": [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"],
    "end": [b"\r\n"],
    "field": [b"X: y", b"X:", b"X:\ty\t", b"X: \xe9", b"Connection: keep-alive", b"Connection: close", b"Expect: 100-continue"],
    "body": [
        (b"", b""),
        (b"Content-Length: 5", b"hello"),
        (b"Content-Length: 05", b"GET /"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: Chunked", b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n"),
    ],
}
BAD = {
    "method": [b"get", b"FOO", b"", b"G\0T", b"CONNECT"],
    "target": [b"*", b"/a#b", b"a", b"/\xc3\xa9", b"/ b", b"/\t", b""],
    "version": [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"", b"HTTP/1.10"],
    "end": [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n ", b""],
    "field": [
        b"X: \0",
        b" X: y",
        b"X : y",
        b"Host: z",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: Upgrade\r\nUpgrade: x",
    ],
    "body": [
        (b"Content-Length: +5", b"hello"),
        (b"Content-Length: 5, 5", b"hello"),
        (b"Content-Length : 5", b"hello"),
        (b"Content-Length: \x0b5", b"hello"),
        (b"Content-Length: 6", b"hello"),
        (b"Transfer-Encoding: xchunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: gzip, chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding:\x0bchunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"5\nhello\n0\n\n"),
        (b"Transfer-Encoding: chunked", b"0x5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"6\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"5 \r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"4\r\nhello\r\n0\r\n\r\n"),
    ],
}


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    data = []
    for _ in range(draw(st.integers(1, 4))):
        wrong = draw(st.lists(st.sampled_from(sorted(BAD)), max_size=2)) if draw(st.integers(0, 3)) == 0 else []

        def part(kind: str, wrong: list[str] = wrong) -> Any:
            return draw(st.sampled_from(BAD[kind] if kind in wrong and draw(st.booleans()) else GOOD[kind]))

        framing, body = part("body")
        data.append(part("method") + b" " + part("target") + b" " + part("version") + part("end"))
        fields = [b"Host: h", *([part("field")] if draw(st.booleans()) else []), framing]
        data += [field + part("end") for field in fields if field]
        data += [part("end"), body]
    return b"".join(data)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(requests())
def test_what_we_take_h11_reads_the_same(feed: Any, data: bytes) -> None:
    ours = [request for request in feed(data).requests if request.whole]
    theirs = as_h11_reads(data)
    for ours_, (method, target, version, headers, body) in zip(ours, theirs, strict=False):
        assert (ours_.method.encode(), ours_.target, ours_.version.encode(), ours_.body) == (method, target, version, body)
        if not ours_.target.startswith(b"http"):
            # h11 writes the coding in small letters.
            assert [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in ours_.headers] == headers
    # More requests than h11 saw would be requests that somebody smuggled past it. It knows of two things that are none of that: it
    # does not go on after an upgrade that was offered, nor after HTTP/1.0.
    if len(ours) > len(theirs):
        last = ours[len(theirs) - 1] if theirs else None
        assert last is not None, data
        assert last.upgrade or last.version == "1.0", data
