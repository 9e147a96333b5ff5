"""Drives the engine as a connection does, without any I/O: bytes in, a record of what it said out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from cavalcade.errors import PeerError
from cavalcade.wire import h1
from cavalcade.wire.h1 import H1
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.sink import Head


@dataclass
class Request:
    """What the engine said of one request. A copy: the engine uses its `Head` again."""

    method: str
    target: bytes
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int
    keep_alive: bool
    expects_continue: bool
    upgrade: bool
    forwarded: bool
    body: bytes = b""
    whole: bool = False


@dataclass
class Said:
    """All that was said: requests, whole ones first, and the status and cause that ended it, if one did."""

    requests: list[Request] = field(default_factory=list)
    status: int = 0
    cause: str = ""

    @property
    def outcome(self) -> tuple[list[Request], int]:
        """What must not depend on how the bytes were cut: the whole requests, and the status."""
        return [request for request in self.requests if request.whole], self.status


class Recorder:
    """A sink. With `at_once` it lets go of a request inside of the engine's own call, as an app does that answers at once."""

    def __init__(self, rules: Rules, *, at_once: bool) -> None:
        self.said = Said()
        self.engine = H1(self, rules)
        self.at_once = at_once
        self.http2 = False  # somebody takes over who speaks it
        self.preface = b""
        self.due = False  # a request is whole and not let go of

    def on_request(self, head: Head) -> None:
        self.said.requests.append(
            Request(
                head.method,
                head.target,
                head.path,
                head.raw_path,
                head.query,
                head.version,
                list(head.headers),
                head.length,
                head.keep_alive,
                head.expects_continue,
                head.upgrade,
                head.forwarded,
            )
        )
        if head.length == 0:
            self.on_end()

    def on_preface(self, data: bytes) -> bool:
        self.preface = data
        return self.http2

    def on_body(self, chunk: bytes) -> None:
        assert chunk
        self.said.requests[-1].body += chunk

    def on_end(self) -> None:
        assert not self.said.requests[-1].whole
        self.said.requests[-1].whole = True
        self.due = True
        if self.at_once:
            self.let_go()

    def let_go(self) -> None:
        self.due = False
        if self.engine.keep_alive:
            self.engine.next_request()
        else:
            self.engine.close()

    def feed(self, pieces: Iterable[bytes]) -> Said:
        try:
            for piece in pieces:
                self.engine.feed(piece)
                while self.due or self.engine.due():
                    if self.due:
                        self.let_go()
                    else:
                        self.engine.next_request()
        except PeerError as error:
            self.said.status = error.status
            self.said.cause = error.cause
            assert self.engine.state == h1.CLOSED
        return self.said


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


Feed = Callable[..., Said]


@pytest.fixture
def feed() -> Feed:
    """Feed pieces to a new engine; `rules` are those of `Rules`."""

    def feed_pieces(*pieces: bytes, at_once: bool = False, **rules: int) -> Said:
        return Recorder(Rules(**rules), at_once=at_once).feed(pieces)

    return feed_pieces
