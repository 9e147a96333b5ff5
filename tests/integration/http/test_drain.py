"""What a connection sees when its server leaves, with nobody to hand it over to."""

from __future__ import annotations

import asyncio
import os
from typing import Any

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Gated:
    """An app that answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


async def stopping(served: Any) -> Any:
    """Begin to stop the server; returns when it drains."""
    task = asyncio.ensure_future(served.server.stop())
    await served.until(lambda: served.server._context.draining)
    return task


def test_a_running_request_is_finished_and_says_that_it_is_the_last(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await served.until(lambda: served.server._context.serving.running)
            stop = await stopping(served)
            app.gate.set()
            response = await client.response()
            assert (response.status, response.header("connection")) == (200, "close")
            assert await client.rest() == b""
            assert client.ended == "closed"
            assert await stop == []

    run(main())


def test_an_idle_connection_is_closed_at_once(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        app.gate.set()
        async with serve(app, lifespan="off", graceful_timeout=30.0) as served:
            client = await served.connect()
            await client.send(GET)
            await client.response()
            stop = await stopping(served)
            assert await client.rest() == b""
            assert client.ended == "closed"
            assert await asyncio.wait_for(stop, 10) == []

    run(main())


def test_what_is_there_unread_when_an_idle_connection_is_given_up_is_answered(run: Any, serve: Any) -> None:
    """At a stop, or where nobody can take it over."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.response()).status == 200
            os.write(client.sock.fileno(), GET)
            served.server.announce_stop()
            for connection in tuple(served.server._context.connections):
                connection.close_idle()  # before the loop has turned
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"done", "close")
            assert await client.rest() == b""

    run(main())


def test_half_a_head_is_still_answered(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        app.gate.set()
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET[:20])
            await served.until(lambda: any(connection.engine.head_bytes for connection in served.server._context.connections))
            stop = await stopping(served)
            await client.send(GET[20:])
            response = await client.response()
            assert (response.status, response.header("connection")) == (200, "close")
            assert await client.rest() == b""
            assert await stop == []

    run(main())


def test_a_response_that_has_begun_is_finished(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun,", "more_body": True})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"done"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"begun,\r\n")
            stop = await stopping(served)
            gate.set()
            assert await client.rest() == b"4\r\ndone\r\n0\r\n\r\n"
            assert client.ended == "closed"
            assert await stop == []

    run(main())


def test_a_body_on_its_way_is_read_to_its_end(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
            await served.until(lambda: served.server._context.serving.running)
            stop = await stopping(served)
            await client.send(b"def")
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"abcdef", "close")
            assert await stop == []

    run(main())


def test_pipelined_requests_behind_the_running_one_are_not_begun(run: Any, serve: Any) -> None:
    """The response before them says that the connection ends: the client knows that they were not served."""

    async def main() -> None:
        app = Gated()
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET * 3)
            await served.until(lambda: served.server._context.serving.running)
            stop = await stopping(served)
            app.gate.set()
            assert (await client.response()).header("connection") == "close"
            assert await client.rest() == b""
            assert await stop == []
            assert len(served.access) == 1

    run(main())


def test_a_client_that_takes_nothing_does_not_hold_up_the_stop(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x" * 20_000_000})

        async with serve(app, lifespan="off", graceful_timeout=0.4) as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            await client.head()
            began = asyncio.get_running_loop().time()
            await served.server.stop()
            assert asyncio.get_running_loop().time() - began < 8
            assert served.connections == 0 or await served.until(lambda: served.connections == 0)

    run(main())
