"""What a peer may do only so often: a bucket of tokens that fills with time, and with useful work."""

from __future__ import annotations


class Budget:
    """At most `most` at once, and `per_second` for ever. Time is given, not read."""

    __slots__ = ("_at", "_left", "_most", "_per_second")

    def __init__(self, most: int, per_second: float) -> None:
        self._most = float(most)
        self._left = float(most)
        self._per_second = per_second
        self._at = 0.0

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take from it; False when there is not enough left."""
        left = self._left - cost
        if left < 0.0:
            if self._at:
                left += (now - self._at) * self._per_second
            self._at = now
            left = min(left, self._most - cost)
        elif not self._at:
            self._at = now
        self._left = left
        return left >= 0.0

    def earn(self, gain: float) -> None:
        """Useful work was done."""
        left = self._left + gain
        self._left = left if left < self._most else self._most
