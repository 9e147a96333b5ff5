"""A task that goes on at once when its wait is ended, on both loops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import pytest
import uvloop

from cavalcade.apps.tasks import end_wait

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def in_turn(request: pytest.FixtureRequest) -> Callable[[Callable[[asyncio.Future[None], list[str]], None]], list[str]]:
    """Runs a function in a turn of the loop of its own, not in a task, with a future that a task waits for; and tells what happened."""

    def run(act: Callable[[asyncio.Future[None], list[str]], None]) -> list[str]:
        said: list[str] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            over = loop.create_future()

            async def wait() -> None:
                NAME.set("the task")
                try:
                    await waiter
                except asyncio.CancelledError:
                    said.append("cancelled")
                else:
                    said.append(f"{NAME.get()} goes on")

            task = asyncio.create_task(wait())

            def turn() -> None:
                if waiter._callbacks is None:  # it does not wait yet
                    loop.call_soon(turn)
                    return
                act(waiter, said)
                said.append(f"{NAME.get()} goes home")
                task.add_done_callback(over.set_result)

            loop.call_soon(turn)
            await over

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())
        return said

    return run


def test_a_task_goes_on_at_once_and_in_its_own_context(in_turn: Callable[..., list[str]]) -> None:
    assert in_turn(lambda waiter, said: end_wait(waiter, waiter.get_loop())) == ["the task goes on", "nobody goes home"]


def test_a_step_is_left_to_the_loop_where_several_wait(in_turn: Callable[..., list[str]]) -> None:
    def act(waiter: asyncio.Future[None], said: list[str]) -> None:
        waiter.add_done_callback(lambda _: said.append("the other"))
        end_wait(waiter, waiter.get_loop())

    assert in_turn(act) == ["nobody goes home", "the task goes on", "the other"]


def test_one_who_was_cancelled_is_left_alone(in_turn: Callable[..., list[str]]) -> None:
    def act(waiter: asyncio.Future[None], said: list[str]) -> None:
        waiter.cancel()
        end_wait(waiter, waiter.get_loop())

    assert in_turn(act) == ["nobody goes home", "cancelled"]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_inside_of_another_task_the_step_is_left_to_the_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> list[str]:
        said: list[str] = []
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await waiter
            said.append("goes on")

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        end_wait(waiter, asyncio.get_running_loop())
        said.append("this one first")
        await task
        return said

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == ["this one first", "goes on"]
