"""The same over TLS, where every byte goes through another layer: rules broken under a flood, backpressure, and leaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

ACCEPT = {"type": "websocket.accept"}


def open_tls(served: Any, authority: Any, **options: Any) -> Any:
    return connect(served.url.replace("https://", "wss://"), ssl=authority.client(), **options)


async def closed(client: ClientConnection) -> tuple[int, str]:
    """The server's Close: there must be one."""
    while True:
        try:
            await asyncio.wait_for(client.recv(), 10)
        except websockets.ConnectionClosed as error:
            rcvd = error.rcvd
            break
    assert rcvd is not None, "cut off without a Close"
    return rcvd.code, rcvd.reason


def test_a_close_is_read_though_the_client_is_in_the_middle_of_a_flood(run: Any, serve: Any, echo: Any, told: Any, authority: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_max_size=1000, **authority.pair.options) as served:
            async with open_tls(served, authority) as client:
                client.transport.write(b"\x82\xff" + (5_000_000).to_bytes(8, "big") + bytes(4) + b"x" * 5_000_000)
                assert (await closed(client))[0] == 1009
            assert (await told.disconnected())["code"] == 1009

    run(main())


def test_both_sides_wait_for_the_slower_one(run: Any, serve: Any, authority: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()
        taken = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal taken
            await receive()
            await send(ACCEPT)
            await go.wait()
            while (message := await receive())["type"] == "websocket.receive":
                taken += 1
                await send({"type": "websocket.send", "bytes": message["bytes"]})

        async with serve(app, lifespan="off", ws_max_queue=4, **authority.pair.options) as served:
            async with open_tls(served, authority, compression=None) as client:

                async def talk() -> None:
                    for _ in range(200):
                        await client.send(b"x" * 100_000)

                talking = asyncio.create_task(talk())
                (call,) = served.server._context.serving.websockets
                await served.until(lambda: call.starved)
                await asyncio.sleep(0.1)
                assert not talking.done()
                assert len(call.messages) <= 4
                go.set()
                for _ in range(200):
                    assert len(await client.recv()) == 100_000
                await talking

    run(main())


@pytest.mark.parametrize(("last", "code"), [(True, 1001), (False, 1012)])
def test_leaving(run: Any, serve: Any, echo: Any, authority: Any, last: bool, code: int) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served, open_tls(served, authority) as client:
            await client.send("answered")
            assert await client.recv() == "answered"
            stopping = asyncio.create_task(served.server.stop(30.0, last=last))
            assert (await closed(client))[0] == code
            await asyncio.wait_for(stopping, 20)

    run(main())


def test_an_end_without_a_close_is_1006(run: Any, serve: Any, echo: Any, told: Any, authority: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:
            client = await open_tls(served, authority)
            client.transport.abort()
            assert (await told.disconnected())["code"] == 1006
            await served.until_gone()

    run(main())
