"""Streams of HTTP/2 that are watched for the access log; see observed.py."""

from __future__ import annotations

from cavalcade.net.h2 import H2Connection
from cavalcade.net.h2_request_ids import NamedStream
from cavalcade.net.h2_stream import H2Stream
from cavalcade.net.link import Link
from cavalcade.net.observed import Observed
from cavalcade.observe.requests import Seen


class ObservedStream(Observed, H2Stream):
    """A request that is watched."""

    def __init__(self, link: H2Connection, stream_id: int) -> None:
        H2Stream.__init__(self, link, stream_id)
        self.seen = Seen([])

    def link_of(self) -> Link:
        return self.link

    def on_reset(self, code: int) -> None:
        if self.exchange is not None:
            self.seen.left = True
            self.note_scope()
        super().on_reset(code)


class ObservedNamedStream(ObservedStream, NamedStream):
    """It has a name too."""

    def __init__(self, link: H2Connection, stream_id: int) -> None:
        NamedStream.__init__(self, link, stream_id)
        self.seen = Seen([])


class ObservedH2Connection(H2Connection):
    """Speaks HTTP/2, and its requests are watched."""

    stream_class = ObservedStream


class ObservedNamedH2Connection(H2Connection):
    """Names its requests too."""

    stream_class = ObservedNamedStream
