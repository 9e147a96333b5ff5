"""Which workers are blocked: judged from their heartbeats alone, without a process or a clock in sight.

A worker that merely awaits goes on beating, so silence is always a loop that does not turn. Why it does not is found out elsewhere
(`supervisor/guard.py`), and told once the loop turns again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cavalcade import limits


@dataclass(frozen=True)
class Pulse:
    """A worker that serves: when its loop last turned, and whether it beats slowly because it has no connections."""

    worker_id: int
    beat: float
    idle: bool = False


@dataclass(frozen=True)
class Silent:
    """This worker's loop has not turned for `stall_warn`: ask it now what it does. Found once for each silence."""

    worker_id: int


@dataclass(frozen=True)
class Hopeless:
    """This worker's loop has not turned for `stall_kill`. Found once for each silence."""

    worker_id: int
    seconds: float


@dataclass(frozen=True)
class Gap:
    """The supervisor itself did not run from `began` to `ended`."""

    began: float
    ended: float


Finding = Silent | Hopeless | Gap


class Watch:
    """What is remembered from look to look. Times are seconds of the machine's monotonic clock."""

    def __init__(self, warn_s: float, kill_s: float, now: float) -> None:
        self._warn_s = warn_s or float("inf")
        self._kill_s = kill_s or float("inf")
        self._expected = now
        self._gap_ended = now
        self._asked: dict[int, float] = {}  # the beat after which a worker fell silent
        self._given_up: dict[int, float] = {}

    def look(self, pulses: Sequence[Pulse], now: float) -> list[Finding]:
        """What is new since the last look, which `next_look` has timed."""
        late_s = now - self._expected
        if late_s > limits.STALL_OWN_S:
            # Whoever was to beat in this time had no CPU either, most likely: everybody gets a new start.
            gap = Gap(self._expected, now)
            self._gap_ended = now
            self._expected = now + limits.STALL_LOOK_S
            return [gap]
        found: list[Finding] = []
        for pulse in pulses:
            silent_s = now - max(pulse.beat, self._gap_ended)
            if silent_s > self._patience(pulse) and self._asked.get(pulse.worker_id) != pulse.beat:
                self._asked[pulse.worker_id] = pulse.beat
                found.append(Silent(pulse.worker_id))
            if silent_s > self._kill_s and self._given_up.get(pulse.worker_id) != pulse.beat:
                self._given_up[pulse.worker_id] = pulse.beat
                found.append(Hopeless(pulse.worker_id, now - pulse.beat))
        self._expected = self._next(pulses, now)
        return found

    def next_look(self) -> float:
        """When to look again."""
        return self._expected

    def forget(self, worker_id: int) -> None:
        """The worker is gone."""
        self._asked.pop(worker_id, None)
        self._given_up.pop(worker_id, None)

    def _patience(self, pulse: Pulse) -> float:
        return self._warn_s + (limits.LOOK_S if pulse.idle else 0.0)

    def _next(self, pulses: Iterable[Pulse], now: float) -> float:
        """The usual time, or as soon as somebody's patience ends: a blocking that is just over it must be seen too."""
        due = now + limits.STALL_LOOK_S
        for pulse in pulses:
            ends = max(pulse.beat, self._gap_ended) + self._patience(pulse) + 0.001
            if now < ends < due:
                due = ends
        return due
