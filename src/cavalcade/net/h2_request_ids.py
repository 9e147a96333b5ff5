"""`--request-id` over HTTP/2; see request_ids.py."""

from __future__ import annotations

from typing import Any

from cavalcade.apps.stream import REQUEST_ID, Pipe
from cavalcade.errors import PeerError
from cavalcade.net.h2 import H2Connection
from cavalcade.net.h2_stream import H2Stream
from cavalcade.net.request_ids import note, sign, with_id
from cavalcade.wire.sink import Head


class NamedStream(H2Stream):
    """A request that has a name."""

    __slots__ = ("request_id",)

    def __init__(self, link: H2Connection, stream_id: int) -> None:
        H2Stream.__init__(self, link, stream_id)
        self.request_id = ""

    def on_request(self, head: Head) -> None:
        link = self.link
        self.request_id = link.template[REQUEST_ID] = link.context.request_ids.identify(link, head.headers)
        H2Stream.on_request(self, head)

    def start(self, status: int, headers: Any) -> None:
        H2Stream.start(self, status, with_id(headers, self.request_id))

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        H2Stream.respond(self, status, with_id(headers, self.request_id), body)

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        return H2Stream.switch(self, with_id(headers, self.request_id))

    def on_refused(self, error: PeerError) -> None:
        if not self.request_id:
            self.request_id = self.link.context.request_ids.make()
        sign(error, self.request_id)
        H2Stream.on_refused(self, error)

    def account(self, status: int) -> None:
        note(self.link.context.access, self.request_id)
        H2Stream.account(self, status)


class NamedH2Connection(H2Connection):
    """Speaks HTTP/2 and names its requests."""

    stream_class = NamedStream
