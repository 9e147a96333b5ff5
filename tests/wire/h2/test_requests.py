"""What is a request over HTTP/2 and what is not, case by case: each is fed whole and byte by byte, first and behind another."""

from __future__ import annotations

from typing import Any

import pytest
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cavalcade import limits
from cavalcade.errors import PeerError, StreamFault
from cavalcade.testing.http2 import GET, POST, make
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2_request import read_request

Fields = list[tuple[bytes, bytes]]


def pseudo(**changes: bytes | None) -> Fields:
    """A GET with some of its pseudo-header fields changed, or without them."""
    fields = {"method": b"GET", "scheme": b"http", "path": b"/", "authority": b"test"} | changes
    return [(b":" + name.encode(), value) for name, value in fields.items() if value is not None]


TAKEN: dict[str, tuple[Fields, dict[str, Any]]] = {
    "plain": (GET, {"method": "GET", "path": "/", "raw_path": b"/", "query": b"", "version": "2", "length": 0, "target": b"/"}),
    "host comes first, from :authority": ([*GET, (b"a", b"b")], {"headers": [(b"host", b"test"), (b"a", b"b")]}),
    "Host in place of :authority": (
        [*pseudo(authority=None), (b"a", b"b"), (b"host", b"h:1")],
        {"headers": [(b"host", b"h:1"), (b"a", b"b")]},
    ),
    "Host beside :authority": ([*GET, (b"host", b"TEST")], {"headers": [(b"host", b"test")]}),
    "cookie crumbs": (
        [*GET, (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d; e=f")],
        {"headers": [(b"host", b"test"), (b"x", b"y"), (b"cookie", b"a=b; c=d; e=f")]},
    ),
    "query": (pseudo(path=b"/a?b=c?d"), {"path": "/a", "raw_path": b"/a", "query": b"b=c?d", "target": b"/a?b=c?d"}),
    "percent": (pseudo(path=b"/%C3%A9%2F?%20"), {"path": "/é/", "raw_path": b"/%C3%A9%2F", "query": b"%20"}),
    "double slash": (pseudo(path=b"//a/../b"), {"path": "//a/../b"}),
    "asterisk": (pseudo(method=b"OPTIONS", path=b"*"), {"path": "*", "raw_path": b"*"}),
    "a method that HTTP/1.1 does not know": (pseudo(method=b"BREW"), {"method": "BREW"}),
    "https behind a proxy that ends TLS": (pseudo(scheme=b"https"), {}),
    "TE: trailers": ([*GET, (b"te", b"trailers")], {"headers": [(b"host", b"test"), (b"te", b"trailers")]}),
    "bytes over 127 in a value": ([*GET, (b"x", b"\xc3\xa9\xff")], {"headers": [(b"host", b"test"), (b"x", b"\xc3\xa9\xff")]}),
    "a tab in a value": ([*GET, (b"x", b"a\tb")], {"headers": [(b"host", b"test"), (b"x", b"a\tb")]}),
    "an empty value": ([*GET, (b"x", b"")], {"headers": [(b"host", b"test"), (b"x", b"")]}),
    "length 0": ([*GET, (b"content-length", b"0")], {"length": 0}),
    "a priority": ([*GET, (b"priority", b"u=1, i")], {}),
    "an expectation of nothing to come": ([*GET, (b"expect", b"100-continue")], {"expects_continue": False}),
    "h2c is no upgrade": ([*GET, (b"http2-settings", b"AAMAAABk")], {"upgrade": False}),
}

# What the message itself must not be (RFC 9113 sections 8.2 and 8.3): its stream is reset with PROTOCOL_ERROR.
MALFORMED: dict[str, Fields] = {
    "NUL in a value": [*GET, (b"x", b"a\0b")],
    "LF in a value": [*GET, (b"x", b"a\nb: c")],
    "CR in a value": [*GET, (b"x", b"a\rb")],
    "\\x01 in a value": [*GET, (b"x", b"a\x01b")],
    "DEL in a value": [*GET, (b"x", b"\x7f")],
    "white space before a value": [*GET, (b"x", b" a")],
    "white space behind a value": [*GET, (b"x", b"a\t")],
    "LF in a path": pseudo(path=b"/a\r\nx: y"),
    "LF in a method": pseudo(method=b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
    "LF in :authority": pseudo(authority=b"a\nb"),
    "upper case in a name": [*GET, (b"X-Thing", b"y")],
    "white space in a name": [*GET, (b"x y", b"z")],
    "colon in a name": [*GET, (b"x:", b"z")],
    "byte over 127 in a name": [*GET, (b"x\xe9", b"z")],
    "LF in a name": [*GET, (b"x\nhost", b"z")],
    "no name": [*GET, (b"", b"z")],
    "two content-lengths": [*POST, (b"content-length", b"1"), (b"content-length", b"1")],
    "two content-lengths that differ": [*POST, (b"content-length", b"1"), (b"content-length", b"2")],
    "content-length +1": [*POST, (b"content-length", b"+1")],
    "content-length 1, 1": [*POST, (b"content-length", b"1, 1")],
    "content-length of nothing": [*POST, (b"content-length", b"")],
    "two Hosts": [*pseudo(authority=None), (b"host", b"a"), (b"host", b"a")],
    "a Host that is not :authority": [*GET, (b"host", b"other")],
    "neither Host nor :authority": pseudo(authority=None),
    "an empty :authority": pseudo(authority=b""),
    "user information in :authority": pseudo(authority=b"u@test"),
    "TE": [*GET, (b"te", b"gzip")],
    "TE with more": [*GET, (b"te", b"trailers, deflate")],
    "Connection": [*GET, (b"connection", b"close")],
    "Proxy-Connection": [*GET, (b"proxy-connection", b"close")],
    "Keep-Alive": [*GET, (b"keep-alive", b"1")],
    "Transfer-Encoding": [*POST, (b"transfer-encoding", b"chunked")],
    "Upgrade": [*GET, (b"upgrade", b"h2c")],
    "no :method": pseudo(method=None),
    "no :scheme": pseudo(scheme=None),
    "no :path": pseudo(path=None),
    "an empty :method": pseudo(method=b""),
    "an empty :path": pseudo(path=b""),
    "two :path": [*GET, (b":path", b"/b")],
    "two :method": [*GET, (b":method", b"GET")],
    "two :authority": [*GET, (b":authority", b"test")],
    "unknown pseudo-header field": [*GET, (b":x", b"y")],
    "a pseudo-header field of responses": [*GET, (b":status", b"200")],
    "a pseudo-header field behind others": [*GET[:-1], (b"x", b"y"), GET[-1]],
    "a :path that is a URL": pseudo(path=b"http://other/"),
    "a :path without a slash": pseudo(path=b"a"),
    "a :path that is *, not with OPTIONS": pseudo(path=b"*"),
    "white space in :path": pseudo(path=b"/a b"),
    "raw UTF-8 in :path": pseudo(path="/é".encode()),
    "a :protocol without CONNECT": [*GET, (b":protocol", b"websocket")],
    "CONNECT with a :path": pseudo(method=b"CONNECT"),
}

# What is a message and not wanted: answered.
REFUSED: dict[str, tuple[Fields, int]] = {
    "a fragment": (pseudo(path=b"/a#b"), 400),
    "an :authority that is no host": (pseudo(authority=b"a/b"), 400),
    "a scheme of something else": (pseudo(scheme=b"ftp"), 400),
    "a content-length beyond any sense": ([*POST, (b"content-length", b"9" * 30)], 413),
    "a path over its limit": (pseudo(path=b"/" + b"a" * 8179), 414),
    "an expectation that nobody knows": ([*GET, (b"expect", b"200-ok")], 417),
    "a 70 KB field": ([*GET, (b"x", b"y" * 70_000)], 431),
    "too many fields": ([*GET, *[(b"x", b"y")] * 100], 431),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a:80")], 501),
    "an extended CONNECT that nobody offered": ([*pseudo(method=b"CONNECT"), (b":protocol", b"websocket")], 501),
}


def split(peer: Any, stream_id: int, fields: Fields) -> bytes:
    """A request in as many frames as it takes."""
    block = peer.block(fields)
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    frames = [
        make(1 if at == 0 else 9, (1 if at == 0 else 0) | (4 if at == len(pieces) - 1 else 0), stream_id, p) for at, p in enumerate(pieces)
    ]
    return b"".join(frames)


def each_way(drive: Any, fields: Fields, **rules: int) -> Any:
    """The same request whole, byte by byte, and a second time; the engines that had it."""
    for step in (0, 1):
        driven = drive(**rules)
        driven.feed(driven.peer.request(1))
        for stream_id in (3, 5):
            data = split(driven.peer, stream_id, fields)
            step = step and (1 if len(data) < 5000 else 997)
            driven.feed(*([data[at : at + step] for at in range(0, len(data), step)] if step else [data]))
        driven.feed(driven.peer.request(7))
        assert driven.fault is None, driven.fault
        assert driven.begun[0].request["path"] == driven.begun[-1].request["path"] == "/"
        assert driven.begun[-1].stream_id == 7
        yield driven


@pytest.mark.parametrize("name", TAKEN)
def test_taken(drive: Any, name: str) -> None:
    fields, facts = TAKEN[name]
    for driven in each_way(drive, fields):
        assert [stream.stream_id for stream in driven.begun] == [1, 3, 5, 7]
        for stream in driven.begun[1:3]:
            assert {key: stream.request[key] for key in facts} == facts
            assert stream.whole
        driven.answer_all()
        assert [driven.peer.answers[n].body for n in (1, 3, 5, 7)] == [b"hello"] * 4
        assert not driven.engine.streams


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_is_a_reset_of_its_stream_and_no_other(drive: Any, name: str) -> None:
    for driven in each_way(drive, MALFORMED[name]):
        assert [stream.stream_id for stream in driven.begun] == [1, 7]
        assert driven.refused == []
        assert [error.code for error in driven.malformed] == [1, 1]
        assert {number: answer.reset for number, answer in driven.peer.answers.items()} == {3: 1, 5: 1}
        driven.answer_all()
        assert driven.peer.answers[1].body == driven.peer.answers[7].body == b"hello"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_status(drive: Any, name: str) -> None:
    fields, status = REFUSED[name]
    for driven in each_way(drive, fields):
        assert [stream.stream_id for stream in driven.begun] == [1, 7]
        assert [stream.error.status for stream in driven.refused] == [status, status]
        assert driven.malformed == []


@pytest.mark.parametrize(
    ("rules", "fields", "status"),
    [
        ({"header_fields": 2}, [*GET, (b"x", b"y")], 0),
        ({"header_fields": 2}, [*GET, (b"x", b"y"), (b"x", b"y")], 431),
        ({"head_bytes": 256}, [*GET, (b"x", b"y" * (256 - 42 - 43 - 38 - 46 - 33))], 0),
        ({"head_bytes": 256}, [*GET, (b"x", b"y" * (256 - 42 - 43 - 38 - 46 - 32))], 431),
        ({"request_line": 64}, pseudo(path=b"/" + b"a" * 50), 0),
        ({"request_line": 64}, pseudo(path=b"/" + b"a" * 51), 414),
        ({"body_bytes": 3}, [*POST, (b"content-length", b"4")], 413),
    ],
)
def test_each_limit_holds_to_the_byte(drive: Any, rules: dict[str, int], fields: Fields, status: int) -> None:
    driven = drive(**rules)
    driven.feed(driven.peer.request(1, fields, end=rules.get("body_bytes") is None))
    assert [stream.error.status for stream in driven.refused] == ([status] if status else [])
    assert len(driven.begun) == (0 if status else 1)


SOME = st.sampled_from(
    [field for fields in MALFORMED.values() for field in fields] + [field for fields, _ in TAKEN.values() for field in fields]
)
HANDY = st.binary(max_size=6) | st.sampled_from([b"host", b"te", b"content-length", b"cookie", b":path", b":method", b"x"])


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SOME | st.tuples(HANDY, HANDY), max_size=8), st.booleans())
def test_nothing_that_the_library_calls_malformed_gets_through(fields: Fields, whole: bool) -> None:
    """Its validation is switched off, because it ends the connection; ours must know all that it knows."""
    if whole:
        fields = [*GET, *fields]
    flags = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
    try:
        list(validate_headers(fields, flags))
    except (ProtocolError, IndexError):  # an empty name makes it stumble
        with pytest.raises(PeerError):
            read_request(fields, 0, Rules())


def test_a_field_seen_before_is_not_looked_at_again_and_still_not_shared(drive: Any) -> None:
    driven = drive()
    driven.feed(*[driven.peer.request(number, [*GET, (b"x", b"y")]) for number in (1, 3)])
    first, second = (stream.request["headers"] for stream in driven.begun)
    assert first == second
    assert first is not second
    first.append((b"z", b"z"))
    driven.feed(driven.peer.request(5, [*GET, (b"x", b"y")]))
    assert driven.begun[2].request["headers"] == second


# -- bodies ----------------------------------------------------------------------------------------------------------------


def test_a_body_in_pieces_with_padding(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False), make(0, 8, 1, b"\x03abc\0\0\0"), driven.peer.data(1, b"def", end=True))
    (stream,) = driven.begun
    assert (stream.request["length"], stream.body, stream.whole) == (-1, b"abcdef", True)


@pytest.mark.parametrize("length", [b"2", b"4"])
@pytest.mark.parametrize("pieces", [[b"abc"], [b"a", b"bc"], [b"abc", b""]])
def test_a_body_that_is_not_its_content_length_is_malformed(drive: Any, length: bytes, pieces: list[bytes]) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, [*POST, (b"content-length", length)], end=False))
    for at, piece in enumerate(pieces):
        driven.feed(driven.peer.data(1, piece, end=at == len(pieces) - 1))
    assert driven.begun[0].was_reset == 1
    assert driven.peer.answers[1].reset == 1
    assert driven.fault is None


def test_no_body_where_content_length_says_one_is_malformed(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, [*POST, (b"content-length", b"3")]))
    assert (driven.begun, driven.peer.answers[1].reset) == ([], 1)


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is(drive: Any) -> None:
    driven = drive(body_bytes=3)
    driven.feed(driven.peer.request(1, POST, end=False), driven.peer.data(1, b"abc"), driven.peer.data(1, b"d"))
    (stream,) = driven.begun
    assert (stream.body, stream.error.status) == (b"abc", 413)


def test_trailers_end_a_body_and_say_nothing(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False), driven.peer.data(1, b"abc"), driven.peer.request(1, [(b"x", b"y")]))
    (stream,) = driven.begun
    assert (stream.body, stream.whole, dict(stream.request["headers"])) == (b"abc", True, {b"host": b"test"})


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ([(b"x", b"y")], False),
        ([(b":path", b"/")], True),
        ([(b"X", b"y")], True),
        ([(b"x", b"a\nb")], True),
        ([(b"connection", b"close")], True),
    ],
)
def test_trailers_that_may_not_be_are_malformed(drive: Any, fields: Fields, end: bool) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False), driven.peer.request(1, fields, end=end), driven.peer.request(3))
    assert driven.begun[0].was_reset == 1
    assert driven.begun[1].whole
    assert driven.fault is None


def test_trailers_behind_a_body_that_is_too_short_are_malformed(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, [*POST, (b"content-length", b"3")], end=False), driven.peer.request(1, [(b"x", b"y")]))
    assert driven.begun[0].was_reset == 1


def test_an_app_that_reads_gets_a_larger_window_and_one_that_does_not_gets_none(drive: Any) -> None:
    reading, idle = drive(), drive()
    idle.reads = False
    for driven in (reading, idle):
        driven.feed(driven.peer.request(1, POST, end=False))
        left = limits.H2_STREAM_WINDOW_BYTES
        for _ in range(200):
            if left + driven.peer.windows.get(1, 0) < 16384:
                break
            left -= 16384
            driven.feed(driven.peer.data(1, b"x" * 16384))
    assert (len(idle.begun[0].body), idle.peer.windows.get(1)) == (limits.H2_STREAM_WINDOW_BYTES, None)
    assert len(reading.begun[0].body) == 200 * 16384
    assert reading.begun[0].window == limits.H2_STREAM_WINDOW_MAX_BYTES
    assert reading.engine.window_extra == limits.H2_STREAM_WINDOW_MAX_BYTES - limits.H2_STREAM_WINDOW_BYTES


def test_a_stream_that_nobody_reads_holds_up_no_other(drive: Any) -> None:
    driven = drive()
    driven.reads = False
    size = limits.H2_STREAM_WINDOW_BYTES
    for number in range(1, 2 * limits.H2_STREAMS, 2):
        driven.feed(driven.peer.request(number, POST, end=False))
        driven.feed(*[driven.peer.data(number, b"x" * 16384) for _ in range(size // 16384)])
    assert driven.fault is None
    assert {len(stream.body) for stream in driven.begun} == {size}


def test_a_malformed_stream_fault_has_the_words_for_the_log() -> None:
    with pytest.raises(StreamFault, match="upper case"):
        read_request([*GET, (b"A", b"b")], 0, Rules())
