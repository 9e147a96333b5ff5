"""The worker's stamp on the board: that its loop turns, and what it has done since the last stamp.

It beats fast while there are connections, because siblings judge by it whether to wait for this worker to accept, and slowly while
there are none. Requests are counted in plain attributes; their totals are copied to the shared row a few times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cavalcade import limits
from cavalcade.apps.stream import Serving
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.net.context import ConnectionContext
from cavalcade.worker.witness import Witness


class Heartbeat:
    """Beats from inside the loop, so that a blocked loop is seen by everybody else as silence."""

    def __init__(self, context: ConnectionContext, row: Row, on_totals: Callable[[float], None], witness: Witness | None = None) -> None:
        """`on_totals` is called with the monotonic time whenever the totals have been brought to the board."""
        self._context = context
        self._witness = witness
        self._row = row
        self._on_totals = on_totals
        self._timer: asyncio.TimerHandle | None = None
        self._totals_at = 0.0
        self._last = self._due = time.monotonic()

    def start(self) -> None:
        self._last = self._due = time.monotonic()
        if self._witness is not None:
            self._witness.start()
        self._context.on_first = self._beat
        self._beat()

    def stop(self) -> None:
        """The last stamp, with the final totals."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._witness is not None:
            self._witness.stop()
        self._stamp_totals()

    def _beat(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        self._row.set(layout.HEARTBEAT_NS, int(now * 1e9))
        self._row.set(layout.IN_FLIGHT, len(self._context.serving.running))
        if self._witness is not None:
            self._witness.beat(now, self._last, self._due)
        if now >= self._totals_at:
            self._totals_at = now + limits.TOTALS_S
            self._stamp_totals()
            if self._witness is not None:
                self._witness.look()
            self._on_totals(now)
        pause_s = limits.HEARTBEAT_S if self._context.load else limits.TOTALS_S
        self._last = now
        self._due = now + pause_s
        self._timer = self._context.loop.call_later(pause_s, self._beat)

    def _stamp_totals(self) -> None:
        row = self._row
        serving: Serving = self._context.serving
        totals = serving.totals
        row.set(layout.IN_FLIGHT, len(serving.running))
        row.set(layout.REQUESTS, totals.requests)
        row.set(layout.BYTES_SENT, totals.bytes_sent)
        row.set(layout.SHED, totals.shed)
        for status_class in range(1, 6):
            row.set(layout.STATUS_1XX + status_class - 1, totals.by_class[status_class])
