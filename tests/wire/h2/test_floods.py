"""What a peer may do only so often, and what ends the connection at once: each way that HTTP/2 servers were brought down by, by its CVE."""

from __future__ import annotations

from typing import Any

import pytest

from cavalcade import limits
from cavalcade.testing.http2 import ACK, GET, POST, make
from cavalcade.wire.h2_budget import Budget

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, _, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = range(8)
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11


def ended(driven: Any, code: int, last: int | None = None) -> None:
    """The connection was ended with GOAWAY and this code, once, and nothing more is taken."""
    assert driven.fault is not None
    assert driven.fault.code == code
    ((last_stream, sent_code, _),) = driven.peer.goaways
    assert sent_code == code
    assert last is None or last_stream == last
    begun = len(driven.begun)
    driven.feed(driven.peer.request(9_999_999))
    assert len(driven.begun) == begun


def flood(driven: Any, piece: bytes, most: int) -> int:
    """Feed `piece` until the connection ends; how often that was."""
    for count in range(1, most + 1):
        driven.feed(piece)
        if driven.fault is not None:
            return count
    raise AssertionError(f"{most} times, and nothing happened")


def test_a_budget_fills_with_time_and_with_work() -> None:
    budget = Budget(10, 2.0)
    assert [budget.spend(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert [budget.spend(101.5) for _ in range(3)] == [True, True, False]
    budget.earn(3)
    assert [budget.spend(101.5) for _ in range(4)] == [True, True, False, False]
    assert [budget.spend(1000.0) for _ in range(11)] == [True] * 10 + [False]
    budget.earn(1000)
    assert [budget.spend(1000.0) for _ in range(11)] == [True] * 10 + [False]


# -- resets ----------------------------------------------------------------------------------------------------------------


def test_rapid_reset_cve_2023_44487(drive: Any) -> None:
    driven = drive()
    for number in range(1, 100_000, 2):
        driven.feed(driven.peer.request(number) + driven.peer.rst(number))
        if driven.fault is not None:
            break
    assert len(driven.begun) == limits.H2_RESETS + 1
    assert all(stream.was_reset == 8 for stream in driven.begun)
    ended(driven, ENHANCE_YOUR_CALM)


def test_whoever_also_lets_requests_be_answered_may_cancel_many(drive: Any) -> None:
    driven = drive()
    number = 1
    for _ in range(2000):
        driven.feed(driven.peer.request(number), driven.peer.request(number + 2))
        driven.answer_all()
        driven.feed(driven.peer.request(number + 4) + driven.peer.rst(number + 4))
        number += 6
    assert driven.fault is None


def test_a_response_that_is_through_costs_nothing_to_cancel(drive: Any) -> None:
    driven = drive()
    for number in range(1, 2001, 2):
        driven.feed(driven.peer.request(number, POST, end=False))
        driven.answer_all()
        driven.feed(driven.peer.rst(number, 0))
    assert driven.fault is None


PROVOKE = {
    "a window beyond the largest": lambda peer, n: peer.request(n) + peer.window(n, 2**31 - 1),
    "a window update of nothing": lambda peer, n: peer.request(n) + peer.window(n, 0),
    "DATA behind the end": lambda peer, n: peer.request(n) + peer.data(n, b"x"),
    "HEADERS behind the end": lambda peer, n: peer.request(n) + peer.request(n),
    "a body that is too long": lambda peer, n: peer.request(n, [*POST, (b"content-length", b"1")], end=False) + peer.data(n, b"xy"),
    "a malformed request": lambda peer, n: peer.request(n, [*GET, (b"connection", b"close")]),
    "malformed trailers": lambda peer, n: peer.request(n, POST, end=False) + peer.request(n, [(b"x", b"y")], end=False),
}


@pytest.mark.parametrize("name", PROVOKE)
def test_resets_that_the_peer_provokes_cve_2025_8671_and_cve_2019_9514(drive: Any, name: str) -> None:
    driven = drive()
    for number in range(1, 2 * limits.H2_RESETS + 3, 2):
        assert driven.fault is None
        driven.feed(PROVOKE[name](driven.peer, number))
        assert driven.peer.answers[number].reset is not None
    assert len(driven.malformed) == limits.H2_RESETS + 1
    assert driven.engine.streams == {}
    ended(driven, ENHANCE_YOUR_CALM)


def test_too_many_streams_at_once_are_refused_so_that_they_can_be_tried_again(drive: Any) -> None:
    driven = drive()
    numbers = range(1, 2 * limits.H2_STREAMS + 21, 2)
    driven.feed(*[driven.peer.request(number, POST, end=False) for number in numbers])
    assert len(driven.begun) == limits.H2_STREAMS
    refused = {number for number, answer in driven.peer.answers.items() if answer.reset == REFUSED_STREAM}
    assert refused == set(numbers[limits.H2_STREAMS :])
    driven.feed(*[driven.peer.data(number, b"late", end=True) for number in numbers])
    driven.answer_all()
    assert all(driven.peer.answers[number].ended for number in numbers[: limits.H2_STREAMS])
    driven.feed(driven.peer.request(numbers[-1] + 2, [*GET, (b"a", b"b")]))
    assert driven.begun[-1].request["headers"][1:] == [(b"a", b"b")]
    assert driven.fault is None


def test_a_peer_that_never_heeds_the_number_of_streams_is_a_flood(drive: Any) -> None:
    driven = drive()
    for number in range(1, 100_000, 2):
        driven.feed(driven.peer.request(number))
        if driven.fault is not None:
            break
    assert len(driven.begun) == limits.H2_STREAMS
    ended(driven, ENHANCE_YOUR_CALM)


def test_a_sink_that_takes_no_more_refuses(drive: Any) -> None:
    driven = drive()
    driven.full = True
    driven.feed(driven.peer.request(1))
    driven.full = False
    driven.feed(driven.peer.request(3))
    driven.answer_all()
    assert driven.peer.answers[1].reset == REFUSED_STREAM
    assert driven.peer.answers[3].ended


# -- frames without use ------------------------------------------------------------------------------------------------------

EMPTY_SETTINGS = make(SETTINGS, 0, 0)
USELESS = {
    "PING, CVE-2019-9512": (lambda peer: make(PING, 0, 0, b"12345678"), 1.0),
    "PING that is an answer to none": (lambda peer: make(PING, 1, 0, b"12345678"), 1.0),
    "PRIORITY, CVE-2019-9513": (lambda peer: make(PRIORITY, 0, 1, b"\0\0\0\3\1"), 1.0),
    "PRIORITY of streams that do not exist": (lambda peer: make(PRIORITY, 0, 777, b"\0\0\0\3\1"), 1.0),
    "SETTINGS, CVE-2019-9515": (lambda peer: EMPTY_SETTINGS, 1.0),
    "acknowledged SETTINGS": (lambda peer: ACK, 1.0),
    "large SETTINGS": (lambda peer: make(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff" * 1000), 94.75),
    "empty DATA, CVE-2019-9518": (lambda peer: peer.data(1, b""), 1.0),
    "DATA of padding": (lambda peer: make(DATA, 8, 1, b"\3\0\0\0"), 1.0),
    "window updates of a byte, CVE-2019-9511": (lambda peer: peer.window(1, 1), 1.0),
    "window updates of the connection": (lambda peer: peer.window(0, 1), 1.0),
    "GOAWAY": (lambda peer: make(GOAWAY, 0, 0, b"\0" * 8), 1.0),
    "unknown frames": (lambda peer: make(77, 255, 1, b"what?"), 1.0),
    "PRIORITY_UPDATE": (lambda peer: make(16, 0, 0, b"\0\0\0\1u=1"), 1.0),
    "ALTSVC": (lambda peer: make(10, 0, 1, b"\0\0h2"), 1.0),
}


@pytest.mark.parametrize("name", USELESS)
def test_frames_without_use_are_taken_and_a_flood_of_them_is_not(drive: Any, name: str) -> None:
    piece, cost = USELESS[name]
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False))
    times = flood(driven, piece(driven.peer), 3 * limits.H2_CONTROL_FRAMES)
    assert limits.H2_CONTROL_FRAMES / cost * 0.9 < times < limits.H2_CONTROL_FRAMES / cost * 1.2
    ended(driven, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("name", USELESS)
def test_a_few_a_second_are_no_flood(drive: Any, name: str) -> None:
    piece, cost = USELESS[name]
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False))
    for second in range(1, 100):
        driven.engine.now = float(second)
        driven.feed(*[piece(driven.peer)] * int(0.9 * limits.H2_CONTROL_FRAMES_PER_S / cost))
    assert driven.fault is None


def test_frames_on_streams_that_are_over_are_a_flood_in_the_end(drive: Any) -> None:
    for late in (lambda peer: peer.data(1, b"x"), lambda peer: peer.rst(1), lambda peer: peer.request(1)):
        driven = drive()
        driven.feed(driven.peer.request(1, [*GET, (b"te", b"x")]))
        assert driven.peer.answers[1].reset == PROTOCOL_ERROR
        flood(driven, late(driven.peer), 3 * limits.H2_CONTROL_FRAMES)
        ended(driven, ENHANCE_YOUR_CALM)


def test_a_client_that_updates_its_windows_for_every_piece_it_gets_may_do_so_for_ever(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1))
    (stream,) = driven.begun
    driven.engine.start_response(stream, 200, [])
    for _ in range(10 * limits.H2_CONTROL_FRAMES):
        driven.engine.send(stream, b"an event", True)
        driven.flush()
        driven.feed(driven.peer.window(1, 8) + driven.peer.window(0, 8))
    assert driven.fault is None


def test_a_client_that_lets_its_answer_out_byte_by_byte_may_not(drive: Any) -> None:
    """CVE-2019-9511: a window of one byte makes a frame for each."""
    driven = drive(settings={4: 0})
    driven.feed(driven.peer.request(1))
    driven.answer_all(b"x" * 100_000)
    flood(driven, driven.peer.window(1, 1), 3 * limits.H2_CONTROL_FRAMES)
    ended(driven, ENHANCE_YOUR_CALM)


# -- heads ---------------------------------------------------------------------------------------------------------------------


def test_continuation_flood_cve_2024_27316(drive: Any) -> None:
    driven = drive()
    driven.feed(make(HEADERS, 0, 1, driven.peer.block(GET)))
    times = flood(driven, make(CONTINUATION, 0, 1, b"\0\1a\1b" * 10), 1000)
    assert times == limits.H2_HEAD_FRAMES
    ended(driven, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("size", [0, 16384])
def test_continuations_empty_or_full_are_one_too(drive: Any, size: int) -> None:
    driven = drive()
    driven.feed(make(HEADERS, 0, 1, b""))
    assert flood(driven, make(CONTINUATION, 0, 1, b"\0" * size), 1000) <= (limits.H2_HEAD_FRAMES if not size else 5)
    assert driven.engine.head_bytes <= 2 * limits.HEAD_BYTES
    ended(driven, ENHANCE_YOUR_CALM)


def test_a_head_in_many_frames_is_a_head(drive: Any) -> None:
    driven = drive()
    block = driven.peer.block(GET)
    pieces = [block[at : at + 4] for at in range(0, len(block), 4)]
    driven.feed(make(HEADERS, 1 | 8 | 32, 1, b"\2" + b"\0\0\0\0\1" + pieces[0] + b"\0\0"))
    for piece in pieces[1:]:
        driven.feed(make(CONTINUATION, 4 if piece is pieces[-1] else 0, 1, piece))
    assert driven.begun[0].request["path"] == "/"


def test_an_hpack_bomb_cve_2016_6581(drive: Any) -> None:
    """One large field in the table, named by one byte a thousand times."""
    driven = drive()
    driven.feed(driven.peer.request(1, [*GET, (b"x", b"y" * 3900)]))
    index = bytes([0x80 | 62])
    before = make(HEADERS, 5, 3, driven.peer.block(GET) + index * 10)
    driven.feed(before)
    assert len(driven.begun) == 2
    driven.feed(make(HEADERS, 5, 5, driven.peer.block(GET) + index * 30))
    assert driven.refused[0].error.status == 431
    driven.feed(make(HEADERS, 5, 7, driven.peer.block(GET) + index * 10_000))
    ended(driven, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    "block", [b"\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\xbe", b"\x40\x05ab", b"\x3f\xff\xff\xff\x7f", b"\x40\x81\xff\x01b"]
)
def test_a_block_that_cannot_be_decoded_ends_the_connection(drive: Any, block: bytes) -> None:
    for refused in (False, True):
        driven = drive()
        driven.full = refused
        driven.feed(make(HEADERS, 5, 1, block))
        ended(driven, COMPRESSION_ERROR if refused else driven.fault.code)
        assert driven.fault.code in (COMPRESSION_ERROR, PROTOCOL_ERROR)
        assert driven.begun == []


def test_empty_names_cve_2019_9516_are_malformed(drive: Any) -> None:
    driven = drive()
    driven.feed(make(HEADERS, 5, 1, driven.peer.block(GET) + b"\0\0\0" * 1000))
    assert driven.peer.answers[1].reset == PROTOCOL_ERROR


# -- what is against the rules of the connection -------------------------------------------------------------------------------


BROKEN = {
    "a frame over 16 KiB": (lambda peer: b"\xff\xff\xff\0\0\0\0\0\1", FRAME_SIZE_ERROR),
    "HEADERS on stream 0": (lambda peer: make(HEADERS, 5, 0, peer.block(GET)), PROTOCOL_ERROR),
    "a stream of an even number": (lambda peer: peer.request(2), PROTOCOL_ERROR),
    "DATA on stream 0": (lambda peer: make(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "DATA on a stream that was never opened": (lambda peer: peer.data(3, b"x"), PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (lambda peer: peer.rst(0), PROTOCOL_ERROR),
    "RST_STREAM on a stream that was never opened": (lambda peer: peer.rst(3), PROTOCOL_ERROR),
    "RST_STREAM of another size": (lambda peer: make(RST_STREAM, 0, 1, b"\0\0"), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on a stream that was never opened": (lambda peer: peer.window(3, 1), PROTOCOL_ERROR),
    "WINDOW_UPDATE of nothing": (lambda peer: peer.window(0, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond the largest": (lambda peer: peer.window(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE of another size": (lambda peer: make(WINDOW_UPDATE, 0, 1, b"\0"), FRAME_SIZE_ERROR),
    "PRIORITY on stream 0": (lambda peer: make(PRIORITY, 0, 0, b"\0\0\0\3\1"), PROTOCOL_ERROR),
    "PRIORITY of another size": (lambda peer: make(PRIORITY, 0, 1, b"\0"), FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (lambda peer: make(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS of another size": (lambda peer: make(SETTINGS, 0, 0, b"\0\0\0"), FRAME_SIZE_ERROR),
    "SETTINGS with a window beyond the largest": (lambda peer: make(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "SETTINGS with a frame size that may not be": (lambda peer: make(SETTINGS, 0, 0, b"\0\5\0\0\0\1"), PROTOCOL_ERROR),
    "SETTINGS with a push that may not be": (lambda peer: make(SETTINGS, 0, 0, b"\0\2\0\0\0\2"), PROTOCOL_ERROR),
    "PING on a stream": (lambda peer: make(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
    "PING of another size": (lambda peer: make(PING, 0, 0, b"1"), FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (lambda peer: make(GOAWAY, 0, 1, b"\0" * 8), PROTOCOL_ERROR),
    "GOAWAY of another size": (lambda peer: make(GOAWAY, 0, 0, b"\0"), FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (lambda peer: make(PUSH_PROMISE, 4, 1, b"\0\0\0\2"), PROTOCOL_ERROR),
    "CONTINUATION of nothing": (lambda peer: make(CONTINUATION, 4, 1), PROTOCOL_ERROR),
    "another frame inside of a head": (lambda peer: make(HEADERS, 0, 3) + make(PING, 0, 0, b"12345678"), PROTOCOL_ERROR),
    "an unknown frame inside of a head": (lambda peer: make(HEADERS, 0, 3) + make(77, 0, 3), PROTOCOL_ERROR),
    "the head of another stream inside of a head": (lambda peer: make(HEADERS, 0, 3) + make(CONTINUATION, 4, 5), PROTOCOL_ERROR),
    "padding beyond the frame": (lambda peer: make(DATA, 8, 1, b"\xffx"), PROTOCOL_ERROR),
    "padding of a head beyond the frame": (lambda peer: make(HEADERS, 5 | 8, 3, b"\xffx"), PROTOCOL_ERROR),
    "more DATA than the window allows": (lambda peer: b"".join(peer.data(1, b"x" * 16384) for _ in range(9)), FLOW_CONTROL_ERROR),
    "the same stream again": (lambda peer: peer.request(3) + peer.request(1), STREAM_CLOSED),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_of_the_connection_ends_it_with_its_code(drive: Any, name: str) -> None:
    make_frames, code = BROKEN[name]
    for step in (0, 1):
        driven = drive()
        driven.reads = False
        driven.feed(driven.peer.request(1, POST, end=name == "the same stream again"))
        if name == "the same stream again":
            driven.answer_all()
        data = make_frames(driven.peer)
        driven.feed(*([data[at : at + step] for at in range(0, len(data), step)] if step and len(data) < 1000 else [data]))
        ended(driven, code)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"P" + b"R" * 30])
def test_no_preface(drive: Any, start: bytes) -> None:
    driven = drive(start=False)
    driven.feed(start)
    ended(driven, PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [ACK, make(PING, 0, 0, b"12345678"), make(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")])
def test_settings_come_first(drive: Any, first: bytes) -> None:
    driven = drive(start=False)
    driven.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", first)
    ended(driven, PROTOCOL_ERROR)


def test_what_a_peer_may_not_know_yet_is_passed_over(drive: Any) -> None:
    """RFC 9113 section 5.1: frames that were on their way when their stream was reset."""
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False))
    driven.engine.reset(driven.begun[0], INTERNAL_ERROR)
    driven.flush()
    seen = len(driven.peer.frames)
    late = [driven.peer.data(1, b"late"), driven.peer.window(1, 5), driven.peer.request(1, [(b"x", b"y")]), driven.peer.rst(1)]
    driven.feed(*late)
    assert driven.fault is None
    assert len(driven.peer.frames) == seen
    driven.feed(driven.peer.request(3, [*GET, (b"x", b"y")]))
    assert driven.begun[1].request["headers"][1:] == [(b"x", b"y")]


# -- leaving -------------------------------------------------------------------------------------------------------------------


def test_two_goaways_and_what_comes_between_is_taken(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1))
    driven.engine.announce_leaving()
    driven.flush()
    assert driven.peer.goaways == [(2**31 - 1, NO_ERROR, b"")]
    driven.feed(driven.peer.request(3))
    driven.feed(driven.peer.take_reply())
    assert driven.settled == 1
    driven.engine.stop_taking()
    driven.flush()
    assert driven.peer.goaways[1:] == [(3, NO_ERROR, b"")]
    driven.feed(driven.peer.request(5, [*POST, (b"a", b"b")], end=False), driven.peer.data(5, b"x"))
    assert len(driven.begun) == 2
    driven.answer_all()
    assert [number for number, answer in driven.peer.answers.items() if answer.ended] == [1, 3]
    assert driven.engine.streams == {}
    assert driven.fault is None
    driven.engine.stop_taking()
    driven.flush()
    assert len(driven.peer.goaways) == 2


def test_the_peers_goaway_ends_nothing_that_was_begun(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1), make(GOAWAY, 0, 0, b"\0" * 8), make(GOAWAY, 0, 0, b"\0" * 7 + b"\1why"))
    assert driven.complaints == [(1, b"why")]
    driven.answer_all()
    assert driven.peer.answers[1].body == b"hello"
