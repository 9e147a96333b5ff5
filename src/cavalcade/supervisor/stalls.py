"""The worst offenders: where event loops were blocked, how often, and for how long."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cavalcade import limits

ELSEWHERE = "elsewhere"


class StallStatus(msgspec.Struct):
    """One place in the code, or what else it was. `requests` is how many waited, and `delay_s` for how long all of them together;
    `seconds` is how long loops did not turn for it."""

    place: str
    count: int = 0
    requests: int = 0
    seconds: float = 0.0
    delay_s: float = 0.0


class Stalls:
    """A table of bounded size: when it is full, what comes from a new place is counted as `ELSEWHERE`. Nothing in it ever goes down."""

    def __init__(self) -> None:
        self._places: dict[str, StallStatus] = {}
        self._inherited: dict[str, StallStatus] = {}

    def add(self, place: str, requests: int, seconds: float, delay_s: float) -> None:
        """One more. `delay_s` is for how long the requests waited, all of them together."""
        self._add(StallStatus(place, 1, requests, seconds, delay_s))

    def inherit(self, stalls: Iterable[StallStatus]) -> None:
        """Count what another server has counted too: all of it, each time that it tells."""
        for stall in stalls:
            before = self._inherited.get(stall.place, StallStatus(stall.place))
            if stall.count >= before.count:
                self._inherited[stall.place] = stall
                self._add(
                    StallStatus(
                        stall.place,
                        stall.count - before.count,
                        stall.requests - before.requests,
                        stall.seconds - before.seconds,
                        stall.delay_s - before.delay_s,
                    )
                )

    def _add(self, more: StallStatus) -> None:
        place = more.place if more.place in self._places or len(self._places) < limits.STALL_PLACES else ELSEWHERE
        entry = self._places.setdefault(place, StallStatus(place))
        entry.count += more.count
        entry.requests += more.requests
        entry.seconds += more.seconds
        entry.delay_s += more.delay_s

    def worst(self) -> list[StallStatus]:
        """All of them, the one that took the most time first."""
        return sorted(self._places.values(), key=lambda entry: -entry.seconds)
