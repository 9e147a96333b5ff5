"""How the last seconds were: requests a second, and percentiles of their latency, of each worker and of all together."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cavalcade import limits
from cavalcade.board.ledger_words import BOUNDS_S, BUCKETS, LATENCY, REQUESTS, Sums

NOTES = round(limits.RECENT_S / limits.RATE_S) + 1


@dataclass(frozen=True)
class Lately:
    """Requests and 5xx responses a second, of the last second; of those answered in the last few, how long so many took at most, in
    seconds: 0.0 where there were none."""

    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0


NOTHING = Lately()


@dataclass(frozen=True)
class _Note:
    at: float
    requests: int
    errors: int
    buckets: Sequence[int]


class Recent:
    """Remembers the last few notes of each. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._notes: dict[int, deque[_Note]] = {}
        self._all: deque[_Note] = deque(maxlen=NOTES)

    def note(self, workers: Mapping[int, Sums], everything: Sums, now: float) -> None:
        """What each of the workers has counted at `now`, by their numbers, and what all have together, the dead ones included. Who is not
        among them is forgotten."""
        self._all.append(_note(everything, now))
        self._notes = {worker_id: self._notes.get(worker_id) or _new_notes(now) for worker_id in workers}
        for worker_id, sums in workers.items():
            self._notes[worker_id].append(_note(sums, now))

    def forget_all(self) -> None:
        """What all have together makes a jump: another server's counts come to it."""
        self._all.clear()

    def of(self, worker_id: int) -> Lately:
        """Of one worker."""
        return _lately(self._notes.get(worker_id, ()))

    def of_all(self) -> Lately:
        """Of all together."""
        return _lately(self._all)


def percentile(buckets: Sequence[int], share: float) -> float:
    """How long `share` of them took at most, as Prometheus' histogram_quantile() says it: in a bucket they are taken to be spread evenly,
    and in the last, which has no end, to be at its beginning."""
    wanted = share * sum(buckets)
    lower, below = 0.0, 0
    for upper, count in zip(BOUNDS_S, buckets, strict=False):
        if count and below + count >= wanted:
            return lower + (upper - lower) * (wanted - below) / count
        lower, below = upper, below + count
    return lower if below < sum(buckets) else 0.0


def _new_notes(now: float) -> deque[_Note]:
    """Of a worker that has counted nothing a moment ago."""
    return deque([_Note(now - limits.RATE_S, 0, 0, [0] * BUCKETS)], maxlen=NOTES)


def _note(sums: Sums, now: float) -> _Note:
    return _Note(now, sums.get(REQUESTS), sums.by_class()["5xx"], sums.buckets(LATENCY))


def _lately(notes: Sequence[_Note]) -> Lately:
    if len(notes) < 2:
        return NOTHING
    first, before, last = notes[0], notes[-2], notes[-1]
    second_s = max(last.at - before.at, 0.001)
    buckets = [end - begin for begin, end in zip(first.buckets, last.buckets, strict=True)]
    p50_s, p95_s, p99_s = (round(percentile(buckets, share), 6) for share in (0.5, 0.95, 0.99))
    return Lately(
        round((last.requests - before.requests) / second_s, 1), round((last.errors - before.errors) / second_s, 1), p50_s, p95_s, p99_s
    )
