"""What is measured of one path: how long a request takes alone, and how long N of them at once."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from cavalcade.doctor import client
from cavalcade.doctor.client import Answer, Request
from cavalcade.doctor.subject import PoolFull, Stall, Subject

PATIENCE_S = 15.0  # for one request alone; an answer that takes longer, or never ends, is not measured
BURST_PATIENCE_S = 90.0
ALONE = 4  # the first warms up what is made on first use
ALONE_S = 1.5  # no further one is sent after this, but for the second
PILOT = 2  # at once, before there are more: what does not overlap takes N times as long
SERIAL = 1.6  # times the latency alone that the pilots took: they did not overlap
SERIAL_S = 8.0  # no more is spent on requests that do not overlap
SERIAL_LEAST = 4


@dataclass(frozen=True)
class Measured:
    """The numbers of one path. With `requests` 0 it was not sent several times at once; `answer` says why."""

    request: Request
    answer: Answer  # the first one
    alone_s: float = 0.0
    requests: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0  # that the worker used for all of them
    statuses: dict[int, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    stalls: tuple[Stall, ...] = ()
    pool: PoolFull | None = None
    failure: str = ""  # the last line of the app's traceback

    @property
    def overlap(self) -> float:
        """How many of the requests were in progress at a time, on average: N times the latency alone, over the time for all."""
        return self.requests * self.alone_s / self.wall_s if self.wall_s else 0.0

    @property
    def longest(self) -> Stall | None:
        """The longest time in which the loop did not turn."""
        return max(self.stalls, key=lambda stall: stall.ms, default=None)


async def measure(subject: Subject, request: Request, count: int) -> Measured:
    """Send the request alone a few times, then `count` of them at once. Raises `OSError` where nobody listens any more."""
    said = subject.said
    failures = len(said.failures)
    first, alone_s = await _alone(subject, request)
    if not first.complete or first.status >= 400:
        if first.status >= 500:
            await subject.settle()
        return Measured(request, first, alone_s, failure="".join(said.failures[failures:][-1:]))
    _, pilot_s = await client.ask(subject.url, request, PILOT, BURST_PATIENCE_S)
    if pilot_s > SERIAL * alone_s and count * alone_s > SERIAL_S:
        count = max(SERIAL_LEAST, min(count, int(SERIAL_S / alone_s)))
    if pilot_s > subject.settings.stall_warn:
        await subject.settle()
    failures, stalls, pools = len(said.failures), len(said.stalls), len(said.pools)
    cpu_s = subject.cpu_s()
    answers, wall_s = await client.ask(subject.url, request, count, BURST_PATIENCE_S)
    cpu_s = subject.cpu_s() - cpu_s
    if wall_s > subject.settings.stall_warn:
        await subject.settle()
    bad = [answer for answer in answers if not answer.complete]
    return Measured(
        request,
        first,
        alone_s,
        count,
        wall_s,
        cpu_s,
        dict(Counter(answer.status for answer in answers if answer.complete)),
        tuple(sorted({answer.error for answer in bad})),
        tuple(said.stalls[stalls:]),
        said.pools[pools] if len(said.pools) > pools else None,
        "".join(said.failures[failures:][-1:]),
    )


async def _alone(subject: Subject, request: Request) -> tuple[Answer, float]:
    """The first answer, and the median of the latencies after it."""
    first: Answer | None = None
    took: list[float] = []
    spent = 0.0
    while len(took) < ALONE and (len(took) < 2 or spent < ALONE_S) and (first is None or (first.complete and first.status < 400)):
        [answer], _ = await client.ask(subject.url, request, 1, PATIENCE_S)
        first = first or answer
        took.append(answer.seconds)
        spent += answer.seconds
    assert first is not None
    return first, statistics.median(took[1:] or took)
