"""Messages both ways, with a client of our own frames and with two clients by other authors."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Pong, Request, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.extensions import PerMessageDeflate

SIZES = [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 300_000]


def url(served: Any) -> str:
    return str(served.url).replace("http", "ws")


@pytest.mark.parametrize("deflate", [None, "deflate"])
def test_websockets_sends_and_gets_messages_of_every_length(run: Any, serve: Any, echo: Any, deflate: str | None) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            async with websockets.connect(url(served), compression=deflate) as client:
                for size in SIZES:
                    text, data = "é" * (size // 2) + "x" * (size % 2), os.urandom(size)
                    await client.send(text)
                    await client.send(data)
                    assert await client.recv() == text
                    assert await client.recv() == data
                await asyncio.wait_for(await client.ping(), 10)
            assert client.close_code == 1000

    run(main())


@pytest.mark.parametrize("deflate", [None, "deflate"])
def test_fragments_are_put_together(run: Any, serve: Any, echo: Any, deflate: str | None) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served, websockets.connect(url(served), compression=deflate) as client:
            await client.send(["frag", "", "men", "té" * 300])
            assert await client.recv() == "fragmen" + "té" * 300
            await client.send([b"", b"a" * 70_000, b"b"])
            assert await client.recv() == b"a" * 70_000 + b"b"

    run(main())


@pytest.mark.parametrize("deflate", [False, True])
def test_wsproto_speaks_with_it(run: Any, serve: Any, echo: Any, deflate: bool) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            wire = await served.connect()
            client = WSConnection(ConnectionType.CLIENT)
            events: list[Any] = []

            async def until(kind: type) -> Any:
                while True:
                    events.extend(client.events())
                    for at, event in enumerate(events):
                        if isinstance(event, kind):
                            return events.pop(at)
                    assert await wire.fill()
                    client.receive_data(wire.buffer)
                    wire.buffer = b""

            extensions = [PerMessageDeflate()] if deflate else []
            await wire.send(client.send(Request(host="test", target="/", extensions=extensions)))
            accepted = await until(AcceptConnection)
            assert bool(accepted.extensions) == deflate
            for size in SIZES[1:]:
                await wire.send(client.send(TextMessage("x" * size)))
                text = ""
                while len(text) < size:
                    text += (await until(TextMessage)).data
                assert text == "x" * size
            await wire.send(client.send(BytesMessage(b"bytes")))
            assert (await until(BytesMessage)).data == b"bytes"
            await wire.send(client.send(WsprotoPing(b"are you there")))
            assert (await until(Pong)).payload == b"are you there"
            await wire.send(client.send(CloseConnection(4000, "enough")))
            closed = await until(CloseConnection)
            assert (closed.code, closed.reason) == (4000, "enough")

    run(main())


def test_messages_are_whole_however_the_bytes_come(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    messages = ["", "a", "é" * 62, "b" * 126, "c" * 4000, "d" * 70_000]
    data = b""
    for at, text in enumerate(messages):
        data += raw.frame(raw.TEXT, text.encode())
        if at % 2:
            data += raw.frame(raw.TEXT, text.encode()[:1], fin=False) + raw.frame(raw.PING, b"p") + raw.frame(raw.CONT, text.encode()[1:])
    expected = [text for at, text in enumerate(messages) for _ in range(1 + at % 2)]

    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            for seed in range(6):
                cut = random.Random(seed)
                client = await peer(served)
                sending = asyncio.create_task(pieces(client.wire, cut))
                got: list[str] = []
                pongs = 0
                while len(got) < len(expected):
                    frame = await client.frame()
                    if frame.opcode == raw.PONG:
                        pongs += 1
                    else:
                        got.append(frame.payload.decode())
                await sending
                assert got == expected
                assert pongs == len(expected) - len(messages)

    async def pieces(wire: Any, cut: random.Random) -> None:
        at = 0
        while at < len(data):
            size = cut.choice([1, 2, 3, 7, 100, 20_000])
            await wire.send(data[at : at + size])
            at += size
            await asyncio.sleep(0)

    run(main())


def test_what_came_before_the_handshake_was_answered_is_read(run: Any, serve: Any, echo: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake() + raw.frame(raw.TEXT, b"early"))
            assert (await wire.head()).status == 101
            assert await wire.take(7) == b"\x81\x05early"

    run(main())


def test_more_messages_than_are_read_ahead_all_come_in_order(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_max_queue=3) as served:
            client = await peer(served)
            await client.wire.send(b"".join(raw.frame(raw.TEXT, b"%d" % number) for number in range(1000)))
            assert [await client.text() for _ in range(1000)] == [str(number) for number in range(1000)]
            await client.send(raw.CLOSE)
            assert await client.closed() == (1005, "")

    run(main())


def test_one_write_carries_the_answers_to_one_read(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            await client.wire.send(b"".join(raw.frame(raw.TEXT, b"%2d" % number) for number in range(16)))
            await client.wire.fill()
            assert len(client.wire.buffer) == 16 * 4

    run(main())


def test_a_short_message_is_not_compressed_and_a_long_one_is(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served, "/", b"Sec-WebSocket-Extensions: permessage-deflate")
            assert "no_context_takeover" in client.answer.header("sec-websocket-extensions")
            for size, compressed in ((10, False), (5000, True)):
                await client.send(raw.TEXT, b"x" * size)
                frame = await client.frame()
                assert bool(frame.rsv) == compressed
                assert (len(frame.payload) < size) == compressed

    run(main())


def test_compression_can_be_switched_off(run: Any, serve: Any, echo: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_per_message_deflate=False) as served, websockets.connect(url(served)) as client:
            assert "Sec-WebSocket-Extensions" not in client.response.headers

    run(main())


def test_a_client_that_cannot_limit_its_window_is_served(run: Any, serve: Any, echo: Any) -> None:
    async def main() -> None:
        offer = [ClientPerMessageDeflateFactory(client_max_window_bits=None)]
        async with serve(echo, lifespan="off") as served:
            async with websockets.connect(url(served), extensions=offer, compression=None) as client:
                text = "".join(random.Random(1).choices("abcdef", k=50_000))
                await client.send(text)
                assert await client.recv() == text

    run(main())
