"""Response heads, bodies within windows, trailers, interim responses: as a client reads them."""

from __future__ import annotations

from typing import Any

import pytest

from cavalcade import limits
from cavalcade.errors import AppProtocolError
from cavalcade.testing.http2 import GET, POST
from cavalcade.wire import h2_response

HEAD = [(b":method", b"HEAD"), *GET[1:]]
INITIAL_WINDOW, MAX_FRAME, TABLE_SIZE = 4, 5, 1


def ask(drive: Any, fields: Any = GET, **more: Any) -> Any:
    driven = drive(**more)
    driven.feed(driven.peer.request(1, fields))
    return driven, driven.begun[0]


def start(driven: Any, status: Any = 200, headers: Any = ()) -> None:
    driven.engine.start_response(driven.begun[-1], status, headers)


@pytest.mark.parametrize(
    ("status", "given", "body", "fields"),
    [
        (200, [(b"Content-Type", b"a/b"), (b"X-Y", b" z ")], b"hi", [(b"content-type", b"a/b"), (b"x-y", b"z"), (b"content-length", b"2")]),
        (200, [[b"x", b"y"]], b"", [(b"x", b"y"), (b"content-length", b"0")]),
        (418, [(b"content-length", b"2"), (b"Content-Length", b"2")], b"hi", [(b"content-length", b"2")]),
        (204, [(b"content-length", b"0")], b"", []),
        (304, [(b"content-length", b"9"), (b"etag", b'"a"')], b"", [(b"content-length", b"9"), (b"etag", b'"a"')]),
        (
            200,
            [(b"connection", b"close"), (b"Keep-Alive", b"1"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"x"), (b"te", b"y")],
            b"a",
            [(b"content-length", b"1")],
        ),
        (
            200,
            [(b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")],
            b"a",
            [(b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"), (b"content-length", b"1")],
        ),
        (200, [(b"x", b"y" * 20_000)], b"a", [(b"x", b"y" * 20_000), (b"content-length", b"1")]),
        (200, [(b"x", b"\xc3\xa9")], b"a", [(b"x", b"\xc3\xa9"), (b"content-length", b"1")]),
    ],
)
def test_heads(drive: Any, status: int, given: Any, body: bytes, fields: Any) -> None:
    driven, _ = ask(drive)
    for again in (1, 3):
        if again > 1:
            driven.feed(driven.peer.request(again))
        start(driven, status, given)
        driven.engine.send(driven.begun[-1], body, False)
        driven.flush()
        answer = driven.peer.answers[again]
        assert answer.status == status
        length = [pair for pair in fields if pair[0] == b"content-length" and pair not in h2_pairs(given)]
        own = [(b"server", b"cavalcade"), *length]
        assert answer.fields[1:] == [pair for pair in fields if pair not in length] + own
        assert (answer.body, answer.ended) == (body, True)


def h2_pairs(given: Any) -> list[tuple[bytes, bytes]]:
    return [(bytes(name).lower(), bytes(value).strip()) for name, value in given]


def test_date_and_server_are_ours_unless_the_app_has_its_own(drive: Any) -> None:
    driven, _ = ask(drive)
    driven.rules.set_date(b"then")
    driven.answer_all()
    driven.rules.set_date(b"now")
    driven.feed(driven.peer.request(3), driven.peer.request(5))
    start(driven, 200, [(b"Date", b"never"), (b"SERVER", b"me")])
    driven.engine.send(driven.begun[-1], b"", False)
    driven.answer_all()
    assert [driven.peer.answers[n].field(b"date") for n in (1, 3, 5)] == [b"then", b"now", b"never"]
    assert [driven.peer.answers[n].field(b"server") for n in (1, 3, 5)] == [b"cavalcade", b"cavalcade", b"me"]


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        ("200", [], "not int"),
        (True, [], "not int"),
        (99, [], "not a final"),
        (101, [], "not a final"),
        (1000, [], "not a final"),
        (200, [("a", b"b")], "not bytes"),
        (200, [(b"a", "b")], "not bytes"),
        (200, [(b"a b", b"c")], "not allowed"),
        (200, [(b":status", b"200")], "not allowed"),
        (200, [(b"", b"c")], "not allowed"),
        (200, [(b"a", b"b\r\nc: d")], "carriage return"),
        (200, [(b"a", b"b\nc")], "line feed"),
        (200, [(b"a", b"b\0")], "NUL"),
        (200, [(b"content-length", b"-1")], "number of bytes"),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")], "differ"),
        (200, [b"a"], "pairs"),
        (200, [(b"a", b"b", b"c")], "pairs"),
        (200, 5, "pairs"),
    ],
)
def test_a_head_that_may_not_go_out_is_the_apps_error_and_nothing_is_sent(drive: Any, status: Any, headers: Any, words: str) -> None:
    driven, stream = ask(drive)
    for _ in range(2):
        with pytest.raises(AppProtocolError, match=words):
            start(driven, status, headers)
    assert not stream.head_due
    driven.answer_all(b"oops", 500)
    assert driven.peer.answers[1].status == 500


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"]])
def test_a_body_longer_than_its_length_is_the_apps_error(drive: Any, pieces: list[bytes]) -> None:
    driven, stream = ask(drive)
    start(driven, 200, [(b"content-length", b"3")])
    for piece in pieces[:-1]:
        driven.engine.send(stream, piece, True)
    with pytest.raises(AppProtocolError, match="4 bytes instead of 3"):
        driven.engine.send(stream, pieces[-1], True)


def test_a_body_shorter_than_its_length_does_not_end(drive: Any) -> None:
    driven, stream = ask(drive)
    start(driven, 200, [(b"content-length", b"3")])
    driven.engine.send(stream, b"ab", False)
    driven.flush()
    assert stream.is_short()
    assert not driven.peer.answers[1].ended


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("pieces", [1, 2])
def test_no_body_where_none_may_be(drive: Any, status: int, pieces: int) -> None:
    driven, stream = ask(drive, HEAD if status == 200 else GET)
    start(driven, status, [(b"content-length", b"5")])
    for left in reversed(range(pieces)):
        driven.engine.send(stream, b"hello"[: 5 if pieces == 1 else 2], bool(left))
    driven.flush()
    answer = driven.peer.answers[1]
    assert (answer.status, answer.body, answer.ended) == (status, b"", True)
    assert answer.field(b"content-length") == (None if status == 204 else b"5")


def test_a_stream_of_pieces(drive: Any) -> None:
    driven, stream = ask(drive)
    start(driven)
    driven.engine.send_head(stream, 0, True)
    driven.flush()
    answer = driven.peer.answers[1]
    assert (answer.status, answer.body, answer.ended) == (200, b"", False)
    for piece in (b"a", b"", b"b"):
        driven.engine.send(stream, piece, True)
        driven.flush()
    assert (answer.body, answer.ended) == (b"ab", False)
    driven.engine.send(stream, b"", False)
    driven.flush()
    assert (answer.body, answer.ended, answer.field(b"content-length")) == (b"ab", True, None)


def test_trailers_and_early_hints(drive: Any) -> None:
    driven, stream = ask(drive)
    driven.engine.send_interim(stream, 103, [(b"link", b"</a>"), (b"Link", b"</b>")])
    driven.flush()
    start(driven)
    driven.engine.send(stream, b"hello", True)
    driven.engine.send_trailers(stream, [(b"X-Sum", b"1"), (b"connection", b"close")])
    driven.flush()
    answer = driven.peer.answers[1]
    assert answer.interim[0][b":status"] == b"103"
    assert (answer.body, answer.trailers, answer.ended) == (b"hello", [(b"x-sum", b"1")], True)
    assert stream.closed


def test_trailers_wait_for_the_body_in_front_of_them(drive: Any) -> None:
    driven, stream = ask(drive, settings={INITIAL_WINDOW: 3})
    start(driven)
    driven.engine.send(stream, b"hello", True)
    driven.engine.send_trailers(stream, [(b"x", b"y")])
    driven.flush()
    answer = driven.peer.answers[1]
    assert (answer.body, answer.trailers) == (b"hel", None)
    driven.feed(driven.peer.window(1, 100))
    assert (answer.body, answer.trailers, answer.ended) == (b"hello", [(b"x", b"y")], True)


# -- windows ---------------------------------------------------------------------------------------------------------------


def test_a_body_keeps_within_the_window_of_its_stream_and_of_the_connection(drive: Any) -> None:
    driven, _ = ask(drive)
    driven.feed(driven.peer.request(3))
    driven.answer_all(b"x" * 100_000)
    got = {number: len(answer.body) for number, answer in driven.peer.answers.items()}
    assert sum(got.values()) == 65535
    driven.feed(driven.peer.window(0, 1_000_000))
    assert [len(answer.body) for answer in driven.peer.answers.values()] == [65535, 65535]
    driven.feed(driven.peer.window(3, 100_000))
    assert [(len(answer.body), answer.ended) for answer in driven.peer.answers.values()] == [(65535, False), (100_000, True)]
    driven.feed(driven.peer.window(1, 34_464))
    assert not driven.peer.answers[1].ended
    driven.feed(driven.peer.window(1, 1))
    assert driven.peer.answers[1].ended
    assert not driven.engine.streams


def test_a_stream_without_a_window_holds_up_no_other(drive: Any) -> None:
    driven, _ = ask(drive, settings={INITIAL_WINDOW: 0})
    driven.feed(driven.peer.request(3))
    driven.answer_all(b"hello")
    assert [answer.body for answer in driven.peer.answers.values()] == [b"", b""]
    driven.feed(driven.peer.window(3, 5))
    assert driven.peer.answers[3].ended
    assert not driven.peer.answers[1].ended


def test_streams_take_turns_when_the_connection_has_room_again(drive: Any) -> None:
    driven, _ = ask(drive, settings={INITIAL_WINDOW: 10_000_000})
    for number in (3, 5):
        driven.feed(driven.peer.request(number))
    driven.answer_all(b"x" * 200_000)
    before = {number: len(answer.body) for number, answer in driven.peer.answers.items()}
    driven.feed(driven.peer.window(0, 6 * 16384))
    after = {number: len(answer.body) for number, answer in driven.peer.answers.items()}
    assert [after[number] - before[number] for number in (1, 3, 5)] == [2 * 16384] * 3


def test_settings_may_take_a_window_back_and_give_it_again(drive: Any) -> None:
    driven, _ = ask(drive, settings={INITIAL_WINDOW: 10})
    driven.answer_all(b"x" * 30)
    assert len(driven.peer.answers[1].body) == 10
    for size, got in ((0, 10), (15, 15), (1000, 30)):
        driven.feed(settings_frame({INITIAL_WINDOW: size}))
        assert len(driven.peer.answers[1].body) == got


def settings_frame(values: dict[int, int]) -> bytes:
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return len(payload).to_bytes(3, "big") + b"\4\0\0\0\0\0" + payload


def test_frames_are_as_large_as_the_peer_takes_them(drive: Any) -> None:
    for most in (16384, 50_000):
        driven, _ = ask(drive, settings={MAX_FRAME: most, INITIAL_WINDOW: 1_000_000})
        driven.feed(driven.peer.window(0, 1_000_000))
        driven.answer_all(b"x" * 120_000, headers=[(b"x", b"y" * 60_000)])
        assert driven.peer.answers[1].ended
        assert max(frame.body_len for frame in driven.peer.frames) == most


def test_a_transport_that_takes_nothing_makes_bodies_wait_uncopied(drive: Any) -> None:
    driven, stream = ask(drive, settings={INITIAL_WINDOW: 2**31 - 1})
    driven.feed(driven.peer.window(0, 2**31 - 1 - 65535))
    driven.engine.held_back = True
    body = b"x" * 10_000_000
    driven.answer_all(body)
    assert driven.peer.answers[1].body == b""
    assert stream.pending[0] is body
    driven.engine.held_back = False
    driven.engine.send_waiting()
    assert len(driven.engine.take_output()) < 2 * limits.H2_OUTPUT_BYTES
    driven.engine.held_back = False


def test_a_peer_with_a_small_table_is_told_that_none_is_used(drive: Any) -> None:
    driven, _ = ask(drive, settings={TABLE_SIZE: 0})
    driven.peer.decoder.max_allowed_table_size = 0
    driven.peer.decoder.header_table_size = 0
    driven.feed(driven.peer.request(3))
    driven.answer_all(headers=[(b"x", b"y")])
    assert [answer.field(b"x") for answer in driven.peer.answers.values()] == [b"y", b"y"]


@pytest.mark.parametrize("number", [0, 1, 30, 31, 32, 127, 128, 255, 1337, 2**20])
def test_integers_of_hpack(number: int) -> None:
    from hpack.hpack import decode_integer

    for bits in (4, 5, 6, 7):
        assert decode_integer(h2_response.integer(number, bits, 0), bits)[0] == number


# -- the end of streams ------------------------------------------------------------------------------------------------------


def test_a_response_before_the_end_of_its_request_leaves_the_stream_to_whoever_serves_it(drive: Any) -> None:
    driven = drive()
    driven.feed(driven.peer.request(1, POST, end=False))
    driven.answer_all()
    (stream,) = driven.begun
    assert (stream.answered, stream.closed) == (True, False)
    driven.feed(driven.peer.data(1, b"late", end=True))
    assert (stream.body, stream.closed) == (b"late", True)


def test_a_cancelled_request_sends_nothing_more(drive: Any) -> None:
    driven, stream = ask(drive)
    driven.feed(driven.peer.rst(1))
    assert (stream.was_reset, stream.closed) == (8, True)
    driven.engine.start_response(stream, 200, [])
    driven.engine.send(stream, b"x", False)
    driven.engine.send_interim(stream, 103, [])
    driven.engine.send_trailers(stream, [])
    driven.flush()
    assert driven.peer.answers == {}
    driven.feed(driven.peer.request(3))
    driven.answer_all()
    assert driven.peer.answers[3].ended
