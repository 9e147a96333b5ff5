"""`--request-timeout`: an app that does not go on is given up, and only that."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

GET = b"GET /stuck?a=b HTTP/1.1\r\nHost: test\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
LIMIT = 0.6


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer(send: Any, data: bytes = b"fine") -> None:
    await send(START)
    await send(piece(data, False))


def test_an_app_that_does_not_answer_is_cancelled_and_the_client_told(run: Any, serve: Any) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            await answer(send)
            return
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT) as served:
            client = await served.connect()
            began = time.monotonic()
            await client.send(GET)
            response = await client.response()
            took = time.monotonic() - began
            assert (response.status, response.body) == (504, b"Gateway Timeout")
            assert LIMIT <= took < LIMIT + 4  # about a second late at most, on a machine that has time
            await client.send(GET.replace(b"/stuck", b"/next"))  # the connection goes on
            assert (await client.response()).body == b"fine"
            assert ended == ["cancelled"]
            (line,) = served.log()
            assert line.startswith("GET /stuck?a=b: no response for 0.6 s (request_timeout); it is answered 504, the app is cancelled in ")
            assert "test_request_timeout.py:" in line
            assert line.endswith(" app()")
            assert '" 504 15B' in served.access[0]

    run(main())


def test_behind_the_head_the_client_can_tell_that_it_is_not_whole(run: Any, serve: Any, truncated: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"begun"))
        await asyncio.sleep(60)

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT) as served:
            client = await served.connect()
            await client.send(GET)
            with pytest.raises(truncated):
                await client.response()
            assert client.ended == "reset"
            assert "no more of a response for 0.6 s (request_timeout); it is cut off, the app is cancelled" in served.log()[0]

    run(main())


def test_a_stream_that_goes_on_is_left_alone(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(12):
            await send(piece(b"x"))
            await asyncio.sleep(0.25)
        await send(piece(b"", False))

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=1.2) as served:
            assert (await served.ask(GET)).body == b"x" * 12

    run(main())


def test_what_runs_behind_a_whole_response_is_left_alone(run: Any, serve: Any) -> None:
    done: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)
        await asyncio.sleep(3 * LIMIT)
        done.append(True)

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT, graceful_timeout=10) as served:
            assert (await served.ask(GET)).body == b"fine"
            await served.until(lambda: done)
            assert served.log() == []

    run(main())


def test_a_client_that_is_slow_is_not_the_apps_fault(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(START)
        for _ in range(100):
            await send(piece(b"x" * 100_000))
        await send(piece(b"", False))

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT) as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nx")
            await asyncio.sleep(2.5 * LIMIT)
            await client.send(b"x")
            await asyncio.sleep(2.5 * LIMIT)
            assert len((await client.response()).body) == 10_000_000
            assert served.log() == []

    run(main())


def test_an_app_is_not_blamed_for_another_that_blocks_the_loop(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/block":
            time.sleep(2.5)  # the subject of the test
        else:
            await asyncio.sleep(0.9)
        await answer(send)

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=1.0) as served:
            client, other = await served.connect(), await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._sweep._also.__self__._seen)
            await other.send(GET.replace(b"/stuck", b"/block"))
            assert (await client.response()).body == (await other.response()).body == b"fine"
            assert served.log() == []

    run(main())


def test_an_app_that_goes_on_all_the_same_reaches_nobody(run: Any, serve: Any) -> None:
    """It swallows its cancellation, and sends: on the connection another request is being answered by then."""
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            await asyncio.sleep(0.2)
            await answer(send)
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(0.05)
        try:
            await send(START)
        except OSError as error:
            raised.append(error)
        raise ValueError("on purpose")

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT, errors=("the app failed",)) as served:
            client = await served.connect()
            await client.send(GET + GET.replace(b"/stuck", b"/next"))
            assert (await client.response()).status == 504
            response = await client.response()
            assert (response.status, response.body) == (200, b"fine")
            assert len(raised) == 1

    run(main())


def test_an_app_whose_client_is_gone_ends_too(run: Any, serve: Any) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            client.close()
            await served.until(lambda: ended)
            assert "its client is gone, the app is cancelled" in served.log()[0]
            assert '" 499 0B' in served.access[0]

    run(main())


def test_over_http2_only_the_stream_is_given_up(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            await answer(send)
        elif scope["path"] == "/begun":
            await send(START)
            await send(piece(b"begun"))
            await asyncio.sleep(60)
        else:
            await asyncio.sleep(60)

    async def main() -> None:
        async with serve(app, lifespan="off", request_timeout=LIMIT) as served:
            async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
                stuck, begun = await asyncio.gather(client.get("/stuck"), client.get("/begun"), return_exceptions=True)
                assert (stuck.status_code, stuck.http_version) == (504, "HTTP/2")
                assert isinstance(begun, httpx.RemoteProtocolError)
                assert (await client.get("/next")).content == b"fine"
            assert len(served.log()) == 2

    run(main())


def test_a_wsgi_thread_cannot_be_stopped_but_its_client_is_answered(run: Any, serve: Any) -> None:
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/stuck":
            go_on.wait(20)
        start_response("200 OK", [])
        return [b"fine"]

    async def main() -> None:
        async with serve(app, threads=2, request_timeout=LIMIT) as served:
            client = await served.connect()
            await client.send(GET + GET.replace(b"/stuck", b"/next"))
            assert (await client.response()).status == 504
            assert (await client.response()).body == b"fine"
            line = served.log()[0]
            assert line.startswith(
                "GET /stuck?a=b: no response for 0.6 s (request_timeout); it is answered 504, its thread cannot be stopped in "
            )
            assert "test_request_timeout.py:" in line
            go_on.set()

    run(main())


def test_a_wsgi_request_that_gets_no_thread_is_answered(run: Any, serve: Any) -> None:
    go_on = threading.Event()
    began: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        began.append(environ["PATH_INFO"])
        go_on.wait(20)
        start_response("200 OK", [])
        return [b"fine"]

    async def main() -> None:
        async with serve(app, threads=1, request_timeout=LIMIT, stall_warn=0) as served:
            first, second = await served.connect(), await served.connect()
            await first.send(GET)
            await second.send(GET.replace(b"/stuck", b"/next"))
            assert [(await first.response()).status, (await second.response()).status] == [504, 504]
            go_on.set()
            assert (await served.ask(GET)).status == 200
            assert began == ["/stuck", "/stuck"]  # what was answered is not begun any more

    run(main())


def test_a_wsgi_stream_that_stops_is_cut_off(run: Any, serve: Any, truncated: Any) -> None:
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        go_on.wait(20)

    async def main() -> None:
        async with serve(app, threads=1, request_timeout=LIMIT) as served:
            with pytest.raises(truncated):
                await served.ask(GET)
            go_on.set()

    run(main())
