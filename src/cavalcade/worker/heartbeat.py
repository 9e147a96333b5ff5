"""The worker's stamp on the board: that its loop turns, and what it has done since the last stamp.

Requests are counted in plain attributes; here they are copied to the shared row, a few times a second.
"""

from __future__ import annotations

import asyncio
import time

from cavalcade import limits
from cavalcade.apps.stream import Serving
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.net.connection import ConnectionContext


class Heartbeat:
    """Beats from inside the loop, so that a blocked loop is seen by everybody else as silence."""

    def __init__(self, context: ConnectionContext, row: Row) -> None:
        self._context = context
        self._row = row
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._beat()

    def stop(self) -> None:
        """The last stamp, with the final totals."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.stamp()

    def _beat(self) -> None:
        self.stamp()
        self._timer = self._context.loop.call_later(limits.HEARTBEAT_S, self._beat)

    def stamp(self) -> None:
        row = self._row
        serving: Serving = self._context.serving
        totals = serving.totals
        row.set(layout.HEARTBEAT_NS, time.monotonic_ns())
        row.set(layout.CONNECTIONS, len(self._context.connections))
        row.set(layout.IN_FLIGHT, len(serving.running))
        row.set(layout.REQUESTS, totals.requests)
        row.set(layout.BYTES_SENT, totals.bytes_sent)
        for status_class in range(1, 6):
            row.set(layout.STATUS_1XX + status_class - 1, totals.by_class[status_class])
