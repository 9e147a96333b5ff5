"""The worker's stamp on the board: that its loop turns, how late it turns, and how busy it is. What it has done it writes into its ledger
at once, wherever that is done.

It beats fast while there are connections, because siblings judge by it whether to wait for this worker to accept, and slowly while
there are none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.board.ledger_words import LOOP_LAG
from cavalcade.board.row import Row
from cavalcade.net.context import ConnectionContext
from cavalcade.worker.witness import Witness


class Heartbeat:
    """Beats from inside the loop, so that a blocked loop is seen by everybody else as silence."""

    def __init__(self, context: ConnectionContext, row: Row, on_look: Callable[[float], None], witness: Witness | None = None) -> None:
        """`on_look` is called with the monotonic time a few times a second."""
        self._context = context
        self._witness = witness
        self._row = row
        self._on_look = on_look
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._last = self._due = time.monotonic()
        self._worst_s = self._late_s = 0.0
        self._worked_s = time.thread_time()
        self._second_ends = self._last + limits.BUSY_S

    def start(self) -> None:
        self._last = self._due = time.monotonic()
        if self._witness is not None:
            self._witness.start()
        self._context.on_first = self._hurry
        self._beat()

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._witness is not None:
            self._witness.stop()
        self._row.set(layout.IN_FLIGHT, len(self._context.serving.running))

    def _hurry(self) -> None:
        """The first connection is here: siblings look at the beat from now on. Not a beat of its own: where the loop was blocked before,
        nobody who waited meanwhile has been read yet."""
        now = time.monotonic()
        self._stamp(now)
        if self._timer is not None and now + limits.HEARTBEAT_S < self._due:
            self._timer.cancel()
            self._beat_after(limits.HEARTBEAT_S, now)

    def _stamp(self, now: float) -> None:
        self._row.set(layout.HEARTBEAT_NS, int(now * 1e9))
        self._row.set(layout.IN_FLIGHT, len(self._context.serving.running))

    def _beat(self) -> None:
        now = time.monotonic()
        self._stamp(now)
        if self._timer is not None:
            self._note_lag(now)
        to_tell = self._witness is not None and self._witness.beat(now, self._last, self._due)
        if now >= self._look_at:
            self._look_at = now + limits.LOOK_S
            if self._witness is not None:
                self._witness.look()
            self._on_look(now)
        self._beat_after(limits.HEARTBEAT_S if self._context.load or to_tell else limits.LOOK_S, now)

    def _beat_after(self, pause_s: float, now: float) -> None:
        self._last = now
        self._due = now + pause_s
        self._timer = self._context.loop.call_later(pause_s, self._beat)

    def _note_lag(self, now: float) -> None:
        """How late this beat is. Once a second the worst of them, and how much of the time the loop was at work or stood still."""
        lag_s = max(0.0, now - self._due)
        self._context.serving.ledger.observe(LOOP_LAG, lag_s)
        self._worst_s = max(self._worst_s, lag_s)
        if lag_s > limits.LAG_NOISE_S:
            self._late_s += lag_s
        if now >= self._second_ends:
            worked_s = time.thread_time()
            # A loop that computes uses the CPU, one that sleeps in somebody's code is late.
            busy_s = max(worked_s - self._worked_s, self._late_s)
            second_s = now - self._second_ends + limits.BUSY_S
            self._row.set(layout.LOOP_LAG_NS, int(self._worst_s * 1e9))
            self._row.set(layout.BUSY_PPM, min(1_000_000, int(busy_s / second_s * 1e6)))
            self._worked_s = worked_s
            self._worst_s = self._late_s = 0.0
            self._second_ends = now + limits.BUSY_S
