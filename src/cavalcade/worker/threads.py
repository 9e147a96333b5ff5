"""Whether the threads that an app's sync code runs in are enough. The pools have a fixed size, and when all of their threads are blocked,
every further sync endpoint waits in silence: the loop turns, health checks that are `async def` answer, and nothing says why.

How it works. A few times a second, in the heartbeat, each pool is asked how many wait. Where somebody does, we stand in the same line:
a call of ours that does nothing is queued behind theirs. If it has not been run within `stall_warn`, then a request that comes now
waits that long, and that is what the log says, once for each time that this happens. So nothing is done for a request, and a pool
that is full and fast is never blamed.

The pools: AnyIO's, in which Starlette and FastAPI run sync endpoints and dependencies; the loop's default executor, in which
`run_in_executor(None, ...)`, `asyncio.to_thread` and asgiref's calls with thread_sensitive=False run; and the one thread of asgiref's
`sync_to_async`, where no framework has made another for the request, as Django does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread
from threading import enumerate as all_threads
from typing import Any, Protocol

from cavalcade import limits
from cavalcade.apps.stream import Serving
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.observe import blackbox, logs
from cavalcade.observe.blackbox import Frame
from cavalcade.observe.escape import quoted
from cavalcade.observe.requests import route
from cavalcade.worker import witness

log = logging.getLogger("cavalcade")

_LATE_LOOKS = 3  # the call of ours must have had turns of the loop to be run in: after a blocked loop everything is late
_FRAMES = 100


@dataclass(frozen=True)
class Load:
    """Of one pool: threads that run something, threads that there may be, calls that wait for one."""

    busy: int = 0
    total: int = 0
    waiting: int = 0


class Pool(Protocol):
    """Threads with a line before them."""

    name: str
    fix: str

    def load(self) -> Load:
        """How it is now."""

    def stand_in_line(self) -> asyncio.Future[Any]:
        """Queue a call that does nothing. Done when it had its turn. Raises `RuntimeError` where the pool takes no calls any more."""

    def threads(self) -> Collection[Thread]:
        """Its threads."""

    def holders(self) -> Iterable[asyncio.Task[Any]]:
        """The tasks whose calls run in it, where it knows them."""


class AnyIOPool:
    """The threads that `anyio.to_thread.run_sync` takes by default."""

    name = "AnyIO's pool"
    fix = (
        "Sync endpoints and dependencies need a thread each: make what blocks there async or shorter, add workers, or raise the limit "
        "at startup: anyio.to_thread.current_default_thread_limiter().total_tokens"
    )

    def __init__(self, limiter: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._limiter = limiter
        self._loop = loop

    def load(self) -> Load:
        limiter = self._limiter
        total = limiter.total_tokens
        busy = limiter.borrowed_tokens
        waiting = limiter.statistics().tasks_waiting if busy >= total else 0
        return Load(busy, 0 if math.isinf(total) else int(total), waiting)

    def stand_in_line(self) -> asyncio.Future[Any]:
        return self._loop.create_task(self._take_turn(), name="cavalcade: waits for a thread")

    async def _take_turn(self) -> None:
        await self._limiter.acquire_on_behalf_of(self)
        self._limiter.release_on_behalf_of(self)

    def threads(self) -> Collection[Thread]:
        return [thread for thread in all_threads() if thread.name.startswith("AnyIO worker thread")]

    def holders(self) -> Iterable[asyncio.Task[Any]]:
        return [each for each in self._limiter.statistics().borrowers if isinstance(each, asyncio.Task)]


class ExecutorPool:
    """The threads of a `ThreadPoolExecutor`. It shows its size and its line only to those who look at its private parts; the names have
    been the same since Python 3.9. Of one that has other names nothing is said."""

    def __init__(self, executor: Any, name: str, fix: str, loop: asyncio.AbstractEventLoop) -> None:
        self.executor = executor
        self.name = name
        self.fix = fix
        self._loop = loop

    def load(self) -> Load:
        executor = self.executor
        try:
            waiting = executor._work_queue.qsize()
            busy = len(executor._threads) - executor._idle_semaphore._value
            return Load(max(0, busy), executor._max_workers, waiting)
        except AttributeError:
            return Load()

    def stand_in_line(self) -> asyncio.Future[Any]:
        return asyncio.wrap_future(self.executor.submit(_nothing), loop=self._loop)

    def threads(self) -> Collection[Thread]:
        return tuple(self.executor._threads)

    def holders(self) -> Iterable[asyncio.Task[Any]]:
        return ()


def new_executor() -> ThreadPoolExecutor:
    """What a loop makes for itself when it first needs a default executor. Made by us, because uvloop does not show its own."""
    return ThreadPoolExecutor(thread_name_prefix="asyncio")


class Threads:
    """Looks at the pools of one worker. `executor` is the loop's default one, `packages` the apps' own."""

    def __init__(self, serving: Serving, row: Row, executor: ThreadPoolExecutor | None, *, warn_s: float, packages: frozenset[str]) -> None:
        self._serving = serving
        self._loop = serving.loop
        self._row = row
        self._executor = executor
        self._warn_s = warn_s if warn_s > 0 else math.inf
        self._packages = packages
        self._lines: dict[str, Line] = {}
        self._finding: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        """A few times a second, in the loop. `now` is monotonic."""
        self._find()
        busy = total = waiting = 0
        for line in self._lines.values():
            load = line.look(now)
            busy += load.busy
            total += load.total
            waiting += load.waiting
        self._row.set(layout.THREADS_BUSY, busy)
        self._row.set(layout.THREADS_TOTAL, total)
        self._row.set(layout.THREADS_WAITING, waiting)

    def stop(self) -> None:
        """Stand in no line any more."""
        for line in self._lines.values():
            line.leave()
        if self._finding is not None:
            self._finding.cancel()

    # -- the pools that there are ----------------------------------------------------------------------------------------

    def _find(self) -> None:
        # The app may have set another; asyncio's own loop shows which.
        self._see_executor(
            getattr(self._loop, "_default_executor", self._executor),
            "the loop's default executor",
            "run_in_executor(None, ...) and asyncio.to_thread take its threads: make what blocks there async or shorter, add workers, "
            "or give the loop a larger one at startup: loop.set_default_executor(ThreadPoolExecutor(...))",
        )
        asgiref = sys.modules.get("asgiref.sync")
        if asgiref is not None:
            self._see_executor(
                getattr(getattr(asgiref, "SyncToAsync", None), "single_thread_executor", None),
                "asgiref's sync_to_async",
                "Calls that are thread_sensitive, which is the default, run one after the other in one thread: make what blocks there "
                "shorter, say thread_sensitive=False where the code allows it, or add workers",
            )
        if self._finding is None and "anyio._backends._asyncio" in sys.modules:
            self._finding = self._loop.create_task(self._find_anyio(), name="cavalcade: looks for AnyIO's limiter")

    def _see_executor(self, executor: Any, name: str, fix: str) -> None:
        line = self._lines.get(name)
        if executor is None or (line is not None and isinstance(line.pool, ExecutorPool) and line.pool.executor is executor):
            return
        self._lines[name] = Line(ExecutorPool(executor, name, fix, self._loop), self)

    async def _find_anyio(self) -> None:
        """AnyIO tells its limiter, which it keeps for each loop, only to a task of that loop."""
        with contextlib.suppress(AttributeError, ImportError, LookupError, RuntimeError):
            to_thread = sys.modules.get("anyio.to_thread")
            if to_thread is not None:
                pool = AnyIOPool(to_thread.current_default_thread_limiter(), self._loop)
                self._lines[pool.name] = Line(pool, self)

    # -- what is said of one ---------------------------------------------------------------------------------------------

    @property
    def warn_s(self) -> float:
        return self._warn_s

    def tell_late(self, pool: Pool, load: Load, late_s: float) -> None:
        """A call that came `late_s` ago still has no thread."""
        threads = "its one thread is" if load.total == 1 else f"all {load.total} threads are"
        where = self._where(pool)
        waiting = "1 call waits" if load.waiting == 1 else f"{load.waiting} calls wait"
        text = f"{_worker()}: {pool.name} is full: {threads} busy{where}; {waiting} for one, for {late_s:.1f} s and longer"
        log.warning("%s", text, extra={"fix": pool.fix, "event": "threads"})

    def tell_over(self, pool: Pool, full_s: float, most: int) -> None:
        """Newcomers get a thread at once again."""
        waited = "1 call" if most == 1 else f"{most} calls"
        log.info("%s: %s has free threads again, after %.1f s; at most %s waited at a time", _worker(), pool.name, full_s, waited)

    def _where(self, pool: Pool) -> str:
        """ ", most with GET /report in app/views.py:88 report()": the commonest request and the commonest line."""
        named = [route_of(_scope_of(task)) for task in pool.holders()]
        running = self._serving.running
        named = named or [route_of(getattr(call, "scope", None)) or re.split(r"\?| \[", call.request_line())[0] for call in running]
        routes = Counter(route for route in named if route)
        stacks = sys._current_frames()
        places = Counter(
            culprit.show()
            for thread in pool.threads()
            if (culprit := blackbox.culprit(_stack(stacks.get(thread.ident or 0)), self._packages)) is not None
        )
        route = f" with {routes.most_common(1)[0][0]}" if routes else ""
        place = f" in {places.most_common(1)[0][0]}" if places else ""
        most = "most" if len(routes) > 1 or len(places) > 1 else "all"
        return f", {most}{route}{place}" if route or place else ""


class Line:
    """The line before one pool, and whether we stand in it."""

    def __init__(self, pool: Pool, threads: Threads) -> None:
        self.pool = pool
        self._threads = threads
        self._turn: asyncio.Future[Any] | None = None  # ours
        self._since = 0.0
        self._looks = 0
        self._full_since = 0.0  # 0 while there are threads enough
        self._late_at = 0.0
        self._most = 0

    def look(self, now: float) -> Load:
        load = self.pool.load()
        turn = self._turn
        if turn is None:
            if load.waiting and load.busy >= load.total and self._threads.warn_s < math.inf:
                self._stand(now)
        elif turn.done():
            self._turn = None
            if not turn.cancelled():
                turn.exception()
        else:
            load = Load(load.busy, load.total, max(0, load.waiting - 1))  # without us
            self._looks += 1
            if self._looks >= _LATE_LOOKS and now - self._since >= self._threads.warn_s:
                self._late(load, now)
        if self._full_since and self._turn is None and now - self._late_at >= limits.POOL_OVER_S:
            self._threads.tell_over(self.pool, self._late_at - self._full_since, self._most)
            self._full_since = 0.0
        return load

    def leave(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _stand(self, now: float) -> None:
        try:
            self._turn = self.pool.stand_in_line()
        except RuntimeError:  # shut down: it has no future in which somebody could wait
            return
        self._since = now
        self._looks = 0

    def _late(self, load: Load, now: float) -> None:
        self._late_at = now
        self._most = max(self._most, load.waiting)
        if not self._full_since:
            self._full_since = self._since
            self._most = load.waiting
            self._threads.tell_late(self.pool, load, now - self._since)


def route_of(scope: Any) -> str:
    """ "GET /items/{id}": the route as the framework names it, else the path without its query; "" where the scope tells neither."""
    try:
        return quoted(f"{scope['method']} {route(scope) or scope['path']}")[:512]
    except (AttributeError, KeyError, TypeError):
        return ""


def _scope_of(task: asyncio.Task[Any]) -> Any:
    for frame in witness.awaits(task.get_coro()):
        scope = witness.maybe_scope(frame)
        if scope is not None:
            return scope
    return None


def _stack(frame: Any) -> list[Frame]:
    found: list[Frame] = []
    while frame is not None and len(found) < _FRAMES:
        found.append(Frame(frame.f_code.co_filename, str(frame.f_lineno), frame.f_code.co_name))
        frame = frame.f_back
    return found


def _nothing() -> None:
    pass


def _worker() -> str:
    return f"worker {logs.this_worker()} (pid {os.getpid()})"
