"""When the app fails: what the client gets, and the one log line it leaves."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

GET = b"GET /path?query HTTP/1.1\r\nHost: test\r\n\r\n"


def failing(error: BaseException, *messages: dict[str, Any]) -> Any:
    """An app that sends these messages and then fails."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"next"})
            return
        for message in messages:
            await send(message)
        raise error.with_traceback(None)

    return app


START = {"type": "http.response.start", "status": 200}
PIECE = {"type": "http.response.body", "body": b"piece", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}


def traceback_of(served: Any) -> list[Any]:
    return [record for record in served._caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("boom"), OSError("disk"), KeyError("x"), ExceptionGroup("many", [ValueError()]), SystemExit(1), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("messages", [(), (START,)], ids=["before anything", "after a start that is not out"])
def test_an_error_before_the_head_is_a_500_of_ours(run: Any, serve: Any, error: BaseException, messages: Any) -> None:
    async def main() -> None:
        async with serve(failing(error, *messages), lifespan="off", errors=(r"^GET /path\?query: the app failed$",)) as served:
            client = await served.connect()
            await client.send(GET)
            response = await client.response()
            assert (response.status, response.body) == (500, b"Internal Server Error")
            assert response.header("content-type") == "text/plain; charset=utf-8"
            await client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")  # the connection is as good as before
            assert (await client.response()).body == b"next"
            (record,) = traceback_of(served)
            assert record.exc_info[1] is error
            assert record.exc_info[2].tb_frame.f_code.co_filename == __file__  # it begins with the app
            assert ' "GET /path?query HTTP/1.1" 500 21B' in served.access[0]

    run(main())


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100")]], ids=["stream", "length"])
def test_an_error_after_the_head_resets_the_connection(run: Any, serve: Any, truncated: Any, version: str, headers: Any) -> None:
    """Also where the body ends with the connection: there an orderly end would look like a whole response."""

    async def main() -> None:
        app = failing(RuntimeError("boom"), {**START, "headers": headers}, PIECE)
        async with serve(app, lifespan="off", errors=(r"^GET /path\?query: the app failed$",)) as served:
            client = await served.connect()
            request = GET.replace(b"1.1", version.encode())
            await client.send(request)
            with pytest.raises(truncated):
                await client.response()
            await client.rest()
            assert client.ended == "reset"
            assert len(traceback_of(served)) == 1
            assert f' "GET /path?query HTTP/{version}" 200 5B' in served.access[0]

    run(main())


def test_an_error_after_a_head_that_went_out_on_its_own(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await gate.wait()
            raise RuntimeError("boom")

        async with serve(app, lifespan="off", errors=("the app failed",)) as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.head()).status == 200
            gate.set()
            assert await client.rest() == b""
            assert client.ended == "reset"

    run(main())


def test_an_error_after_the_response_is_logged_and_harms_nobody(run: Any, serve: Any) -> None:
    async def main() -> None:
        error = "^GET /path\\?query: the app failed after its response was complete$"
        async with serve(failing(RuntimeError("boom"), START, END), lifespan="off", errors=(error, error)) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                assert (await client.response()).body == b"end"

    run(main())


@pytest.mark.parametrize(
    ("messages", "says", "answer"),
    [
        ((), "returned without sending a response", 500),
        ((START,), "returned after http.response.start without a body", 500),
        ((START, PIECE), r"returned in the middle of its response body \(more_body was still true\)", 0),
    ],
)
def test_an_app_that_returns_too_early(run: Any, serve: Any, truncated: Any, messages: Any, says: str, answer: int) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)

        async with serve(app, lifespan="off", errors=(rf"^GET /path\?query: the app {says}$",)) as served:
            client = await served.connect()
            await client.send(GET)
            if answer:
                assert (await client.response()).status == answer
            else:
                with pytest.raises(truncated):
                    await client.response()
                assert client.ended == "reset"

    run(main())


def test_head_requests_get_a_500_without_a_body(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(failing(RuntimeError()), lifespan="off", errors=("failed", "failed")) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET.replace(b"GET", b"HEAD"))
                assert (await client.response("HEAD")).status == 500
            client.half_close()
            assert await client.rest() == b""

    run(main())


def test_an_app_that_changes_its_scope_still_gets_its_500_and_its_log_line(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.clear()
            raise RuntimeError("boom")

        async with serve(app, lifespan="off", errors=("the app failed",)) as served:
            assert (await served.ask(GET)).status == 500
            assert '"GET /path?query HTTP/1.1" 500' in served.access[0]

    run(main())


def test_a_request_line_in_the_log_cannot_forge_another_line(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(failing(RuntimeError()), lifespan="off", errors=(r"^GET /%0a%0dforged\?%1b\[31m: the app failed$",)) as served:
            await served.ask(b"GET /%0a%0dforged?%1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")

    run(main())


def test_tasks_that_an_app_leaves_behind_cannot_touch_the_next_response(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        late: list[Any] = []
        tasks = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/next":
                gate.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await send(START)
                await send({"type": "http.response.body", "body": b"next"})
                return

            async def straggler() -> None:
                await gate.wait()
                late.append(await receive())
                for message in (START, END):
                    try:
                        await send(message)
                    except Exception as error:
                        late.append(error)

            tasks.append(asyncio.create_task(straggler()))
            if scope["query_string"] == b"raise":
                raise RuntimeError("boom")

        for query in ("raise", "return"):
            gate.clear()
            late.clear()
            async with serve(app, lifespan="off", errors=("the app",) * (1 if query == "raise" else 2)) as served:
                client = await served.connect()
                await client.send(f"GET /?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert (await client.response()).status == 500
                await client.send(b"POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
                response = await client.response()
                assert (response.body, response.interim) == (b"next", [])
                await served.until(lambda: len(late) == 3)
                assert late[0] == {"type": "http.disconnect"}
                assert all("already complete" in str(error) for error in late[1:])

    run(main())


# -- leaving while the app does not want to --------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_app_that_never_answers_is_cancelled_when_the_server_stops(run: Any, serve: Any) -> None:
    async def main() -> None:
        cancelled: list[bool] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async with serve(app, lifespan="off", graceful_timeout=0.2) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            assert await served.server.stop() == ["GET /path?query"]
            assert cancelled == [True]
            assert (await client.response()).status == 503
            assert served.log() == ["GET /path?query: cancelled before the response was complete"]

    run(main())


@pytest.mark.slow
def test_an_app_that_swallows_its_cancellation_is_left_behind_with_a_line(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    pass

        async with serve(
            app,
            lifespan="off",
            graceful_timeout=0.2,
            errors=(r"^GET /path\?query: the app swallowed its cancellation; it is left behind$",),
        ) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            await asyncio.wait_for(served.server.stop(), 5)
            await client.rest()
            assert client.ended == "reset"
            gate.set()
            await served.until(lambda: not served.server._context.serving.running)

    run(main())


def test_an_app_that_is_cancelled_by_itself_is_answered_503(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(failing(asyncio.CancelledError()), lifespan="off") as served:
            assert (await served.ask(GET)).status == 503
            assert served.log() == ["GET /path?query: cancelled before the response was complete"]

    run(main())


def test_a_deep_recursion_of_an_app_is_one_failure(run: Any, serve: Any) -> None:
    async def main() -> None:
        def deeper(number: int) -> int:
            return deeper(number + 1) + 1

        async def app(scope: Any, receive: Any, send: Any) -> None:
            deeper(0)

        async with serve(app, lifespan="off", errors=("the app failed",)) as served:
            assert (await served.ask(GET)).status == 500
            assert sys.getrecursionlimit() >= 1000

    run(main())
