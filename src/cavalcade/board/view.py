"""The board as a whole: making it, opening it in another process, and reading over all rows."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

from cavalcade.board import layout, ledger_words, memory
from cavalcade.board.ledger import Ledger
from cavalcade.board.ledger_words import Sums
from cavalcade.board.row import Row


class Board:
    """`slots` rows for workers, behind them as many ledgers and one more, the base, that holds the counts of workers that are gone."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, _size_bytes(slots))
        # The native cast matters: item access then is one aligned 64-bit load or store, never a copy of bytes.
        self._words = memoryview(self._map).cast("Q")
        self._rows = [Row(self._words[n * layout.ROW_WORDS : (n + 1) * layout.ROW_WORDS]) for n in range(slots)]
        ledgers = self._words[slots * layout.ROW_WORDS :]
        size = ledger_words.LEDGER_WORDS
        self._ledgers = [Ledger(ledgers[n * size : (n + 1) * size]) for n in range(slots + 1)]
        ledgers.release()
        self._base = self._ledgers[slots]
        self._inherited: dict[str, int] = {}

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board, all zero. Its descriptor is not inherited unless it is passed on. Raises `OSError` where there is no room."""
        return cls(memory.new_file("cavalcade-board", _size_bytes(slots)), slots)

    @classmethod
    def from_fd(cls, fd: int, slots: int) -> Board:
        """The board that another process made, from its inherited descriptor and number of slots."""
        return cls(fd, slots)

    def row(self, slot: int) -> Row:
        """The row of a slot, 0 to `slots` - 1."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"the board has slots 0 to {self.slots - 1}, there is no {slot}")
        return self._rows[slot]

    def ledger(self, slot: int) -> Ledger:
        """The ledger of a slot, 0 to `slots` - 1."""
        self.row(slot)
        return self._ledgers[slot]

    def column(self, word: int) -> list[int]:
        """One word of every slot's row, in the order of the slots."""
        return self._words[word : self.slots * layout.ROW_WORDS : layout.ROW_WORDS].tolist()

    def sums(self) -> Sums:
        """What the workers alive and all that were before them have counted.

        No count ever goes down where it is read by the process that folds, the supervisor: no reading falls into the middle of
        `fold`. Another process may see a dip for the microseconds that a fold takes.
        """
        owned = [slot for slot, worker_id in enumerate(self.column(layout.WORKER_ID)) if worker_id]
        ledgers = [self._base.words(), *(self._ledgers[slot].words() for slot in owned)]
        return Sums([sum(words) for words in zip(*ledgers, strict=True)])

    def totals(self) -> dict[str, int]:
        """`sums` by the names that another version of the server understands; of those that are not 0."""
        sums = self.sums()
        return {name: count for name, word in ledger_words.NAMES.items() if (count := sums.get(word))}

    def fold(self, slot: int) -> None:
        """Keep what the dead owner of a slot has counted, and make the slot empty. Only the supervisor does this."""
        ledger = self.ledger(slot)
        for word, count in enumerate(ledger.words()):
            self._base.add(word, count)
        ledger.clear()
        self.row(slot).clear()

    def inherit(self, totals: Mapping[str, int]) -> None:
        """Count what the server before this one has counted too: all of it, each time that it is told. Only the supervisor does this.

        Counters that only the other version has are left out; none ever goes down.
        """
        for name, word in ledger_words.NAMES.items():
            before = self._inherited.get(name, 0)
            self._inherited[name] = max(before, totals.get(name, 0))
            self._base.add(word, self._inherited[name] - before)

    def close(self) -> None:
        """Unmap it and close the descriptor; rows handed out are unusable after this."""
        for row in (*self._rows, *self._ledgers):
            row.release()
        self._rows.clear()
        self._ledgers.clear()
        self._words.release()
        self._map.close()
        os.close(self.fd)


def _size_bytes(slots: int) -> int:
    return slots * layout.ROW_BYTES + (slots + 1) * ledger_words.LEDGER_BYTES
