"""What came of traffic: the books that all of its clients keep, and the report that is made of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

import msgspec

from cavalcade.testing.traffic_wire import Lost, Wire

REQUEST_TIMEOUT_S = 10.0
AFTER_FAILURE_S = 0.05  # a server that is gone is not hammered
SLOW_S = 0.025  # requests slower than this are noted one by one, with when they began
NOTED_MAX = 20_000


class Note(msgspec.Struct, array_like=True):
    """One request worth a line. Times are on the monotonic clock, which all processes of a machine share."""

    kind: str
    began: float
    ended: float
    what: str = ""  # how it failed
    detail: str = ""


class Tally(msgspec.Struct):
    """What came of the requests of one kind of client."""

    requests: int = 0
    failed: int = 0
    worst_s: float = 0.0  # of those that were answered


class Report(msgspec.Struct):
    """What came of all the traffic."""

    kinds: dict[str, Tally] = {}
    failures: list[Note] = []
    slow: list[Note] = []
    versions: dict[str, int] = {}  # of the code that answered, with how many answers
    pids: list[int] = []  # of the processes that answered
    ends: dict[str, int] = {}  # how connections with an end of their own ended: "1012", "GOAWAY", "by the client" ...
    repeated: int = 0  # messages and requests that a Close or a GOAWAY has left to be sent again
    left: list[str] = []  # tokens of those that could not be sent again, because there was no server any more

    @property
    def requests(self) -> int:
        return sum(tally.requests for tally in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(tally.failed for tally in self.kinds.values())

    @property
    def worst_ms(self) -> float:
        return 1000 * max((tally.worst_s for tally in self.kinds.values()), default=0.0)

    def by_failure(self) -> dict[str, int]:
        """How many requests failed in which way."""
        counts: dict[str, int] = {}
        for note in self.failures:
            counts[note.what] = counts.get(note.what, 0) + 1
        return counts

    def explain(self) -> str:
        """The failures, for a person: the counts, and the first few."""
        lines = [f"{self.failed} of {self.requests} failed: {self.by_failure()}"]
        lines += [f"  {n.kind} at {n.ended:.3f} after {1000 * (n.ended - n.began):.1f} ms: {n.what} {n.detail}" for n in self.failures[:20]]
        return "\n".join(lines)


class Books:
    """Where the clients of one process enter what they see."""

    def __init__(self) -> None:
        self.report = Report()
        self._numbers = itertools.count(1)
        self._pids: set[int] = set()

    def token(self, kind: str) -> str:
        """What a request, or a message, is known by."""
        return f"{kind}-{next(self._numbers)}"

    def close(self) -> Report:
        self.report.pids = sorted(self._pids)
        return self.report

    @contextlib.asynccontextmanager
    async def counted(self, kind: str, wire: Wire) -> AsyncIterator[None]:
        """One request, counted whatever comes of it; a connection that has lost one is closed."""
        began = time.monotonic()
        lost: Lost | None = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                yield
        except TimeoutError:
            lost = Lost("timeout")
        except Lost as error:
            lost = error
        if lost is None:
            self.answered(kind, began)
        else:
            wire.close()
            await self.lost(kind, began, lost)

    def answered(self, kind: str, began: float) -> None:
        """A good answer has come just now."""
        tally = self._tally(kind)
        ended = time.monotonic()
        tally.requests += 1
        tally.worst_s = max(tally.worst_s, ended - began)
        if ended - began > SLOW_S and len(self.report.slow) < NOTED_MAX:
            self.report.slow.append(Note(kind, began, ended))

    async def lost(self, kind: str, began: float, lost: Lost) -> None:
        """There was no good answer; whoever says so waits a moment before it goes on."""
        self.enter(kind, began, lost)
        await asyncio.sleep(AFTER_FAILURE_S)

    def enter(self, kind: str, began: float, lost: Lost) -> None:
        """There was no good answer."""
        tally = self._tally(kind)
        tally.requests += 1
        tally.failed += 1
        if len(self.report.failures) < NOTED_MAX:
            self.report.failures.append(Note(kind, began, time.monotonic(), lost.what, lost.detail))

    def check(self, body: str, wanted: str) -> None:
        """An answer is "VERSION PID " and what was wanted. Raises `Lost`."""
        version, pid, said = (*body.split(" ", 2), "", "")[:3]
        if said != wanted or not pid.isdigit():
            raise Lost("wrong", f"{body[:200]!r} instead of {wanted[:200]!r}")
        self._pids.add(int(pid))
        self.report.versions[version] = self.report.versions.get(version, 0) + 1

    def end(self, how: str) -> None:
        """A connection has ended in one of the good ways."""
        self.report.ends[how] = self.report.ends.get(how, 0) + 1

    def _tally(self, kind: str) -> Tally:
        return self.report.kinds.setdefault(kind, Tally())
