"""A coroutine whose first step is taken before it has a task cannot tell, on both loops."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from cavalcade.apps.tasks import Starter
from cavalcade.worker import witness

WAIT_S = 10
LONG_S = 1000.0

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


async def begin(work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
    """Begin it as the loop begins a request: outside of every task."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def in_loop() -> None:
        call_soon = loop.call_soon
        try:
            assert asyncio.current_task() is None
            task = Starter(loop).run(work(), contextvars.copy_context())
            assert asyncio.current_task() is None
            assert loop.call_soon == call_soon
        except BaseException as error:
            begun.set_exception(error)
        else:
            begun.set_result(task)

    loop.call_soon(in_loop)
    return await asyncio.wait_for(begun, WAIT_S)


async def end(task: asyncio.Task[None] | None) -> None:
    assert task is not None
    await asyncio.wait_for(task, WAIT_S)


def test_what_never_waits_has_run_in_its_own_context(run: Any) -> None:
    async def main() -> None:
        seen: list[str] = []

        async def work() -> None:
            seen.append(name.get())
            name.set("of the first")

        for _ in range(2):
            task = await begin(work)
            assert task is None or task.done()
        assert seen == ["", ""]

    run(main())


@pytest.mark.parametrize("wait", ["not at all", "one turn", "for a timer"])
def test_who_asks_for_the_task_gets_the_one_that_goes_on(run: Any, wait: str) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def work() -> None:
            seen.append(asyncio.current_task())
            assert anyio.get_current_task().id == id(seen[0])
            assert seen[0] in asyncio.all_tasks()
            name.set("mine")
            if wait != "not at all":
                await asyncio.sleep(0 if wait == "one turn" else 0.001)
                await asyncio.sleep(0)
            assert name.get() == "mine"
            seen.append(asyncio.current_task())

        task = await begin(work)
        await end(task)
        assert seen == [task, task]
        assert name.get() == ""

    run(main())


def test_what_waits_goes_on_in_a_task_and_in_its_context(run: Any) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def work() -> None:
            name.set("mine")
            for _ in range(3):
                await asyncio.sleep(0.001)
                seen.append((asyncio.current_task(), name.get()))

        task = await begin(work)
        await end(task)
        assert seen == [(task, "mine")] * 3

    run(main())


def test_timeouts_and_scopes_of_the_first_step_end_what_waits(run: Any) -> None:
    async def main() -> None:
        seen: list[str] = []

        async def at_once() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(LONG_S)
            seen.append("asyncio")
            await asyncio.sleep(0)

        async def later() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.get_running_loop().create_future()
            seen.append("asyncio later")

        async def scope() -> None:
            with anyio.move_on_after(0.001) as moved:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, LONG_S)
            assert moved.cancelled_caught
            seen.append("anyio")

        async def in_a_thread() -> None:
            seen.append(await anyio.to_thread.run_sync(lambda: "a thread"))

        for work in (at_once, later, scope, in_a_thread):
            await end(await begin(work))
        assert seen == ["asyncio", "asyncio later", "anyio", "a thread"]

    run(main())


@pytest.mark.parametrize("waits", [True, False])
def test_who_cancels_itself_is_cancelled_where_it_waits_or_at_its_end(run: Any, waits: bool) -> None:
    async def main() -> None:
        inner: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen: list[str] = []

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("enough")
            seen.append("cancelled")
            if waits:
                try:
                    await inner
                except asyncio.CancelledError:
                    seen.append("told")
                    raise

        task = await begin(work)
        assert task is not None
        await asyncio.wait({task}, timeout=WAIT_S)
        assert task.cancelled()
        assert inner.cancelled() is waits
        assert seen == (["cancelled", "told"] if waits else ["cancelled"])

    run(main())


def test_a_cancellation_reaches_what_waits_again_and_again(run: Any) -> None:
    async def main() -> None:
        told: list[int] = []

        async def work() -> None:
            for number in range(3):
                try:
                    await asyncio.sleep(LONG_S)
                except asyncio.CancelledError:
                    told.append(number)

        task = await begin(work)
        assert task is not None
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert told == [0, 1, 2]

    run(main())


def test_an_error_is_the_tasks(run: Any) -> None:
    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise LookupError("mine")

        task = await begin(work)
        with pytest.raises(LookupError, match="mine"):
            await end(task)

    run(main())


def test_one_that_is_begun_inside_of_another_is_left_to_the_loop_or_has_its_own_task(run: Any) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def inner() -> None:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

        async def outer() -> None:
            task = Starter(asyncio.get_running_loop()).run(inner(), contextvars.copy_context())
            await end(task)
            assert seen == [task, task]
            assert asyncio.current_task() is not task
            seen.append("outer")

        await end(await begin(outer))
        assert seen[-1] == "outer"

    run(main())


def test_another_thread_that_asks_is_told_of_none_or_of_the_task(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        async def work() -> None:
            asking = threading.Thread(target=lambda: seen.append(asyncio.current_task(loop)))
            asking.start()
            asking.join()
            seen.append(asyncio.current_task())

        task = await begin(work)
        await end(task)
        assert seen[0] in (None, task)
        assert seen[1] is task

    run(main())


def test_the_stack_of_what_waits_is_seen_from_its_first_step_on(run: Any) -> None:
    async def main() -> None:
        async def innermost() -> None:
            await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()

        async def work() -> None:
            await innermost()

        task = await begin(work)
        assert task is not None
        for _ in range(3):
            frames = [frame.f_code.co_name for frame in witness.awaits(task.get_coro())]
            assert [frame for frame in frames if frame in ("work", "innermost")] == ["work", "innermost"]
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=WAIT_S)

    run(main())
