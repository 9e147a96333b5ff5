"""One worker's ledger on the board: what it has counted. Hot: every request is written down here."""

from __future__ import annotations

from cavalcade.board.ledger_words import (
    BOUNDS_S,
    BUCKETS,
    FIRST_BYTE,
    LATENCY,
    LEDGER_BYTES,
    METHOD_WORDS,
    METHODS,
    REQUESTS,
    RESPONSES,
    STATUSES,
)
from cavalcade.board.ledger_words import BYTES_SENT as SENT
from cavalcade.board.row import Row

METHOD_AT = {method: RESPONSES + METHOD_WORDS * number for number, method in enumerate(METHODS)}
OTHER_AT = METHOD_AT["other"]


class Ledger(Row):
    """The words of `board/ledger_words.py`."""

    __slots__ = ()

    def answered(self, method: str, status: int, sent_bytes: int, seconds: float, first_byte_s: float) -> None:
        """A request is over: `seconds` from its head to the end of its response, `first_byte_s` to the beginning."""
        words = self._words
        at = METHOD_AT.get(method, OTHER_AT)
        if 100 <= status < 600:
            words[at + status // 100] += 1
            words[STATUSES + status - 100] += 1
        else:
            words[at] += 1
        words[REQUESTS] += 1
        words[SENT] += sent_bytes
        bucket = bucket_of(seconds)
        words[LATENCY + bucket] += 1
        words[LATENCY + BUCKETS] += int(seconds * 1e9)
        if first_byte_s != seconds:
            bucket = bucket_of(first_byte_s)
        words[FIRST_BYTE + bucket] += 1
        words[FIRST_BYTE + BUCKETS] += int(first_byte_s * 1e9)

    def refused(self, status: int) -> None:
        """What came was no request that anybody could have answered, and was told so."""
        self._words[OTHER_AT + status // 100] += 1
        self._words[STATUSES + status - 100] += 1
        self._words[REQUESTS] += 1

    def observe(self, histogram: int, seconds: float) -> None:
        """Add to a histogram of something that happens less often than requests."""
        self.add(histogram + bucket_of(seconds), 1)
        self.add(histogram + BUCKETS, int(seconds * 1e9))


def bucket_of(seconds: float) -> int:
    """Which bucket of a histogram a duration belongs to. Most are short."""
    bucket = 0
    for bound in BOUNDS_S:
        if seconds <= bound:
            break
        bucket += 1
    return bucket


def private_ledger() -> Ledger:
    """One that is on no board: of a server that nobody watches."""
    return Ledger(memoryview(bytearray(LEDGER_BYTES)).cast("Q"))
