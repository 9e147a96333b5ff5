"""`--cancel-on-disconnect`: where it is on, an app whose client leaves is cancelled; where it is off, never."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"x", "more_body": True}


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("leave", ["reset", "close"])
@pytest.mark.parametrize(("where", "request_"), [("head", GET), ("upload", POST), ("stream", GET)])
def test_when_the_client_leaves(run: Any, serve: Any, where: str, request_: bytes, leave: str, on: bool) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if where == "stream":
                await send(START)
                await send(PIECE)
            ended.append("begun")
            await asyncio.sleep(0.3)
            ended.append("by itself")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        async with serve(app, lifespan="off", cancel_on_disconnect=on) as served:
            client = await served.connect()
            await client.send(request_)
            if where == "stream":
                await client.until(b"1\r\nx\r\n")
            await served.until(lambda: ended)
            getattr(client, leave)()
            await served.until(lambda: len(ended) == 2)
            assert ended[1] == ("cancelled" if on else "by itself")
            await served.until(lambda: served.access)
            assert f'" {200 if where == "stream" else 499} ' in served.access[0]
            assert served.log() == []  # that a client leaves is no trouble of ours

    run(main())


def test_what_runs_behind_a_whole_response_goes_on(run: Any, serve: Any) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body"})
        await asyncio.sleep(0.3)
        ended.append("by itself")

    async def main() -> None:
        async with serve(app, lifespan="off", cancel_on_disconnect=True) as served:
            await served.ask(GET)
            await served.until(lambda: ended)

    run(main())


def test_starlette_with_middleware_is_cancelled_without_a_traceback(run: Any, serve: Any) -> None:
    ended: list[str] = []

    async def endpoint(request: Any) -> StreamingResponse:
        async def pieces() -> Any:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0.02)
            finally:
                ended.append("ended")

        return StreamingResponse(pieces())

    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=through)])
        async with serve(app, cancel_on_disconnect=True) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"1\r\nx\r\n")
            client.reset()
            await served.until(lambda: ended)
            await served.until(lambda: not served.server._context.serving.running)
            assert served.log() == []

    run(main())
