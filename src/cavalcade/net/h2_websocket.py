"""A stream of HTTP/2 that has become a WebSocket (RFC 8441): a `Pipe` over its DATA frames."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from cavalcade import limits
from cavalcade.apps.stream import WebSocketCall

if TYPE_CHECKING:
    from cavalcade.net.h2_stream import H2Stream


class H2Pipe:
    """What the client sends is given back to its window as the call takes it: a call that pauses makes the client wait."""

    def __init__(self, stream: H2Stream, call: WebSocketCall) -> None:
        self.stream = stream
        self.call = call
        self.early = stream.early  # what came before the answer to the handshake, until it is asked for
        self.paused = False
        self.over = False

    @property
    def write_paused(self) -> bool:
        """The client takes less than is sent."""
        return self.stream.write_paused

    # -- what comes in ---------------------------------------------------------------------------------------------------------

    def start_reading(self) -> None:
        """Feed what is there already, and what comes; not from inside of this call."""
        self.stream.link.context.loop.call_soon(self.take_early)

    def take_early(self) -> None:
        """Feed what came before the call was ready."""
        if self.early is not None:
            early, self.early = self.early, None
            for chunk in early:
                self.feed(chunk)
            if self.stream.remote_ended:
                self.call.disconnect()

    def feed(self, chunk: bytes) -> None:
        """What the client has sent."""
        if self.early is not None:
            self.early.append(chunk)
            return
        if not self.over:
            self.call.feed_data(chunk)
        if not self.paused:
            self.stream.give_back()

    def end(self) -> None:
        """The client sends nothing more, or is gone."""
        if self.early is None or self.stream.closed:
            self.call.disconnect()

    def pause_reading(self) -> None:
        """Feed no more for now: the client must not be able to send on."""
        self.paused = True

    def resume_reading(self) -> None:
        """Feed again."""
        self.paused = False
        self.stream.give_back()

    # -- what goes out ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send; harmless when the client is gone."""
        if not self.over:
            self.stream.send(data, True)

    def wait_writable(self) -> asyncio.Future[None]:
        """Done when the client has taken enough, or is gone."""
        return self.stream.wait_writable()

    def close(self, unread: bool) -> None:
        """End our side after what was written; the client's may take a moment."""
        if not self.over:
            self.over = True
            self.paused = False
            self.stream.deadline = self.stream.link.context.now + limits.LINGER_S
            self.stream.send(b"", False)

    def abort(self) -> None:
        """Close now."""
        self.over = True
        self.stream.break_off(ErrorCodes.CANCEL)

    def complain(self, why: str) -> None:
        """Say in the log, but not too often, why this client's stream is closed."""
        link = self.stream.link
        link.context.peer_log.closed(link.context.now, f"{link.peer()} (WebSocket)", why)
