"""What a worker counts: the words of one ledger, declared here and nowhere else, and how they are read.

They only grow, and outlive the worker (`Board.fold`). Ledgers lie apart from the rows, which are looked at a thousand times more often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

# Responses by method and class of status: a word for each pair, at RESPONSES + METHOD_WORDS * method + status // 100.
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")  # "other" also has what was no request
CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
METHOD_WORDS: Final = 8
RESPONSES: Final = 0

# A histogram has a word for each bound, how many were at most this long but longer than the bound before; one for those that were longer
# than all; and one with the sum, in nanoseconds.
BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS: Final = len(BOUNDS_S) + 1
HISTOGRAM_WORDS: Final = BUCKETS + 1
LATENCY: Final = 64  # of requests, from the head to the end of the response
FIRST_BYTE: Final = 80  # ... to its first byte
ACCEPT_WAIT: Final = 96  # of connections, in the kernel's queue before a worker accepted them
LOOP_LAG: Final = 112  # of the event loop, at every heartbeat

REQUESTS: Final = 128
BYTES_SENT: Final = 129  # of response bodies, and on WebSockets
BYTES_RECEIVED: Final = 130  # of request bodies, and on WebSockets
SHED: Final = 131  # requests answered 503 without the app, because too many were in flight
WEBSOCKET_SENT: Final = 132  # messages
WEBSOCKET_RECEIVED: Final = 133
ACCEPTED: Final = 134  # connections
HAND_OVERS: Final = 135  # connections given to another worker, alive
GC_NS: Final = 136  # time in the garbage collector, by generation from here on
GC_PAUSES: Final = 139

STATUSES: Final = 144  # responses by status, from 100 on: a word each
STATUS_WORDS: Final = 500

LEDGER_WORDS: Final = 648  # eighty-one cache lines
LEDGER_BYTES: Final = LEDGER_WORDS * 8

SINGLE: Final = {
    "requests": REQUESTS,
    "bytes_sent": BYTES_SENT,
    "bytes_received": BYTES_RECEIVED,
    "shed": SHED,
    "websocket_sent": WEBSOCKET_SENT,
    "websocket_received": WEBSOCKET_RECEIVED,
    "accepted": ACCEPTED,
    "hand_overs": HAND_OVERS,
}
HISTOGRAMS: Final = {"latency": LATENCY, "first_byte": FIRST_BYTE, "accept_wait": ACCEPT_WAIT, "loop_lag": LOOP_LAG}


def _names() -> dict[str, int]:
    names = dict(SINGLE)
    for number, method in enumerate(METHODS):
        names |= {f"{method} {name}": RESPONSES + METHOD_WORDS * number + index for index, name in enumerate(CLASSES)}
    for name, first in HISTOGRAMS.items():
        names |= {f"{name} {bound:g}": first + index for index, bound in enumerate(BOUNDS_S)}
        names[f"{name} more"] = first + BUCKETS - 1
        names[f"{name} ns"] = first + BUCKETS
    for generation in range(3):
        names[f"gc_ns {generation}"] = GC_NS + generation
        names[f"gc_pauses {generation}"] = GC_PAUSES + generation
    for number in range(STATUS_WORDS):
        names[f"status {100 + number}"] = STATUSES + number
    return names


NAMES: Final = _names()  # of every word, as another version of the server understands them


class Sums:
    """The words of one ledger, or the sum of several, as they were at one moment."""

    def __init__(self, words: Sequence[int]) -> None:
        self.words = words

    def get(self, word: int) -> int:
        return self.words[word]

    def responses(self) -> Iterable[tuple[str, str, int]]:
        """(method, class of status, how many)."""
        for number, method in enumerate(METHODS):
            for index, name in enumerate(CLASSES):
                yield method, name, self.words[RESPONSES + METHOD_WORDS * number + index]

    def by_class(self) -> dict[str, int]:
        """How many responses of each class of status."""
        return {name: sum(self.words[RESPONSES + index : LATENCY : METHOD_WORDS]) for index, name in enumerate(CLASSES)}

    def buckets(self, histogram: int) -> Sequence[int]:
        """How many in each bucket, not cumulated."""
        return self.words[histogram : histogram + BUCKETS]

    def seconds(self, histogram: int) -> float:
        """The sum of a histogram."""
        return self.words[histogram + BUCKETS] / 1e9
