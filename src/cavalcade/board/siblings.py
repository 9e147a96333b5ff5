"""What one worker sees of the others on the board: who is ready, and how few connections the least loaded of them has."""

from __future__ import annotations

import time

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.board.view import Board

STALE_NS = int(limits.STALE_HEARTBEAT_S * 1e9)
STALE_IDLE_NS = int(2.5 * limits.LOOK_S * 1e9)  # a worker with no connection beats that slowly
LOOK_EVERY_NS = 5_000_000  # a look at all rows costs a hundredth of this at most
READY = int(layout.Phase.READY)
NOBODY = 2**62  # more connections than anybody can have


class Siblings:
    """The other workers. Which rows are worth reading is found by `refresh`; their words are read anew each time."""

    def __init__(self, board: Board, slot: int) -> None:
        self._board = board
        self._slot = slot
        self._rows: list[Row] = []
        self._look_at = 0
        self.refresh()

    def refresh(self) -> None:
        """Find the rows of ready workers."""
        phases = self._board.column(layout.PHASE)
        self._rows = []
        slot = -1
        try:
            while True:
                slot = phases.index(READY, slot + 1)  # a thousand slots, most of them empty: no loop of our own
                if slot != self._slot:
                    self._rows.append(self._board.row(slot))
        except ValueError:
            self._look_at = time.monotonic_ns() + LOOK_EVERY_NS

    def ready(self) -> bool:
        """Is there another worker that accepts connections?"""
        self.refresh()
        return bool(self._rows)

    def least_load(self) -> int:
        """The fewest connections that a ready worker has. One whose heartbeat is stale has a blocked loop and does not count."""
        now = time.monotonic_ns()
        if now >= self._look_at:
            # A worker that has just become ready must be seen before it has its share, or the others take that as well.
            self.refresh()
        least = NOBODY
        for row in self._rows:
            load = row.get(layout.CONNECTIONS)
            stale_before = now - STALE_NS if load else now - STALE_IDLE_NS
            if load < least and row.get(layout.PHASE) == READY and row.get(layout.HEARTBEAT_NS) > stale_before:
                least = load
        return least
