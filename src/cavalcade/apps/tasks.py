"""Steps of tasks that are taken at once, not in the next turn of the loop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from typing import Any

_Task = asyncio.Task
_EAGER = sys.version_info >= (3, 12)
# `asyncio.current_task` of 3.11 looks here as well, in five times as many instructions.
_current_task: Any = asyncio.current_task if _EAGER else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined, unused-ignore]
_NAME = "request"  # one for all: making up another for each would cost more than the rest of the call


class Starter:
    """Starts tasks on one loop.

    Where `eager_start` does not exist (Python 3.11), the constructor of a task leaves its first step here instead of with the loop, and
    it is taken in the task's own context, as the loop would. In all the rest it is a task as ever; but no step can be taken inside of
    that of another task, so there it is left to the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Any = loop
        self.step: Any = None

    def start(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None]:
        """The task, which has run up to where it first waits."""
        loop = self.loop
        if _EAGER:
            return _Task(coroutine, loop=loop, name=_NAME, context=context, eager_start=True)  # type: ignore[call-arg, unused-ignore]
        if _current_task(loop) is not None:
            return _Task(coroutine, loop=loop, name=_NAME, context=context)
        loop.call_soon = self.keep
        try:
            task: asyncio.Task[None] = _Task(coroutine, loop=loop, name=_NAME, context=context)
        finally:
            del loop.call_soon
        step = self.step
        self.step = None
        context.run(step)
        return task

    def keep(self, step: Any, *, context: contextvars.Context) -> None:
        """What a task calls instead of the loop's `call_soon`."""
        self.step = step


def go_on(waiter: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """End the wait of the task that waits for this future, and take its next step, up to where it waits again.

    No step can be taken inside of that of another task: there it is left to the loop, as are those of several who wait.
    """
    callbacks: Any = waiter._callbacks
    if waiter.done():
        return
    if callbacks is None or len(callbacks) != 1 or _current_task(loop) is not None:
        waiter.set_result(None)
        return
    wakeup, context = callbacks[0]
    waiter.remove_done_callback(wakeup)
    waiter.set_result(None)
    context.run(wakeup, waiter)
