"""Backpressure both ways, and signs of life."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

ACCEPT = {"type": "websocket.accept"}
KIB = 1024


def call_of(served: Any) -> Any:
    (call,) = served.server._context.serving.websockets
    return call


@pytest.mark.parametrize("size", [10, 5000, 100_000])
def test_an_app_that_does_not_read_makes_the_client_wait(run: Any, serve: Any, peer: Any, raw: Any, size: int) -> None:
    count = 40_000_000 // size if size > 100 else 1_000_000

    async def main() -> None:
        go = asyncio.Event()
        taken = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal taken
            await send(ACCEPT)
            await go.wait()
            await receive()
            while (await receive())["type"] == "websocket.receive":
                taken += 1

        async with serve(app, lifespan="off", ws_max_queue=8) as served:
            client = await peer(served)
            call = call_of(served)
            sending = asyncio.create_task(client.wire.send(raw.frame(raw.BINARY, b"x" * size) * count))
            await served.until(lambda: call.starved)
            await asyncio.sleep(0.1)
            assert not sending.done()
            assert len(call.messages) <= 8
            assert len(call.engine.data) < 1024 * KIB
            go.set()
            await sending
            await client.send(raw.CLOSE)
            assert await client.closed() == (1005, "")
            assert taken == count

    run(main())


def test_a_client_that_does_not_read_makes_send_wait(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        sent = 0
        over = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal sent
            await send(ACCEPT)
            while sent < 2000:
                await send({"type": "websocket.send", "bytes": b"x" * 10_000})
                sent += 1
                await asyncio.sleep(0)
            over.set()

        async with serve(app, lifespan="off", ws_ping_interval=0) as served:
            client = await peer(served, receive_buffer=4096)
            call = call_of(served)
            await served.until(lambda: call.pipe.write_paused)
            await asyncio.sleep(0.1)
            before = sent
            await asyncio.sleep(0.1)
            assert sent == before
            assert call.pipe.transport.get_write_buffer_size() + call.engine.out_bytes < 512 * KIB
            for _ in range(2000):
                assert len((await client.frame()).payload) == 10_000
            await over.wait()

    run(main())


def test_small_messages_that_nobody_takes_do_not_pile_up(run: Any, serve: Any, peer: Any) -> None:
    """Each is far below any mark, and the loop turns between them."""

    async def main() -> None:
        sent = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal sent
            await send(ACCEPT)
            while True:
                await send({"type": "websocket.send", "text": "x" * 100})
                sent += 1
                if sent % 100 == 0:
                    await asyncio.sleep(0)

        async with serve(app, lifespan="off") as served:
            await peer(served, receive_buffer=4096)
            call = call_of(served)
            await served.until(lambda: call.pipe.write_paused)
            await asyncio.sleep(0.1)
            before = sent
            await asyncio.sleep(0.1)
            assert sent == before

    run(main())


def test_a_client_that_leaves_while_send_waits_ends_the_wait(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        ends: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 50_000})
            except OSError as error:
                ends.append(error)
            assert (await receive())["type"] == "websocket.connect"
            assert (await receive())["code"] == 1006

        async with serve(app, lifespan="off") as served:
            client = await peer(served, receive_buffer=4096)
            call = call_of(served)
            await served.until(lambda: call.pipe.write_paused)
            client.wire.reset()
            await served.until(lambda: ends)
            await served.until_gone()

    run(main())


@pytest.mark.slow
def test_a_client_that_takes_nothing_is_cut_off_after_the_write_timeout(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        ends: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 50_000})
            except OSError as error:
                ends.append(error)

        async with serve(app, lifespan="off", write_timeout=0.5) as served:
            await peer(served, receive_buffer=4096)
            await served.until(lambda: ends)
            await served.until_gone()
            assert "write_timeout" in served.log()[0]

    run(main())


def test_one_connection_that_floods_does_not_hold_up_another(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            flood, other = await peer(served), await peer(served)

            async def read() -> None:
                while await flood.wire.fill():
                    flood.wire.buffer = b""

            reading = asyncio.create_task(read())
            sending = asyncio.create_task(flood.wire.send(raw.frame(raw.TEXT, b"x") * 300_000))
            waits = []
            while not sending.done():
                began = time.perf_counter()
                await other.send(raw.TEXT, b"hello")
                assert await other.text() == "hello"
                waits.append(time.perf_counter() - began)
            assert sorted(waits)[len(waits) // 2] < 0.5
            await sending
            reading.cancel()

    run(main())


# -- signs of life -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_silent_client_is_pinged_and_closed_when_it_does_not_answer(
    run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any
) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_ping_interval=0.5, ws_ping_timeout=0.5) as served:
            client = await peer(served)
            assert (await client.frame()).opcode == raw.PING
            assert await client.closed() == (1011, "keepalive ping timeout")
            assert await client.wire.rest() == b""
            assert await told.disconnected() == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}
            assert "did not answer a ping within 0.5 s (ws_ping_timeout)" in served.log()[0]
            await served.until_gone()

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["pong", "message", "half a frame"])
def test_whatever_comes_is_a_sign_of_life(run: Any, serve: Any, echo: Any, peer: Any, raw: Any, answer: str) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_ping_interval=0.5, ws_ping_timeout=5) as served:
            client = await peer(served)
            pings = 0
            while pings < 3:
                frame = await client.frame()
                if frame.opcode == raw.PING:
                    pings += 1
                    if answer == "pong":
                        await client.send(raw.PONG, frame.payload)
                    elif answer == "message":
                        await client.send(raw.TEXT, b"x")
                    elif pings < 3:
                        await client.wire.send(b"\x81\xff" if pings == 1 else b"\0")
                else:
                    assert frame.opcode == raw.TEXT
            assert served.log() == []

    run(main())


@pytest.mark.slow
def test_an_app_that_does_not_read_is_not_taken_for_a_dead_client(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    """Its socket is paused, so no pong could be seen."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await asyncio.sleep(2.5)
            await receive()
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})

        async with serve(app, lifespan="off", ws_ping_interval=0.5, ws_ping_timeout=0.5, ws_max_queue=1) as served:
            client = await peer(served)
            await client.wire.send(raw.frame(raw.TEXT, b"x") * 3)
            for _ in range(3):
                assert await client.text() == "x"

    run(main())


@pytest.mark.slow
def test_a_loop_that_stood_still_is_no_reason_to_close(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    """The pong has come meanwhile, it was only not read."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await receive()
            while (message := await receive())["type"] == "websocket.receive":
                time.sleep(2.5)
                await send({"type": "websocket.send", "text": message["text"]})

        async with serve(app, lifespan="off", ws_ping_interval=0.5, ws_ping_timeout=1.0) as served:
            client = await peer(served)
            assert (await client.frame()).opcode == raw.PING
            await client.wire.send(raw.frame(raw.TEXT, b"block") + raw.frame(raw.PONG))
            assert await client.text() == "block"
            assert (await client.frame()).opcode == raw.PING
            await client.send(raw.PONG)
            assert served.log() == []

    run(main())


@pytest.mark.slow
def test_pings_can_be_switched_off(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_ping_interval=0) as served:
            client = await peer(served)
            await asyncio.sleep(1.6)
            assert client.wire.waiting() == b""
            await client.send(raw.TEXT, b"x")
            assert await client.text() == "x"

    run(main())
