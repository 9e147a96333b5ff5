"""Connections and streams whose requests are watched for the access log: how much of the request's body came,
whether the client left, what the framework calls the route.

They are classes of their own, chosen at start, as those that name their requests are: where nobody wants to know, nothing is asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cavalcade.apps.stream import Call, NewCall, Pipe, Stream
from cavalcade.net.connection import Connection
from cavalcade.net.request_ids import NamedConnection
from cavalcade.observe import requests
from cavalcade.observe.requests import Seen
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    from cavalcade.net.link import Link

    class Watched:
        """What connections and streams have in common, as far as it is watched."""

        exchange: Call | None
        started: float
        first_at: float

        def on_request(self, head: Head) -> None: ...
        def on_body(self, chunk: bytes) -> None: ...
        def start(self, status: int, headers: Any) -> None: ...
        def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe: ...
        def account(self, status: int) -> None: ...
else:
    Watched = object


class Observed(Watched):
    """Watches the requests of the connection, or the stream, that it is mixed into."""

    __slots__ = ()

    seen: Seen

    def on_request(self, head: Head) -> None:
        self.seen = Seen(head.headers)
        super().on_request(head)

    def on_body(self, chunk: bytes) -> None:
        self.seen.received += len(chunk)
        super().on_body(chunk)

    def start(self, status: int, headers: Any) -> None:
        seen = self.seen
        seen.response_headers = headers
        if seen.environ is None:
            self.note_scope()
        super().start(status, headers)

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        self.note_scope()
        return super().switch(headers)

    def note_scope(self) -> None:
        """Keep what the app was called with: a call is let go of before its line is written."""
        self.seen.scope = getattr(self.exchange, "scope", None)

    def account(self, status: int) -> None:
        seen = self.seen
        now = time.perf_counter()
        seen.ttfb_s = (self.first_at or now) - self.started
        seen.route = requests.route(seen.scope)
        link = self.link_of()
        started_at = requests.request_start(seen.request_headers)
        if started_at and (None if link.client is None else link.client[0]) in link.context.forwarding.trusted:
            seen.queue_s = max(0.0, time.time() - (now - self.started) - started_at)
        access: Any = link.context.access
        access.seen = seen
        super().account(status)

    def link_of(self) -> Link:
        """The connection."""
        raise NotImplementedError


class ObservedConnection(Observed, Connection):
    """Speaks HTTP/1, and is watched."""

    def __init__(self, *arguments: Any) -> None:
        Connection.__init__(self, *arguments)
        self.seen = Seen([])

    def link_of(self) -> Link:
        return self

    def abandon(self) -> None:
        if self.exchange is not None:
            self.seen.left = True
            self.note_scope()
        super().abandon()


class ObservedNamedConnection(ObservedConnection, NamedConnection):
    """Names its requests too."""

    def __init__(self, *arguments: Any) -> None:
        NamedConnection.__init__(self, *arguments)
        self.seen = Seen([])


def remembering(make: NewCall) -> NewCall:
    """Makes calls of a WSGI app as `make` does, and leaves its environ with the stream that it is for."""

    def new_call(stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        call = make(stream, head, template)
        watched: Any = stream
        watched.seen.environ = getattr(call, "environ", None)
        return call

    return new_call
