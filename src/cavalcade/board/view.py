"""The board as a whole: making it, opening it in another process, and reading over all rows."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

from cavalcade.board import layout, memory
from cavalcade.board.row import Row


class Board:
    """`slots` rows for workers and one more, the base, that holds the totals of workers that are gone."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, (slots + 1) * layout.ROW_BYTES)
        # The native cast matters: item access then is one aligned 64-bit load or store, never a copy of bytes.
        self._words = memoryview(self._map).cast("Q")
        self._rows = [Row(self._words[n * layout.ROW_WORDS : (n + 1) * layout.ROW_WORDS]) for n in range(slots + 1)]
        self._base = self._rows[slots]
        self._inherited: dict[str, int] = {}

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board, all zero. Its descriptor is not inherited unless it is passed on. Raises `OSError` where there is no room."""
        return cls(memory.new_file("cavalcade-board", (slots + 1) * layout.ROW_BYTES), slots)

    @classmethod
    def from_fd(cls, fd: int, slots: int) -> Board:
        """The board that another process made, from its inherited descriptor and number of slots."""
        return cls(fd, slots)

    def row(self, slot: int) -> Row:
        """The row of a slot, 0 to `slots` - 1."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"the board has slots 0 to {self.slots - 1}, there is no {slot}")
        return self._rows[slot]

    def column(self, word: int) -> list[int]:
        """One word of every slot, in the order of the slots."""
        return self._words[word : self.slots * layout.ROW_WORDS : layout.ROW_WORDS].tolist()

    def totals(self) -> dict[str, int]:
        """Every counter, summed over the workers alive and all that were before them.

        It never goes down where it is read by the process that folds, the supervisor: no reading falls into the middle of
        `fold`. Another process may see a dip for the microseconds that a fold takes.
        """
        return {name: sum(row.get(word) for row in self._rows) for name, word in layout.COUNTERS.items()}

    def fold(self, slot: int) -> None:
        """Keep what the dead owner of a slot has counted, and make the slot empty. Only the supervisor does this."""
        row = self.row(slot)
        for word in layout.COUNTERS.values():
            self._base.add(word, row.get(word))
        row.clear()

    def inherit(self, totals: Mapping[str, int]) -> None:
        """Count what the server before this one has counted too: all of it, each time that it is told. Only the supervisor does this.

        Counters that only the other version has are left out; none ever goes down.
        """
        for name, word in layout.COUNTERS.items():
            before = self._inherited.get(name, 0)
            self._inherited[name] = max(before, totals.get(name, 0))
            self._base.add(word, self._inherited[name] - before)

    def close(self) -> None:
        """Unmap it and close the descriptor; rows handed out are unusable after this."""
        for row in self._rows:
            row.release()
        self._rows.clear()
        self._words.release()
        self._map.close()
        os.close(self.fd)
