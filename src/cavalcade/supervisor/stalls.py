"""The worst offenders: where event loops were blocked, how often, and for how long."""

from __future__ import annotations

import msgspec

from cavalcade import limits

ELSEWHERE = "elsewhere"


class StallStatus(msgspec.Struct):
    """One place in the code, or what else it was. `requests` is how many waited, `seconds` how long loops did not turn for it."""

    place: str
    count: int = 0
    requests: int = 0
    seconds: float = 0.0
    delay_s: float = 0.0


class Stalls:
    """A table of bounded size: when it is full, what comes from a new place is counted as `ELSEWHERE`. Nothing in it ever goes down."""

    def __init__(self) -> None:
        self._places: dict[str, StallStatus] = {}

    def add(self, place: str, requests: int, seconds: float) -> None:
        if place not in self._places and len(self._places) >= limits.STALL_PLACES:
            place = ELSEWHERE
        entry = self._places.setdefault(place, StallStatus(place))
        entry.count += 1
        entry.requests += requests
        entry.seconds += seconds

    def worst(self) -> list[StallStatus]:
        """All of them, the one that took the most time first."""
        return sorted(self._places.values(), key=lambda entry: -entry.seconds)
