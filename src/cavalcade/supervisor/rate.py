"""How many requests a second, from a total that is looked at now and then."""

from __future__ import annotations


class Rate:
    """Between the last two looks. Times are seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self.per_s = 0.0
        self._total = 0
        self._at = now

    def look(self, total: int, now: float) -> None:
        """The total at `now`."""
        if now > self._at:
            self.per_s = (total - self._total) / (now - self._at)
        self._total = total
        self._at = now
