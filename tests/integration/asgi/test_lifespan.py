"""The lifespan protocol 2.0: every way in which startup and shutdown can go."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

import cavalcade
from cavalcade.errors import LifespanFailed

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"served"})


def with_lifespan(lifespan: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await answer(send)

    return app


def test_a_program_embeds_it_in_its_own_loop(run: Any) -> None:
    life: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            life.append((await receive())["type"])
            await send({"type": life[-1] + ".complete"})

    async def main() -> None:
        async with cavalcade.Server(with_lifespan(lifespan), bind="127.0.0.1:0") as server, httpx.AsyncClient() as client:
            assert (await client.get(server.url)).text == "served"
        assert life == ["lifespan.startup", "lifespan.shutdown"]

    run(main())


async def raises_before_receive(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("no lifespan here")


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    pass


async def raises_after_receive(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("database is down")


async def returns_after_receive(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def says_failed(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no licence"})


async def says_failed_without_a_word(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def says_failed_and_raises(scope: Any, receive: Any, send: Any) -> None:
    """As Starlette does."""
    await receive()
    try:
        raise ValueError("database is down")
    except ValueError:
        await send(
            {"type": "lifespan.startup.failed", "message": "Traceback (most recent call last):\n  ...\nValueError: database is down\n"}
        )
        raise


async def takes_it_for_http(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


async def takes_it_for_http_after_receive(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await answer(send)


async def completes_shutdown_first(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def exits(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit(7)


# What has no lifespan is served under auto. What has one that fails is never served.
NO_LIFESPAN = [raises_before_receive, returns_at_once, takes_it_for_http, takes_it_for_http_after_receive, completes_shutdown_first]
FAILS = {
    raises_after_receive: "the app's startup failed: ValueError: database is down",
    returns_after_receive: "the app returned from its lifespan before startup was complete",
    says_failed: "the app's startup failed: no licence",
    says_failed_without_a_word: "the app's startup failed: it did not say why",
    says_failed_and_raises: "the app's startup failed: ValueError: database is down",
    exits: "the app's startup failed: SystemExit: 7",
}


@pytest.mark.parametrize("lifespan", NO_LIFESPAN, ids=lambda lifespan: lifespan.__name__)
def test_auto_serves_an_app_without_a_lifespan(run: Any, serve: Any, lifespan: Any) -> None:
    async def main() -> None:
        async with serve(with_lifespan(lifespan), lifespan="auto") as served:
            assert (await served.ask(GET)).body == b"served"
            assert served.log() == []

    run(main())


@pytest.mark.parametrize("lifespan", NO_LIFESPAN, ids=lambda lifespan: lifespan.__name__)
def test_on_refuses_an_app_without_a_lifespan(run: Any, serve: Any, lifespan: Any) -> None:
    async def main() -> None:
        with pytest.raises(LifespanFailed) as caught:
            async with serve(with_lifespan(lifespan), lifespan="on"):
                pass
        assert "--lifespan" in caught.value.fix

    run(main())


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("lifespan", FAILS, ids=lambda lifespan: lifespan.__name__)
def test_a_startup_that_fails_is_told_and_leaves_nothing_behind(run: Any, serve: Any, mode: str, lifespan: Any) -> None:
    async def main() -> None:
        tasks = asyncio.all_tasks()
        with pytest.raises(LifespanFailed) as caught:
            async with serve(with_lifespan(lifespan), lifespan=mode):
                pass
        assert str(caught.value) == FAILS[lifespan]
        if "ValueError" in FAILS[lifespan]:
            assert __file__ in caught.value.trace
            assert "cavalcade/apps" not in caught.value.trace
        assert asyncio.all_tasks() == tasks

    run(main())


def test_off_never_calls_it(run: Any, serve: Any) -> None:
    async def main() -> None:
        called: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.append(scope["type"])
            assert "state" not in scope
            await answer(send)

        async with serve(app, lifespan="off") as served:
            await served.ask(GET)
        assert called == ["http"]

    run(main())


def test_the_scope_and_the_messages_of_a_whole_life(run: Any, serve: Any) -> None:
    async def main() -> None:
        said: list[Any] = []

        async def lifespan(scope: Any, receive: Any, send: Any) -> None:
            said.append({key: value for key, value in scope.items() if key != "state"})
            assert scope["state"] == {}
            said.append(await receive())
            await send({"type": "lifespan.startup.complete"})
            said.append(await receive())
            await send({"type": "lifespan.shutdown.complete"})

        async with serve(with_lifespan(lifespan)) as served:
            assert len(said) == 2
            await served.ask(GET)
            assert len(said) == 2
        assert said == [
            {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}},
            {"type": "lifespan.startup"},
            {"type": "lifespan.shutdown"},
        ]

    run(main())


def test_nothing_is_accepted_before_startup_is_complete(run: Any, serve: Any) -> None:
    async def main() -> None:
        order: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                for _ in range(5):
                    await asyncio.sleep(0)
                order.append("started")
                await send({"type": "lifespan.startup.complete"})
                await receive()
                order.append("stopped")
                await send({"type": "lifespan.shutdown.complete"})
                return
            order.append("request")
            await answer(send)

        async with serve(app) as served:
            await served.ask(GET)
        assert order == ["started", "request", "stopped"]

    run(main())


def test_shutdown_comes_after_the_last_response(run: Any, serve: Any) -> None:
    async def main() -> None:
        order: list[str] = []
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                order.append("shutdown")
                await send({"type": "lifespan.shutdown.complete"})
                return
            await gate.wait()
            order.append("answered")
            await answer(send)

        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            stopping = asyncio.ensure_future(served.server.stop())
            await served.until(lambda: served.server._context.draining)
            gate.set()
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"served", "close")
            assert await stopping == []
        assert order == ["answered", "shutdown"]

    run(main())


def stopping_with(*messages: Any, then: BaseException | None = None) -> Any:
    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return with_lifespan(lifespan)


@pytest.mark.parametrize(
    ("app", "line"),
    [
        (stopping_with({"type": "lifespan.shutdown.failed", "message": "flush failed"}), "^the app's shutdown failed: flush failed$"),
        (stopping_with({"type": "lifespan.shutdown.failed"}), "^the app's shutdown failed: it did not say why$"),
        (stopping_with(then=ValueError("boom")), "^the app's lifespan failed$"),
        (stopping_with({"type": "lifespan.startup.complete"}), "^the app's lifespan failed$"),
        (stopping_with({"type": "http.response.start", "status": 200}), "^the app's lifespan failed$"),
        (stopping_with({"no": "type"}), "^the app's lifespan failed$"),
    ],
    ids=["failed", "failed without a word", "raises", "completes startup again", "takes it for http", "no message"],
)
def test_a_shutdown_that_fails_is_one_log_line(run: Any, serve: Any, app: Any, line: str) -> None:
    async def main() -> None:
        async with serve(app, errors=(line,)) as served:
            await served.ask(GET)

    run(main())


def test_a_shutdown_that_returns_without_a_word_is_fine(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(stopping_with()) as served:
            await served.ask(GET)
        assert served.log() == []

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", [False, True], ids=["hangs", "hangs and swallows its cancellation"])
def test_a_shutdown_that_hangs_is_bounded(run: Any, serve: Any, stubborn: bool) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def lifespan(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    if not stubborn:
                        raise

        error = r"^the app's shutdown took longer than 1\.0 s and was cancelled$"
        async with serve(with_lifespan(lifespan), graceful_timeout=0.4, errors=(error,)) as served:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await served.server.stop()
            gate.set()
            assert 1.0 <= loop.time() - began < (2.9 if stubborn else 1.9)

    run(main())


@pytest.mark.slow
def test_shutdown_runs_even_when_requests_use_up_the_grace(run: Any, serve: Any) -> None:
    async def main() -> None:
        order: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                order.append("shutdown")
                await send({"type": "lifespan.shutdown.complete"})
                return
            await asyncio.Event().wait()

        async with serve(app, graceful_timeout=0.2) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            assert await served.server.stop() == ["GET /"]
        assert order == ["shutdown"]

    run(main())


def test_a_lifespan_that_ends_early_is_told_once_and_the_app_is_served_on(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def lifespan(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise ValueError("background task died")

        async with serve(with_lifespan(lifespan), errors=("^the app's lifespan failed$",)) as served:
            await served.until(lambda: served.log(level=logging.ERROR))
            assert (await served.ask(GET)).body == b"served"

    run(main())
