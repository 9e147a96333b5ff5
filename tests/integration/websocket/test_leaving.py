"""What a WebSocket sees when its worker leaves: a clean Close, after all that the app was working on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

ACCEPT = {"type": "websocket.accept"}
REASONS = {1001: "the server stops", 1012: "the server restarts, connect again"}


@pytest.mark.parametrize(("last", "code"), [(True, 1001), (False, 1012)])
def test_an_idle_websocket_is_closed_at_once(
    run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any, last: bool, code: int
) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            await client.send(raw.TEXT, b"answered")
            assert await client.text() == "answered"
            stopping = asyncio.create_task(served.server.stop(30.0, last=last))
            assert await client.end() == (code, REASONS[code])
            assert await asyncio.wait_for(stopping, 20) == []
            assert told[-1] == {"type": "websocket.disconnect", "code": code, "reason": REASONS[code]}

    run(main())


def test_messages_that_were_read_are_answered_before_the_close(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        working, go = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            while (message := await receive())["type"] == "websocket.receive":
                working.set()
                await go.wait()
                await send({"type": "websocket.send", "text": message["text"]})

        async with serve(app, lifespan="off", ws_max_queue=4) as served:
            client = await peer(served)
            await client.wire.send(b"".join(raw.frame(raw.TEXT, b"%d" % number) for number in range(50)))
            await working.wait()
            stopping = asyncio.create_task(served.server.stop(30.0, last=False))
            await served.until(lambda: served.server._context.draining)
            go.set()
            assert [await client.text() for _ in range(50)] == [str(number) for number in range(50)]
            assert (await client.end())[0] == 1012
            assert await asyncio.wait_for(stopping, 20) == []

    run(main())


def test_an_app_that_never_waits_for_the_client_is_closed_at_the_notice(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        ended: list[float] = []
        loop = asyncio.get_running_loop()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
                    await asyncio.sleep(0.01)
            finally:
                ended.append(loop.time())

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            began = loop.time()
            stopping = asyncio.create_task(served.server.stop(2.0))
            while (frame := await client.frame()).opcode != 8:
                assert frame.payload == b"tick"
            assert frame.close[0] == 1001
            assert await asyncio.wait_for(stopping, 20) == []
            assert 0.3 < ended[0] - began < 1.5

    run(main())


def test_an_app_that_watches_the_extension_says_its_own_goodbye(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await scope["extensions"]["cavalcade.draining"].wait()
            await send({"type": "websocket.send", "text": "see you"})
            await send({"type": "websocket.close", "code": 4100, "reason": "later"})

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            stopping = asyncio.create_task(served.server.stop(30.0))
            assert await client.text() == "see you"
            assert await client.end() == (4100, "later")
            await asyncio.wait_for(stopping, 20)

    run(main())


def test_an_app_that_does_not_return_is_cancelled_and_its_client_still_sees_the_code(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await asyncio.sleep(1000)

        async with serve(app, lifespan="off") as served:
            client = await peer(served, "/deaf")
            stopping = asyncio.create_task(served.server.stop(1.0, last=False))
            assert (await client.closed())[0] == 1012
            assert await asyncio.wait_for(stopping, 10) == ["WebSocket /deaf"]

    run(main())


def test_a_client_that_never_answers_our_close_does_not_hold_up_the_stop(run: Any, serve: Any, echo: Any, peer: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await asyncio.wait_for(served.server.stop(2.0), 10) == []
            assert loop.time() - began < 8.0
            assert (await client.closed())[0] == 1001
            assert await client.wire.rest() == b""

    run(main())


def test_a_handshake_that_is_under_way_is_let_through_and_then_closed(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            begun.set()
            await go.wait()
            await send(ACCEPT)
            assert (await receive())["code"] == 1012

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake())
            await begun.wait()
            stopping = asyncio.create_task(served.server.stop(30.0, last=False))
            await served.until(lambda: served.server._context.draining)
            go.set()
            assert (await wire.head()).status == 101
            assert (await wire.take(4))[2:] == (1012).to_bytes(2, "big")
            wire.close()
            await asyncio.wait_for(stopping, 10)

    run(main())
