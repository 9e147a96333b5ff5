"""What the log has said lately, of the supervisor and of its workers, kept in memory for who asks: `cavalcade logs`, the dashboard.

Only lines of the logger `cavalcade` that its level lets through; what an app logs is its own. An entry with an `event` is about something
that an operator may want to follow: a reload, a death, a blocked loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque

import msgspec

from cavalcade import limits
from cavalcade.worker import channel, relay


class Entry(msgspec.Struct, omit_defaults=True):
    """One line. `number` counts from 1 and has no gaps; `worker` is 0 for the supervisor; `time` is of the clock on the wall."""

    number: int
    time: float
    level: str
    pid: int
    text: str
    worker: int = 0
    event: str = ""
    fix: str = ""
    trace: str = ""


class Journal(logging.Handler):
    """The last lines, and a way to wait for more. Everything happens in the supervisor's one thread."""

    def __init__(self, size: int = limits.JOURNAL_LINES) -> None:
        super().__init__()
        self._entries: deque[Entry] = deque(maxlen=size)
        self._waiters: list[asyncio.Future[object]] = []
        self.last = 0  # the number of the newest

    def emit(self, record: logging.LogRecord) -> None:
        self._add(relay.describe(record), os.getpid(), 0)

    def relayed(self, worker_id: int, pid: int, line: channel.Logged) -> None:
        """A worker has logged this."""
        self._add(line, pid, worker_id)

    def since(self, number: int, limit: int = limits.JOURNAL_LINES) -> list[Entry]:
        """The newest that come after this number, `limit` of them at most, the oldest first."""
        newer = max(0, min(limit, self.last - number, len(self._entries)))
        return [self._entries[place] for place in range(len(self._entries) - newer, len(self._entries))]

    def wait(self) -> asyncio.Future[object]:
        """Done when there is one more."""
        waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiters = [other for other in self._waiters if not other.done()]
        self._waiters.append(waiter)
        return waiter

    def _add(self, line: channel.Logged, pid: int, worker_id: int) -> None:
        self.last += 1
        self._entries.append(Entry(self.last, line.time, line.level, pid, line.text, worker_id, line.event, line.fix, line.trace))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
