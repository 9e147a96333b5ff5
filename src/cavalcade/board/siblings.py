"""What one worker sees of the others on the board: who is ready, and how few connections the least loaded of them has."""

from __future__ import annotations

import time

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.board.view import Board

STALE_NS = int(limits.STALE_HEARTBEAT_S * 1e9)
NOBODY = 2**63  # more connections than anybody can have


class Siblings:
    """The other workers. Which rows are worth reading is found by `refresh`, a few times a second; their words are read anew each time."""

    def __init__(self, board: Board, slot: int) -> None:
        self._board = board
        self._slot = slot
        self._rows: list[Row] = []
        self.refresh()

    def refresh(self) -> None:
        """Find the rows of ready workers."""
        phases = self._board.column(layout.PHASE)
        self._rows = [self._board.row(slot) for slot, phase in enumerate(phases) if phase == layout.Phase.READY and slot != self._slot]

    def ready(self) -> bool:
        """Is there another worker that accepts connections?"""
        self.refresh()
        return bool(self._rows)

    def least_load(self) -> int:
        """The fewest connections that a ready worker has. One whose heartbeat is stale has a blocked loop and does not count."""
        least = NOBODY
        stale_before = time.monotonic_ns() - STALE_NS
        for row in self._rows:
            load = row.get(layout.CONNECTIONS)
            # A worker with no connection beats slowly, because nothing can block it but its own doing.
            if load < least and row.get(layout.PHASE) == layout.Phase.READY and (load == 0 or row.get(layout.HEARTBEAT_NS) > stale_before):
                least = load
        return least
