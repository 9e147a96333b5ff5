"""Differential: a head that is read from tables is the request that llhttp and our policy behind it make of the same bytes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cavalcade import limits
from cavalcade.wire import h1_plain
from cavalcade.wire.h1 import H1
from cavalcade.wire.h1_response import Rules


class ByLibrary(H1):
    """An engine for which no head is plain."""

    def take_plain(self, data: bytes, end: int) -> bool:
        return False


# Lines that are said often, lines that are plain and said once, and lines that are not plain, or not in every company.
PLAIN_LINES = [
    *(b"GET / HTTP/1.1", b"GET /a?b=%20 HTTP/1.1", b"POST /%C3%A9//x HTTP/1.1", b"HEAD /h HTTP/1.1", b'QUERY /"<>|{}^`\\? HTTP/1.1'),
]
DOUBTFUL_LINES = [
    *(b"GET / HTTP/1.0", b"GET http://b/x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PROPFIND / HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1"),
    *(
        b"GET /a#b HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET / HTTP/1.1 ",
        b"GET /\tx HTTP/1.1",
        b"GET /",
    ),
    *(b"CONNECT /x HTTP/1.1", b"CONNECT h:1 HTTP/1.1", b"GET / ICE/1.1", b"PRI * HTTP/2.0", b"GET x HTTP/1.1", b" GET / HTTP/1.1"),
]
PLAIN_FIELDS = [
    *(
        b"Accept: */*",
        b"accept-encoding: gzip, br",
        b"USER-AGENT:x",
        b"User-Agent: \t y z\t ",
        b"X-Empty:",
        b"X-Blank: \t",
        b"X: \xc3\xa9\xff~",
    ),
    *(b"Cookie: a=b; c=d", b"Authorization: Basic eDp5", b"X-Forwarded-For: 1.2.3.4", b"forwarded: for=x", b"X-Forwarded-Proto: https"),
    *(b"Connection: close", b"connection: Keep-Alive", b"Connection:CLOSE ", b"Date: now", b"Server: me", b"TE: trailers", b"Trailer: x"),
    *(b"Keep-Alive: timeout=5", b"!#$%&'*+-.^_`|~09: odd name", b"Upgrade-Insecure-Requests: 1", b"Host2: x", b'If-None-Match: "x"'),
]
LENGTHS = [b"Content-Length: 4", b"Content-Length: 0", b"Content-Length: 3"]
DOUBTFUL_FIELDS = [
    *(b"Host: b", b"Host:", b"Host: a b", b"Host: [::1]:80", b"Host: u@h", b"hOST: \ta\t", b"Content-Length: 99999999999999999"),
    *(b"Content-Length: 04", b"Content-Length: +4", b"Content-Length: 4, 4", b"Content-Length:", b"Content-Length: 4 4"),
    *(b"Content-Length: 4\r\nContent-Length: 4", b"Content-Length : 4", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
    *(b"Transfer-Encoding:", b"Expect: 100-continue", b"Expect: x", b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: upgrade"),
    *(b"Connection: x, close", b"Connection: close, keep-alive", b"Connection:", b"Connection: TE", b"Proxy-Connection: close"),
    *(b"Proxy-Connection: keep-alive", b"Connection: Upgrade\r\nUpgrade: websocket", b" folded", b"\tfolded", b"X : y", b"X y", b": y"),
    *(b"X: a\0b", b"X: a\rb", b"X: a\nb", b"X: \x7f", b"X: \x01", b"X\x80: y", b"X(y): z", b"X: a\r", b"\nX: y"),
]
ENDS = [b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n ", b"\n\n"]
BODIES = [b""] * 4 + [b"body", b"4\r\nbody\r\n0\r\n\r\n", b"\r\n", b"bod", b"0\r\n\r\n"]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """The bytes of a few requests: most are in order, some are not, and in some streams single bytes are changed."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        odd = draw(st.integers(0, 2)) == 0
        lines = [draw(st.sampled_from(PLAIN_LINES + DOUBTFUL_LINES if odd else PLAIN_LINES)), b"Host: a"]
        lines += draw(st.lists(st.sampled_from(PLAIN_FIELDS), max_size=5))
        body = b""
        if draw(st.booleans()):
            lines.append(b"Content-Length: 4")
            body = b"body"
        if odd:
            lines += draw(st.lists(st.sampled_from(DOUBTFUL_FIELDS + LENGTHS + [b""]), max_size=2))
            body = draw(st.sampled_from(BODIES))
            lines = [lines[0], *draw(st.permutations(lines[1:]))]
            if draw(st.integers(0, 5)) == 0:
                lines = [line for line in lines if line != b"Host: a"]
        ends = [draw(st.sampled_from(ENDS)) if odd else b"\r\n" for _ in range(len(lines) + 1)]
        data += b"".join(line + end for line, end in zip([*lines, b""], ends, strict=True)) + body
    for _ in range(draw(st.integers(-3, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(WEDGES)) + data[at + draw(st.integers(0, 1)) :]
    return data


WEDGES = [b"", b"\0", b"\t", b"\n", b"\r", b"\r\n", b" ", b":", b",", b"a", b"\x7f", b"\x80", b"\xff"]
RULES = [{}, {}, {}, {"body_bytes": 3}, {"header_fields": 3}, {"head_bytes": 60}, {"request_line": 16}]
# Each stream is one test of many; the tables of lines live on between them, as they do between the connections of a worker.
MANY = settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def both(recorder: Any, pieces: list[bytes], *, at_once: bool, **rules: int) -> tuple[Any, Any, H1]:
    """What our engine said, what it said without reading anything itself, and our engine."""
    ours = recorder(Rules(**rules), at_once=at_once)
    library = recorder(Rules(**rules), at_once=at_once)
    library.engine = ByLibrary(library, Rules(**rules))
    return ours.feed(pieces), library.feed(pieces), ours.engine


@MANY
@given(streams(), st.sampled_from(RULES), st.booleans())
def test_what_is_read_here_is_what_llhttp_reads(recorder: Any, data: bytes, rules: dict[str, int], at_once: bool) -> None:
    ours, library, _ = both(recorder, [data], at_once=at_once, **rules)
    assert ours == library
    # Now its lines are in the tables, and its fields may be those of the request before.
    ours, library, _ = both(recorder, [data + data + data], at_once=at_once, **rules)
    assert ours == library


@settings(MANY, max_examples=100)
@given(streams(), st.data())
def test_however_it_is_cut(recorder: Any, data: bytes, draw: st.DataObject) -> None:
    places = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=6)))
    cut = [data[a:b] for a, b in pairwise([0, *places, len(data)]) if b > a]
    ours, library, _ = both(recorder, cut, at_once=draw.draw(st.booleans()))
    assert ours == library
    # Byte by byte nothing is plain. What a refusal is called may depend on how much of the bad bytes is there when it is made.
    single, library, _ = both(recorder, [data[at : at + 1] for at in range(len(data))], at_once=False)
    whole, _, _ = both(recorder, [data], at_once=False)
    assert single == library
    assert (single.outcome[0], bool(single.status)) == (whole.outcome[0], bool(whole.status))


def head(*fields: bytes, line: bytes = b"GET /x?y HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: a", *fields, b"", b""))


@pytest.mark.parametrize("field", PLAIN_FIELDS)
def test_the_usual_head_is_no_work_for_llhttp(recorder: Any, field: bytes) -> None:
    for line in PLAIN_LINES:
        ours, library, engine = both(recorder, [head(field, line=line)], at_once=True)
        assert ours == library
        assert ours.requests[0].whole
        assert engine.parser is None
    ours, _, engine = both(recorder, [head(field, b"content-length: 4") + b"bo", b"dy" + head(field)], at_once=True)
    assert ours.requests[0].body == b"body"
    assert engine.parser is None


@pytest.mark.parametrize("field", DOUBTFUL_FIELDS)
def test_what_may_be_doubted_is_left_to_llhttp(recorder: Any, field: bytes) -> None:
    ours, library, engine = both(recorder, [head(field)], at_once=True)
    assert ours == library
    assert engine.parser is not None


def test_every_byte_in_every_place_of_a_head(recorder: Any) -> None:
    whole = head(b"X-Thing: v w", b"Content-Length: 2") + b"ok"
    for at in range(len(whole)):
        for byte in range(256):
            data = whole[:at] + bytes([byte]) + whole[at + 1 :]
            ours, library, _ = both(recorder, [data], at_once=True)
            assert ours == library, data


def test_no_app_gets_a_list_that_another_has(recorder: Any) -> None:
    class Keeper(recorder):
        kept: list[Any] = []

        def on_request(self, head: Any) -> None:
            self.kept.append(head.headers)
            super().on_request(head)

    Keeper(Rules(), at_once=True).feed([head(b"Accept: */*") * 4])
    assert Keeper.kept == [[(b"host", b"a"), (b"accept", b"*/*")]] * 4
    assert len({id(headers) for headers in Keeper.kept}) == 4


def test_the_same_fields_again_are_the_same_request_again(recorder: Any) -> None:
    fields = (b"Content-Length: 4", b"X-Forwarded-For: 1.2.3.4", b"Cookie: a=b")
    other = (b"Content-Length: 3", b"X-Forwarded-For: 1.2.3.4", b"Cookie: a=b")
    last = (b"Connection: close", b"Cookie: " + b"x" * 100)
    whole = (head(*fields) + b"body") * 4 + (head(*other) + b"bod") * 3 + head(*fields) + b"body" + head() * 3 + head(*last) * 2
    ours, library, engine = both(recorder, [whole], at_once=True)
    assert ours == library
    assert len(ours.requests) == 12
    assert engine.parser is None
    assert len(engine.block) < limits.BLOCK_KEPT_BYTES


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_head_without_any_field_is_no_plain_one(recorder: Any, times: int) -> None:
    for before in (b"", head() * 3):
        ours, library, _ = both(recorder, [before + b"GET / HTTP/1.1\r\n\r\n" * times], at_once=True)
        assert ours == library
        assert ours.status == 400


def test_a_client_that_asks_once_costs_no_memory_and_one_with_much_in_its_head_neither(recorder: Any) -> None:
    _, _, engine = both(recorder, [head(b"Cookie: a=b")], at_once=True)
    assert engine.block == h1_plain.NO_BLOCK
    _, _, engine = both(recorder, [head(b"Cookie: " + b"x" * limits.BLOCK_KEPT_BYTES) * 3], at_once=True)
    assert engine.block == h1_plain.NO_BLOCK


def test_the_tables_are_bounded_and_hold_no_secrets(recorder: Any) -> None:
    unkept = [
        b"Cookie: session=1",
        b"Authorization: Bearer 1",
        b"Proxy-Authorization: 1",
        b"X-Api-Key: 1",
        b"Accept: " + b"x" * 300,
        b"Via:" + b" " * 300,
    ]
    _, _, engine = both(recorder, [head(*unkept)], at_once=True)
    assert engine.parser is None
    for field in unkept:
        assert field not in h1_plain.FIELDS
    for number in range(limits.FIELDS_KEPT + 10):
        assert h1_plain.read_field(b"User-Agent: %d" % number)
        assert len(h1_plain.FIELDS) <= limits.FIELDS_KEPT
    for number in range(h1_plain.TABLE_MAX + 10):
        assert h1_plain.read_line(b"GET /%d HTTP/1.1" % number)
        assert len(h1_plain.LINES) <= h1_plain.TABLE_MAX
