"""What a server has counted, as it tells the one that takes its place, and what that one makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cavalcade.board.view import Board
from cavalcade.supervisor.stalls import Stalls, StallStatus


class Counts(msgspec.Struct):
    """All that was counted so far. Versions differ, so this may only ever get more fields, with defaults."""

    totals: dict[str, int] = {}
    restarts: dict[str, int] = {}
    stalls: list[StallStatus] = []


class Heritage:
    """Counts on where the server before this one stopped."""

    def __init__(self, board: Board, stalls: Stalls) -> None:
        self._board = board
        self._stalls = stalls
        self._restarts: dict[str, int] = {}

    def take(self, counts: Counts) -> None:
        """Count what that one has counted: all of it, each time that it tells. Nothing ever goes down."""
        self._board.inherit(counts.totals)
        self._stalls.inherit(counts.stalls)
        for reason, count in counts.restarts.items():
            self._restarts[reason] = max(count, self._restarts.get(reason, 0))

    def restarts(self, ours: Mapping[str, int]) -> dict[str, int]:
        """Ours and those before us."""
        return {reason: ours.get(reason, 0) + self._restarts.get(reason, 0) for reason in {**self._restarts, **ours}}

    def tell(self, restarts: Mapping[str, int]) -> Counts:
        """For whoever takes our place. `restarts` are ours."""
        return Counts(self._board.totals(), self.restarts(restarts), self._stalls.worst())
