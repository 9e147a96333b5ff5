"""One line about bad requests, at most one a second: who, why, and how it began. A flood of them must not become a flood of lines,
and when it is over the lines and the counts on them are all of it.
"""

from __future__ import annotations

import logging

from cavalcade import limits
from cavalcade.errors import PeerError, StreamFault

log = logging.getLogger("cavalcade")


class PeerLog:
    """Rate-limited log of what peers did wrong. Time is given, not read."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._held = ""  # the last line that came too soon
        self._left_out = 0  # how many came too soon, that one included

    def refused(self, now: float, peer: str, error: PeerError, first: bytes = b"", *, late: bool = False) -> None:
        """A request was answered with `error.status` and its connection closed; where that came too `late`, its answer had begun, it was
        cut off."""
        what = "its answer had begun: cut off" if late else f"answered {error.status}"
        fix = f"; {error.fix}" if error.fix else ""
        name = "".join(f" [{value.decode('ascii')}]" for field, value in error.fields if field == b"x-request-id")
        self._line(now, f"bad request from {peer}: {error.cause}{fix} ({what}){name}{_quote(first)}")

    def closed(self, now: float, peer: str, why: str) -> None:
        """A connection was closed without an answer."""
        self._line(now, f"connection of {peer} closed: {why}")

    def refused_stream(self, now: float, peer: str, error: StreamFault, code: str) -> None:
        """HTTP/2: a stream was reset with `code`, the connection goes on."""
        self._line(now, f"bad request from {peer}: {error.cause} (stream reset: {code})")

    def stream_closed(self, now: float, peer: str, why: str) -> None:
        """HTTP/2: a stream was ended without its answer."""
        self._line(now, f"stream of {peer} closed: {why}")

    def complained(self, now: float, peer: str, code: str, why: bytes) -> None:
        """HTTP/2: the client has ended the connection and says that it is our fault."""
        self._line(now, f"the client {peer} ends its connection with {code}{f', {why[: limits.PEER_LOG_BYTES]!r}' if why else ''}")

    def shed(self, now: float, peer: str, running: int) -> None:
        """A request was answered 503 without the app."""
        self._line(now, f"overloaded: {running} requests in flight (limit_concurrency); one of {peer} was answered 503")

    def catch_up(self, now: float) -> None:
        """Nothing more may ever come that could carry the count: say the last line that came too soon, when its time is here."""
        if self._left_out and now >= self._next_at:
            self._left_out -= 1
            self._say(now, self._held)

    def _line(self, now: float, text: str) -> None:
        if now < self._next_at:
            self._left_out += 1
            self._held = text
        else:
            self._say(now, text)

    def _say(self, now: float, text: str) -> None:
        self._next_at = now + limits.PEER_LOG_EVERY_S
        if self._left_out:
            text += f"; {self._left_out} more like it since the last such line"
            self._left_out = 0
        log.warning("%s", text)


def _quote(first: bytes) -> str:
    if not first:
        return ""
    return f": it began {first[: limits.PEER_LOG_BYTES]!r}"
