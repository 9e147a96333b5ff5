"""What a stop does to responses that stream: they can see it coming, are told, and only then cut."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

GET = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def piece(send: Any, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def test_a_stream_that_watches_the_extension_ends_itself_whole(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await piece(send, b"first ")
        await scope["extensions"]["cavalcade.draining"].wait()
        await piece(send, b"last", more=False)

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"first ")
            assert await served.server.stop(30.0) == []
            assert (await client.rest()).endswith(b"0\r\n\r\n")

    run(main())


def test_the_extension_is_not_set_while_the_server_serves(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await piece(send, str(scope["extensions"]["cavalcade.draining"].is_set()).encode(), more=False)

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.response()).body == b"False"

    run(main())


def test_a_stream_that_waits_in_receive_is_told_and_may_return(run: Any, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(HEAD)
        await piece(send, b"first ")
        told.append(await receive())
        await piece(send, b"goodbye ")  # it is the server that leaves, not the client: this still goes out

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"first ")
            began = asyncio.get_running_loop().time()
            assert await served.server.stop(4.0) == []
            assert asyncio.get_running_loop().time() - began < 3.6  # told after 30 %, not at the end
            rest = await client.rest()
            assert b"goodbye " in rest
            assert not rest.endswith(b"0\r\n\r\n")  # and the client can tell that it is not whole

    run(main())
    assert told == [{"type": "http.disconnect"}]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_plain_request_in_flight_is_not_told(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 1.2)  # beyond the notice at 0.9 s
        await send(HEAD)
        await piece(send, b"whole", more=False)

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            stopping = asyncio.ensure_future(served.server.stop(3.0))
            assert (await client.response()).body == b"whole"
            assert await stopping == []

    run(main())


def test_what_is_left_at_the_deadline_is_cancelled_and_named(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await piece(send, b"first ")
        await asyncio.Event().wait()

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"first ")
            assert await served.server.stop(0.5) == ["GET /events"]

    run(main())
