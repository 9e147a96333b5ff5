"""The tasks of requests: their first step is taken at once, not in the next turn of the loop.

Python has that from 3.12 on, and such a task costs little. On 3.11 a task is dear, and a coroutine that never waits needs none, unless
it asks: `asyncio.current_task()`, `asyncio.timeout()` and AnyIO do. So the first step is taken without, in the context that is to be
the task's. The task is made when the coroutine waits, or when somebody looks in that step for the task that runs; it goes on where the
step has ended, and nobody can tell that it has come later.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from typing import Any

from cavalcade.apps.steps import OVER, first_step, rest

_Task = asyncio.Task
_EAGER = sys.version_info >= (3, 12)
# Where asyncio of 3.11 keeps which task runs in a loop, and looks for it, in C too.
_running: dict[Any, Any] = getattr(asyncio.tasks, "_current_tasks", {})
_NAME = "request"  # one for all: making up another for each would cost more than the rest of the call


class Starter:
    """Starts tasks on one loop. No step can be taken inside of that of another task, so there it is left to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Any = loop
        self.asked = Asked(hash(loop))
        self.asked.starter = self
        self.late = not _EAGER and hash(self.asked) == hash(loop)  # tasks may be made late
        self.coroutine: Any = None  # whose first step is being taken
        self.context: Any = None
        self.rest: Any = None
        self.task: asyncio.Task[None] | None = None  # that of the coroutine, where it was asked for
        self.step: Any = None  # the first of a new task

    def run(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None] | None:
        """Take the first step. The task, where there is one."""
        if not self.late or self.loop in _running:
            return self.start(coroutine, context)
        asked = self.asked
        self.coroutine = coroutine
        self.context = context
        _running[asked] = None
        ended: Any = OVER
        try:
            ended = context.run(first_step, coroutine)
        finally:
            task = self.task
            self.task = None
            if task is None:
                del _running[asked]
            else:
                del _running[self.loop]
        if task is not None or ended is not OVER:
            if task is None:
                task = self.make()
            self.rest.send(ended)
            self.rest = None
            self.take_step(context)
        self.coroutine = self.context = None
        return task

    def start(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None]:
        """The task of what will wait for sure, which has run up to where it first does."""
        if _EAGER:
            return _Task(coroutine, loop=self.loop, name=_NAME, context=context, eager_start=True)  # type: ignore[call-arg, unused-ignore]
        if self.loop in _running:
            return _Task(coroutine, loop=self.loop, name=_NAME, context=context)
        task = self.new(coroutine, context)
        self.take_step(context)
        return task

    def new(self, coroutine: Any, context: contextvars.Context) -> asyncio.Task[None]:
        """A task whose constructor leaves its first step here, and not with the loop."""
        loop = self.loop
        loop.call_soon = self.keep
        try:
            return _Task(coroutine, loop=loop, name=_NAME, context=context)
        finally:
            del loop.call_soon

    def keep(self, step: Any, *, context: contextvars.Context) -> None:
        """What a task calls instead of the loop's `call_soon`."""
        self.step = step

    def take_step(self, context: contextvars.Context) -> None:
        """The first of the new task, in its context, as the loop would."""
        step = self.step
        self.step = None
        context.run(step)

    def make(self) -> asyncio.Task[None]:
        """The task of the coroutine that has been begun."""
        self.rest = rest(self.coroutine)
        next(self.rest)
        return self.new(self.rest, self.context)

    def answer(self) -> None:
        """Somebody wants to know which task runs."""
        self.task = self.make()
        del _running[self.asked]
        _running[self.loop] = self.task


class Asked(int):
    """Stands in asyncio's table in the place of the loop, while no task runs but that of a request would. It has the loop's hash, so that
    who looks for the loop comes upon this, and asks whether they are equal: then the task is made, and the table, which sees that it was
    changed, is searched again."""

    starter: Starter

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        starter = self.starter
        if other is not starter.loop or asyncio._get_running_loop() is not other:
            return self is other
        starter.answer()
        return True


def end_wait(waiter: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """End the wait of the task that waits for this future, and take its next step, up to where it waits again.

    No step can be taken inside of that of another task: there it is left to the loop, as are those of several who wait.
    """
    if waiter.done():
        return
    callbacks: Any = waiter._callbacks
    busy = asyncio.current_task(loop) is not None if _EAGER else loop in _running
    if busy or callbacks is None or len(callbacks) != 1:
        waiter.set_result(None)
        return
    wakeup, context = callbacks[0]
    waiter.remove_done_callback(wakeup)
    waiter.set_result(None)
    context.run(wakeup, waiter)
