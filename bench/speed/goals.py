"""What Cavalcade wants to be: the project's goals in numbers, and whether a run reached them.

Each is a ratio to others in the same round, the median over the rounds. "best" is the one of them whose median is lowest (or highest,
for a rate).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speed.contenders import PEERS
from speed.sample import Sample

OURS = "cavalcade"
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Goal:
    """At most so much of the best of `others`; or at most `limit` itself, where there are no others."""

    case: str
    limit: float
    others: tuple[str, ...] = ()
    metric: str = "cpu_us"
    ours: str = OURS
    # For a rate it is at least.
    more_is_better: bool = False

    @property
    def text(self) -> str:
        what = {"cpu_us": "CPU", "p99_ms": "p99", "per_s": "throughput", "kib_each": "KiB for each connection"}[self.metric]
        bound = f"{'at least' if self.more_is_better else 'at most'} {self.limit:.2f}"
        whose = " x the best peer" if self.others == PEERS else f" x {self.others[0]}" if len(self.others) == 1 else ""
        return f"{what} {bound}{whose or (' x the best of ' + ', '.join(self.others) if self.others else '')}"


GOALS = (
    Goal("raw", 0.60, ("granian",)),
    Goal("raw", 0.40, ("uvicorn",)),
    Goal("raw", 2.00, ("bare uvloop",)),
    Goal("raw", 0.65, ("uvicorn",), ours="cavalcade, pure"),
    Goal("json", 0.85, ("uvicorn",)),
    Goal("json", 1.00, PEERS),
    Goal("echo", 0.60, PEERS),
    Goal("download", 1.00, PEERS),
    Goal("file", 1.00, PEERS),
    Goal("file", 0.50, ("granian",)),
    Goal("churn", 1.00, PEERS),
    Goal("tls", 1.00, PEERS),
    Goal("websocket", 0.50, ("uvicorn", "gunicorn asgi", "granian")),
    Goal("websocket-16", 0.50, ("uvicorn", "gunicorn asgi", "granian")),
    Goal("wsgi", 0.80, ("granian wsgi",), ours="cavalcade, threads=0"),
    Goal("sleep", 1.00, PEERS, "per_s", more_is_better=True),
    Goal("sleep", 1.00, PEERS, "p99_ms"),
    Goal("idle", 6.00, (), "kib_each"),
)


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    value: float | None = None  # as in the goal; None where it could not be measured
    other: str = ""  # whom it was measured by

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        value = round(self.value, 2)  # what is printed decides
        return value >= self.goal.limit if self.goal.more_is_better else value <= self.goal.limit

    @property
    def word(self) -> str:
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


def judge(goal: Goal, samples: Samples) -> Verdict:
    mine = numbers(samples, goal.ours, goal.metric)
    if not mine:
        return Verdict(goal)
    if not goal.others:
        return Verdict(goal, statistics.median(mine))
    medians = {name: statistics.median(theirs) for name in goal.others if (theirs := numbers(samples, name, goal.metric))}
    if not medians:
        return Verdict(goal)
    other = (max if goal.more_is_better else min)(medians, key=lambda name: medians[name])
    return Verdict(goal, statistics.median(ratios(samples, goal.ours, other, goal.metric)), other)


def numbers(samples: Samples, name: str, metric: str) -> list[float]:
    return [value for sample in samples.get(name, ()) if (value := getattr(sample, metric)) is not None]


def ratios(samples: Samples, name: str, other: str, metric: str) -> list[float]:
    """Round by round, because the machine's speed differs more between rounds than the servers do within one."""
    pairs = zip(numbers(samples, name, metric), numbers(samples, other, metric), strict=False)
    return [mine / theirs for mine, theirs in pairs if theirs]
