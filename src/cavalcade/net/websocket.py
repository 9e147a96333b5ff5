"""A connection that has become a WebSocket: the transport's side of it, as a `Pipe`. What is spoken is apps/asgi/websocket.py's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cavalcade import limits
from cavalcade.apps.stream import WebSocketCall
from cavalcade.board.layout import CONNECTIONS_WEBSOCKET
from cavalcade.net.link import LINGER, Link
from cavalcade.wire.h1 import H1

if TYPE_CHECKING:
    from cavalcade.net.connection import Connection

TURN_BYTES = limits.WRITE_TURN_BYTES


class WebSocketLink(Link):
    """Takes the transport over from the HTTP/1.1 connection `before`, whose `engine` may hold bytes that came behind the request."""

    protocol = CONNECTIONS_WEBSOCKET

    def __init__(self, before: Connection, call: WebSocketCall, engine: H1) -> None:
        Link.__init__(self, before.context, before.scheme, before.client, before.server, before.opened_at)
        self.call = call
        self.before: H1 | None = engine
        self.lingering = False
        self.closed = False
        self.succeed(before)

    # -- what comes in ---------------------------------------------------------------------------------------------------------

    def start_reading(self) -> None:
        # Not at once: this may be inside of the engine's feed, and only after that is it known what it leaves.
        self.context.loop.call_soon(self.take_rest)

    def take_rest(self) -> None:
        """What came behind the request, before the answer to it."""
        if self.before is not None:
            rest = self.before.rest
            self.before.release()
            self.before = None
            self.resume_reading()
            if rest:
                self.call.feed_data(rest)

    def data_received(self, data: bytes) -> None:
        if self.before is not None:
            self.take_rest()
        if not self.lingering:
            self.call.feed_data(data)

    # -- what goes out ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            if not self.closed:
                self.end_turn()  # broken a moment ago; that it is lost we are told in the next turn
            return
        self.transport.write(data)
        self.turn_bytes += len(data) + limits.WRITE_TURN_PIECE_BYTES
        if self.turn_bytes > TURN_BYTES:
            self.end_turn()

    def complain(self, why: str) -> None:
        self.context.peer_log.closed(self.context.now, f"{self.peer()} (WebSocket)", why)

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def close(self, unread: bool) -> None:
        transport = self.transport
        if self.closed or transport.is_closing():
            return
        self.closed = True
        self.await_flush()
        if not unread:
            transport.close()
            return
        # A plain close would make the kernel answer what still comes with a reset, which can destroy our Close before it is read.
        self.lingering = True
        if transport.can_write_eof():
            transport.write_eof()
        self.resume_reading()
        if not self.deadline:
            self.on_flushed(self.context.now)

    def on_flushed(self, now: float) -> None:
        if self.lingering:
            self.deadline = now + limits.LINGER_S
            self.deadline_for = LINGER

    def on_deadline(self, now: float) -> None:
        if self.deadline_for == LINGER:
            self.transport.abort()
        else:
            self.give_up_writing(now)

    def stop_parsing(self) -> None:
        self.before = None

    def abandon(self) -> None:
        self.call.disconnect()

    def abort(self) -> None:
        self.closed = True
        self.stop_parsing()
        self.transport.abort()  # no reset: a Close may be on its way to the client
        self.abandon()

    # -- leaving: the drain tells the call itself, whatever carries it -------------------------------------------------------------

    def drain(self) -> None:
        pass

    def is_idle(self) -> bool:
        return False  # never closed to make room: its client is there

    def close_idle(self) -> None:
        pass
