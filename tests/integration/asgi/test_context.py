"""Context variables: every request begins with what lifespan startup left, and with nothing of the request before it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import httpx
import pytest
from wsproto.events import TextMessage

from cavalcade.testing.websocket_http2 import H2WebSocket

started: contextvars.ContextVar[str] = contextvars.ContextVar("started", default="")
who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says what it finds in its context, and leaves its own name there, by every way there is."""
    if scope["type"] == "lifespan":
        await receive()
        started.set("in lifespan")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    found = [who.get(), started.get()]
    who.set(scope["path"])
    while (await receive()).get("more_body"):
        found.append(who.get())

    async def child() -> None:
        found.append(who.get())
        who.set("a task of " + scope["path"])

    await asyncio.create_task(child())
    await asyncio.to_thread(found.append, who.get())
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x" * 200_000, "more_body": True})
    found.append(who.get())
    own = {scope["path"]}
    good = found[:2] == ["nobody", "in lifespan"] and set(found[2:]) == own
    await send({"type": "http.response.body", "body": b"good" if good else repr(found).encode()})
    asyncio.get_running_loop().call_soon(who.set, "a callback of " + scope["path"])
    who.set("after " + scope["path"])


async def socket_app(scope: Any, receive: Any, send: Any) -> None:
    """The same for WebSockets: what it finds at the handshake and behind each message."""
    if scope["type"] != "websocket":
        await app(scope, receive, send)
        return
    found = [who.get(), started.get()]
    who.set("a WebSocket")
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        found.append(who.get())
        await send({"type": "websocket.send", "text": " ".join(found)})
        who.set("a WebSocket")


def request(path: str, body: int = 0) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {body}\r\n\r\n".encode() + b"b" * body


@pytest.mark.parametrize("body", [0, 10, 1_000_000])
def test_keep_alive_and_pipelining(run: Any, serve: Any, body: int) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            for number in range(3):
                await client.send(request(f"/{number}", body))
                assert (await client.response()).body.lstrip(b"x") == b"good"
            sending = asyncio.create_task(client.send(b"".join(request(f"/{number}", body) for number in range(10, 14))))
            for _ in range(4):
                assert (await client.response()).body.lstrip(b"x") == b"good"
            await sending

    run(main())


def test_connections_beside_each_other(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            answers = await asyncio.gather(*(served.ask(request(f"/{number}", 100_000)) for number in range(10)))
            assert {response.body.lstrip(b"x") for response in answers} == {b"good"}

    run(main())


@pytest.mark.parametrize("http2", [False, True])
def test_a_websocket_begins_with_nothing_of_the_requests_before_it_and_leaves_them_nothing(run: Any, serve: Any, http2: bool) -> None:
    """Over HTTP/2 it shares its connection with requests."""
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    async def main() -> None:
        async with serve(socket_app) as served:
            if http2:

                def talk() -> list[Any]:
                    with H2WebSocket(served.url, "/ws") as one, H2WebSocket(served.url, "/ws") as other:
                        for socket in (one, other, one):
                            socket.send(TextMessage("?"))
                        return [one.receive().data, other.receive().data]

                assert await asyncio.to_thread(talk) == ["nobody in lifespan a WebSocket"] * 2
            else:
                client = await served.connect()
                await client.send(request("/before", 100_000))
                assert (await client.response()).body.lstrip(b"x") == b"good"
                await client.send(b"GET /ws HTTP/1.1\r\nHost: test\r\n" + upgrade)
                assert (await client.head()).status == 101
                await client.send(b"\x81\x81\0\0\0\0?")
                assert (await client.until(b"a WebSocket")).endswith(b"nobody in lifespan a WebSocket")
            assert (await served.ask(request("/after", 10))).body.lstrip(b"x") == b"good"

    run(main())


def test_streams_of_one_http2_connection(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
                answers = await asyncio.gather(*(client.post(f"/{number}", content=b"b" * 100_000) for number in range(10)))
                assert {response.content.lstrip(b"x") for response in answers} == {b"good"}

    run(main())
