"""What the engine keeps of one HTTP/2 stream, and what it calls on it. Whoever serves streams derives from this."""

from __future__ import annotations

from collections import deque

from cavalcade import limits
from cavalcade.errors import PeerError
from cavalcade.wire.sink import Head


class StreamState:
    """One request and its response on an HTTP/2 connection: where both stand."""

    __slots__ = (
        "bodiless",
        "closed",
        "end_due",
        "ended",
        "expected",
        "head_due",
        "held",
        "left",
        "length",
        "method",
        "ours",
        "pending",
        "pending_bytes",
        "received",
        "remote_ended",
        "response_block",
        "room",
        "status",
        "stream_id",
        "trailers",
        "unacked",
        "window",
    )

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.closed = False
        self.ours = False  # the library does not know of it: its request was whole with its head
        self.room = 0  # of ours: what the peer's window has left for it
        # the request
        self.method = ""
        self.remote_ended = False  # END_STREAM has come
        self.expected = -1  # its Content-Length; -1 for none
        self.received = 0
        self.held = 0  # bytes the app has not taken yet, as flow control counts them
        self.unacked = 0  # bytes it has taken and the peer was not told of yet
        self.window = limits.H2_STREAM_WINDOW_BYTES
        # the response
        self.status = 0
        self.response_block = b""
        self.length = -1  # -1 when the app gave none
        self.left = -1
        self.bodiless = False
        self.head_due = False  # the head was given, it is not out yet
        self.pending: deque[bytes | memoryview] = deque()  # body that the peer's windows, or the transport, have no room for
        self.pending_bytes = 0
        self.end_due = False  # END_STREAM goes out behind what is pending
        self.trailers = b""  # a header block that does so instead
        self.ended = False  # END_STREAM is out

    def is_short(self) -> bool:
        """Does a complete response lack bytes of its Content-Length?"""
        return self.left > 0 and not self.bodiless

    # -- called by the engine --------------------------------------------------------------------------------------------------

    def on_request(self, head: Head) -> None:
        """A request head is whole. A body follows unless `head.length` is 0, in which case `on_end` may be called, or not."""
        raise NotImplementedError

    def on_refused(self, error: PeerError) -> None:
        """The request is over: what it is, or its body, is to be answered with `error.status`."""
        raise NotImplementedError

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body, never empty."""
        raise NotImplementedError

    def on_end(self) -> None:
        """The body is whole."""
        raise NotImplementedError

    def on_reset(self, code: int) -> None:
        """It is over before its end: the peer has cancelled it or broken a rule on it."""
        raise NotImplementedError

    def on_taken(self) -> None:
        """The peer has made room, and some of what was pending is out."""
        raise NotImplementedError

    def on_answered(self) -> None:
        """The response is out, its end included, while the request goes on."""
        raise NotImplementedError
