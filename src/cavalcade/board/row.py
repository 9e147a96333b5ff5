"""A worker's words on the board: its row, and the base of its ledger."""

from __future__ import annotations

_NO_WORDS = memoryview(bytearray(8)).cast("Q")


class Row:
    """A window of 64-bit words. Only the owner of the slot calls `set`, `add` and `clear`.

    `word` is one of the numbers in `board/layout.py`, or in `board/ledger_words.py`. Values are unsigned and wrap nowhere: 2^64 of anything
    is out of reach.
    """

    __slots__ = ("_memory", "_words")

    def __init__(self, words: memoryview) -> None:
        self._memory = words
        self._words = words

    def get(self, word: int) -> int:
        """The value of a word, whole: an aligned 64-bit load cannot be torn."""
        value: int = self._words[word]
        return value

    def set(self, word: int, value: int) -> None:
        """Store a value of 0 or more."""
        self._words[word] = value

    def add(self, word: int, n: int) -> None:
        """Add `n`, which may be negative where the result is not. Not atomic: a row has one writer, in one thread."""
        self._words[word] += n

    def words(self) -> list[int]:
        """All values."""
        return self._memory.tolist()

    def clear(self) -> None:
        """Zero every word."""
        for word in range(len(self._words)):
            self._words[word] = 0

    def release(self) -> None:
        """Let go of the memory, so that the board can be unmapped; the row is unusable after this."""
        self._words = _NO_WORDS  # compiled, it is a view of its own, which would keep the memory
        self._memory.release()
