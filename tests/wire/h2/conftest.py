"""Drives the HTTP/2 engine as a connection does, without any I/O: a client's frames in, what it says to the sink noted, its own out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cavalcade.errors import ConnectionFault, PeerError, StreamFault
from cavalcade.testing.http2 import Peer
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2 import H2
from cavalcade.wire.h2_stream import StreamState
from cavalcade.wire.sink import Head


class Recorded(StreamState):
    """A stream that notes what it is told."""

    def __init__(self, stream_id: int, at: Driven) -> None:
        super().__init__(stream_id)
        self.at = at
        self.request: dict[str, Any] = {}
        self.body = b""
        self.whole = False
        self.error: PeerError | None = None
        self.was_reset: int | None = None
        self.answered = False
        self.taken = 0

    def on_request(self, head: Head) -> None:
        names = ("method", "target", "path", "raw_path", "query", "version", "length", "expects_continue", "upgrade")
        self.request = {name: getattr(head, name) for name in names} | {"headers": list(head.headers)}
        self.whole = head.length == 0
        self.at.begun.append(self)
        if self.at.answer is not None:
            self.at.answer(self)

    def on_refused(self, error: PeerError) -> None:
        self.error = error
        self.at.refused.append(self)

    def on_body(self, chunk: bytes) -> None:
        assert chunk
        self.body += chunk
        if self.at.reads:
            self.at.engine.give_back(self)

    def on_end(self) -> None:
        self.whole = True

    def on_reset(self, code: int) -> None:
        self.was_reset = code

    def on_taken(self) -> None:
        self.taken += 1

    def on_answered(self) -> None:
        self.answered = True


class Driven:
    """An engine with its sink, and a client. `fault` is what ended it."""

    def __init__(self, *, start: bool = True, settings: dict[int, int] | None = None, **rules: int) -> None:
        self.begun: list[Recorded] = []
        self.refused: list[Recorded] = []
        self.malformed: list[StreamFault] = []
        self.settled = 0
        self.complaints: list[tuple[int, bytes]] = []
        self.full = False
        self.reads = True
        self.answer: Callable[[Recorded], None] | None = None
        self.fault: ConnectionFault | None = None
        self.peer = Peer()
        self.rules = Rules(server=b"cavalcade", **rules)
        self.engine = H2(self, self.rules)
        if start:
            self.feed(self.peer.start(settings))

    # the sink
    def new_stream(self, stream_id: int) -> Recorded | None:
        return None if self.full else Recorded(stream_id, self)

    def on_malformed(self, error: StreamFault) -> None:
        self.malformed.append(error)

    def on_complaint(self, code: int, why: bytes) -> None:
        self.complaints.append((code, why))

    def on_settled(self) -> None:
        self.settled += 1

    def on_stream_closed(self) -> None:
        pass

    # the client
    def feed(self, *pieces: bytes) -> Driven:
        for piece in pieces:
            try:
                self.engine.feed(piece)
            except ConnectionFault as error:
                self.fault = error
            self.flush()
        return self

    def flush(self) -> None:
        while data := self.engine.take_output():
            self.peer.take(data)
            self.engine.send_waiting()

    def answer_all(self, body: bytes = b"hello", status: int = 200, headers: Any = ()) -> None:
        for stream in self.begun:
            if not stream.closed and not stream.ended:
                self.engine.start_response(stream, status, headers)
                self.engine.send(stream, body, False)
        self.flush()


@pytest.fixture
def drive() -> type[Driven]:
    """Make an engine; `rules` are those of `Rules`."""
    return Driven
