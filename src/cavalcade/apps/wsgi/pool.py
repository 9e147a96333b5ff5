"""The threads that a WSGI app runs in, and the way back from them to the loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cavalcade.apps.wsgi.threaded import ThreadCall


class Job(Protocol):
    """What a thread does."""

    def run(self) -> None:
        """Never raises."""


class Pool:
    """A fixed number of threads with one line before them. Made after the fork: threads do not survive it."""

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop, name: str = "wsgi") -> None:
        self.size = size
        self._at_work = [False] * size
        self._loop = loop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.submit = self._jobs.put
        self._told: deque[ThreadCall] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        # Daemons: one that the app never gives back must not hold the end of the process.
        names = [f"{name}-{number}" for number in range(size)]
        self._threads = [threading.Thread(target=self._work, args=(n,), name=names[n], daemon=True) for n in range(size)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the threads end, each after what it has begun."""
        for _ in self._threads:
            self._jobs.put(None)

    def threads(self) -> Collection[threading.Thread]:
        return self._threads

    def busy(self) -> int:
        """How many threads run something."""
        return sum(self._at_work)

    def waiting(self) -> int:
        """How many wait for a thread."""
        return self._jobs.qsize()

    # -- in the threads ------------------------------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        get = self._jobs.get
        at_work = self._at_work  # each thread has a place of its own, so nobody counts wrong
        while True:
            job = get()
            if job is None:
                return
            at_work[number] = True
            job.run()
            del job  # or its request lives on until the next
            at_work[number] = False

    def tell(self, call: ThreadCall) -> None:
        """Have the loop look at this call. However many do so before it turns, it is woken once."""
        self._told.append(call)
        self._wake()

    def call(self, function: Callable[[], None]) -> None:
        """Have the loop call this."""
        self._calls.append(function)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: a thread that was left behind has come to its end after all
                pass

    # -- in the loop ---------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        self._woken = False  # first: who tells from now on wakes again
        told = self._told
        while told:
            told.popleft().advance()
        calls = self._calls
        while calls:
            calls.popleft()()


class Turn:
    """A job that does nothing but show that its turn has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[Any] = loop.create_future()
        self._loop = loop

    def run(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._show)
        except RuntimeError:  # the loop is closed
            pass

    def _show(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
