"""When a worker asks to be replaced on its own: after so many requests, at an age, or above a size. Its successor is ready before it
leaves, so this loses nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import psutil

from cavalcade import limits
from cavalcade.board.ledger import Ledger
from cavalcade.board.ledger_words import REQUESTS
from cavalcade.config.options import Settings

AGE_JITTER = 0.1  # of max_age: workers that were started together do not all go together
MIB = limits.MIB


class Recycle:
    """Judges one worker. `due` is asked a few times a second and gives the reason once; time is given, not read."""

    def __init__(self, settings: Settings, ledger: Ledger, now: float, *, read_rss: Callable[[], int] | None = None) -> None:
        self._ledger = ledger
        self._max_requests = settings.max_requests
        if self._max_requests:
            self._max_requests += random.randint(0, settings.max_requests_jitter)
        self._expires_at = now + settings.max_age * (1 + random.uniform(0, AGE_JITTER)) if settings.max_age else float("inf")
        self._born_at = now
        self._max_memory = settings.max_memory
        self._read_rss = read_rss or _rss
        self._sample_at = now
        self._over = 0
        self._told = False

    def due(self, now: float) -> str:
        """Why this worker should be replaced, or ""."""
        if self._told:
            return ""
        reason = self._reason(now)
        self._told = bool(reason)
        return reason

    def _reason(self, now: float) -> str:
        if self._max_requests and self._ledger.get(REQUESTS) >= self._max_requests:
            return f"max_requests: it has served {self._ledger.get(REQUESTS)}"
        if now >= self._expires_at:
            return f"max_age: it is {now - self._born_at:.0f} s old"
        if self._max_memory and now >= self._sample_at:
            self._sample_at = now + limits.MEMORY_SAMPLE_S
            rss = self._read_rss()
            self._over = self._over + 1 if rss > self._max_memory else 0
            if self._over >= limits.MEMORY_SAMPLES:
                allowed = f"{self._max_memory / MIB:.0f} MiB for {self._over} samples"
                return f"max_memory: {rss / MIB:.0f} MiB after {self._ledger.get(REQUESTS)} requests, over {allowed}"
        return ""


def _rss() -> int:
    size: int = psutil.Process().memory_info().rss
    return size
