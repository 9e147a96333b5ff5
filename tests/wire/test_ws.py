"""The WebSocket engine against two engines by other authors: whatever one side says, the other side hears, however the bytes are cut."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wsproto.connection
import wsproto.events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from cavalcade.errors import AppProtocolError
from cavalcade.wire.ws import WebSocketEngine, WebSocketRules

LOG = logging.getLogger("cavalcade.websockets")
Cut = Callable[[bytes], Iterator[bytes]]


def engine(*, deflate: bool = False, **rules: Any) -> WebSocketEngine:
    extensions = [PerMessageDeflate(True, True, 12, 12)] if deflate else []
    return WebSocketEngine(WebSocketRules(**rules), extensions, LOG)


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


def at_random(data: bytes) -> Iterator[bytes]:
    cut = random.Random(len(data))
    at = 0
    while at < len(data):
        size = cut.choice([1, 2, 5, 50, 5000])
        yield data[at : at + size]
        at += size


CUTS = [whole, bytewise, at_random]


def heard(server: WebSocketEngine, data: bytes, cut: Cut) -> list[Any]:
    """The messages in `data`, taken as an app takes them: all that are there, then the next."""
    messages: list[Any] = []
    for piece in cut(data):
        server.feed(piece)
        while server.messages:
            messages.extend(server.messages)
            server.messages.clear()
            server.go_on()
    return messages


# A message: what it is, and where it is cut into fragments; None between is a ping.
TEXTS = st.text(max_size=300) | st.sampled_from(["", "x" * 125, "x" * 126, "é" * 200, "y" * 70_000])
MESSAGES = st.lists(st.tuples(TEXTS | TEXTS.map(str.encode), st.lists(st.integers(0, 100), max_size=3), st.booleans()), max_size=6)


def pieces(message: str | bytes, cuts: list[int]) -> list[bytes]:
    data = message.encode() if isinstance(message, str) else message
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)] or [b""]


def said_by_websockets(messages: list[Any], deflate: bool) -> bytes:
    client = ClientProtocol(parse_uri("ws://test/"), state=State.OPEN)
    client.extensions = [PerMessageDeflate(True, True, 12, 12)] if deflate else []
    for message, cuts, ping in messages:
        parts = pieces(message, cuts)
        for number, part in enumerate(parts):
            fin = number == len(parts) - 1
            if number:
                client.send_continuation(part, fin)
            elif isinstance(message, str):
                client.send_text(part, fin)
            else:
                client.send_binary(part, fin)
            if ping:
                client.send_ping(b"between")
    return b"".join(client.data_to_send())


def said_by_wsproto(messages: list[Any], deflate: bool) -> bytes:
    client = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT, [negotiated()] if deflate else [])
    data = b""
    for message, cuts, ping in messages:
        places = sorted({0, len(message), *(min(cut, len(message)) for cut in cuts)})
        parts = [message[start:stop] for start, stop in itertools.pairwise(places)] or [message]
        for number, part in enumerate(parts):
            kind = wsproto.events.TextMessage if isinstance(message, str) else wsproto.events.BytesMessage
            data += client.send(kind(data=part, message_finished=number == len(parts) - 1))
            if ping:
                data += client.send(wsproto.events.Ping(b"between"))
    return data


def negotiated() -> WsprotoDeflate:
    extension = WsprotoDeflate(client_no_context_takeover=True, server_no_context_takeover=True, client_max_window_bits=12)
    extension.finalize("permessage-deflate; client_no_context_takeover; server_no_context_takeover; client_max_window_bits=12")
    return extension


@pytest.mark.parametrize("author", [said_by_websockets, said_by_wsproto])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(messages=MESSAGES)
def test_what_a_client_says_is_heard(author: Any, deflate: bool, cut: Cut, messages: list[Any]) -> None:
    server = engine(deflate=deflate)
    assert heard(server, author(messages, deflate), cut) == [message for message, _, _ in messages]
    assert (server.fault, server.ended) == ("", False)
    pongs = sum(frame.opcode is Opcode.PONG for frame in read_by_websockets(b"".join(server.out), deflate))
    assert pongs == sum(len(pieces_of(author, message, cuts)) for message, cuts, ping in messages if ping)


def pieces_of(author: Any, message: Any, cuts: list[int]) -> list[Any]:
    if author is said_by_websockets or isinstance(message, bytes):
        return pieces(message, cuts)
    return list(range(max(1, len({0, len(message), *(min(cut, len(message)) for cut in cuts)}) - 1)))


def read_by_websockets(data: bytes, deflate: bool) -> list[Frame]:
    client = ClientProtocol(parse_uri("ws://test/"), state=State.OPEN, max_size=None)
    client.extensions = [PerMessageDeflate(True, True, 12, 12)] if deflate else []
    client.receive_data(data)
    frames = client.events_received()
    assert client.parser_exc is None
    return [frame for frame in frames if isinstance(frame, Frame)]


@pytest.mark.parametrize("deflate", [False, True])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.data_too_large])
@given(messages=st.lists(TEXTS | TEXTS.map(str.encode), max_size=6))
def test_what_the_engine_says_is_heard(deflate: bool, messages: list[Any]) -> None:
    server = engine(deflate=deflate)
    for message in messages:
        if isinstance(message, str):
            server.send_text(message)
        else:
            server.send_binary(message)
    assert server.out_bytes == sum(map(len, server.out))
    frames = read_by_websockets(b"".join(server.out), deflate)
    assert [bytes(frame.data).decode() if frame.opcode is Opcode.TEXT else bytes(frame.data) for frame in frames] == messages


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.binary(max_size=60), deflate=st.booleans())
def test_no_bytes_make_it_raise_and_every_cut_ends_the_same(data: bytes, deflate: bool) -> None:
    ends = []
    for cut in CUTS:
        server = engine(deflate=deflate, message_bytes=1000)
        messages = heard(server, data, cut)
        assert server.ended or not server.fault
        assert not server.fault or server.close_code in (1002, 1007, 1009)
        server.feed(b"more")
        ends.append((messages, server.ended, server.fault, server.close_code, b"".join(server.out)))
    assert ends[0] == ends[1] == ends[2]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    heads=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 140)), max_size=8),
)
def test_frames_of_any_kind_end_as_the_library_says(heads: list[tuple[int, int]]) -> None:
    """Whole masked frames with any first byte: our fast path and the library alone come to the same end."""
    data = b""
    for first, size in heads:
        data += bytes((first, 0x80 | min(size, 126))) + (size.to_bytes(2, "big") if size > 125 else b"") + bytes(4) + b"a" * size
    server = engine()
    messages = heard(server, data, whole)
    library = WebSocketEngine(WebSocketRules(), [], LOG).protocol
    library.receive_data(data)
    frames = [frame for frame in library.events_received() if isinstance(frame, Frame)]
    assert sum(isinstance(message, str | bytes) for message in messages) == sum(
        frame.fin for frame in frames if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
    )
    assert server.ended == library.eof_sent
    if library.close_sent is not None:
        assert server.close_code == library.close_sent.code
    else:
        assert b"".join(server.out) == b"".join(library.data_to_send())


# -- how far it reads ahead ----------------------------------------------------------------------------------------------------


def test_it_reads_ahead_so_many_messages_and_no_more() -> None:
    server = engine(queue=3)
    server.feed(said_by_websockets([(str(number), [], False) for number in range(10)], False))
    taken = []
    while server.messages:
        assert len(server.messages) <= 3
        assert server.full == (len(server.messages) == 3)
        taken += server.messages
        server.messages.clear()
        server.go_on()
    assert taken == [str(number) for number in range(10)]
    assert not server.full
    assert server.data == b""


def test_it_reads_ahead_so_many_bytes_and_no_more() -> None:
    server = engine()
    server.feed(said_by_websockets([(b"x" * 60_000, [], False)] * 20, False))
    assert len(server.messages) == 5
    assert server.full


def test_a_long_frame_goes_to_the_library_in_pieces_and_is_never_held_twice() -> None:
    server = engine()
    data = said_by_websockets([(b"x" * 10_000_000, [], False)], False)
    for at in range(0, len(data), 65536):
        server.feed(data[at : at + 65536])
        assert len(server.data) == 0
    assert len(server.messages[0]) == 10_000_000


def test_after_our_close_nothing_is_kept_and_the_answer_is_found() -> None:
    server = engine(queue=1)
    server.close(4000, "bye")
    server.feed(said_by_websockets([(b"x" * 1000, [], False)] * 50, False))
    assert not server.messages
    client = ClientProtocol(parse_uri("ws://test/"), state=State.OPEN)
    client.receive_data(b"".join(server.out))
    server.feed(b"".join(client.data_to_send()))
    assert server.ended
    assert server.close_code == 4000
    assert server.fault == ""


@pytest.mark.parametrize("cut", CUTS)
def test_an_answer_to_our_close_in_the_middle_of_a_message_is_no_fault(cut: Cut) -> None:
    """The client has heard that we leave, and does not send the rest."""
    client = ClientProtocol(parse_uri("ws://test/"), state=State.OPEN)
    client.send_binary(b"the first half", fin=False)
    server = engine()
    assert heard(server, b"".join(client.data_to_send()), cut) == []
    server.close(1012, "bye")
    client.receive_data(b"".join(server.out))
    assert heard(server, b"".join(client.data_to_send()), cut) == []
    assert server.ended
    assert server.fault == ""


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, 1 << 40])
def test_a_code_that_may_not_be_sent_changes_nothing(code: int) -> None:
    server = engine()
    with pytest.raises(AppProtocolError, match="may not be sent"):
        server.close(code, "")
    assert not server.out
    assert not server.closing
    server.close(1000, "")
    assert server.closing


def test_a_lone_surrogate_cannot_be_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        engine().send_text("\ud800")
