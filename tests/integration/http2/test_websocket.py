"""WebSockets as streams of HTTP/2 (RFC 8441), many on one connection; the client's frames are made by wsproto."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from cavalcade import limits
from cavalcade.testing.http2 import GET

ENABLE_CONNECT_PROTOCOL = 8

CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":path", b"/ws?a=b"),
    (b":authority", b"test"),
    (b"sec-websocket-version", b"13"),
]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"plain"})
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None), "headers": [(b"x-y", b"z")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


class Socket:
    """The client's end of one WebSocket."""

    def __init__(self, client: Any, stream_id: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.frames = FrameProtocol(client=True, extensions=[])
        self.answer = client.peer.answer(stream_id)
        self.got: list[Any] = []
        self._seen = 0

    async def open(self, fields: Any = CONNECT) -> None:
        await self.client.send(self.client.peer.request(self.stream_id, fields, end=False))
        await self.client.until(lambda: self.answer.fields)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        for at in range(0, max(len(data), 1), 16384):
            piece = data[at : at + 16384]
            await self.client.send(self.client.peer.data(self.stream_id, piece, end=end and at + 16384 >= len(data)))

    async def text(self, text: str) -> None:
        await self.send(self.frames.send_data(text, True))

    def read(self) -> list[Any]:
        data = self.answer.body[self._seen :]
        self._seen = len(self.answer.body)
        self.frames.receive_bytes(data)
        self.got += self.frames.received_frames()
        return self.got

    async def message(self) -> Any:
        await self.client.until(lambda: self.read() and self.got[0].message_finished)
        return self.got.pop(0)


def test_accepted_it_echoes_beside_plain_requests(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await echo(scope, receive, send)

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            assert client.peer.settings[ENABLE_CONNECT_PROTOCOL] == 1
            sockets = [Socket(client, number) for number in (1, 3, 5)]
            for socket in sockets:
                await socket.open([*CONNECT, (b"sec-websocket-protocol", b"chat, talk")])
                assert socket.answer.status == 200
                names = dict(socket.answer.fields)
                assert (names[b"sec-websocket-protocol"], names[b"x-y"]) == (b"chat", b"z")
                assert b"sec-websocket-accept" not in names
            scope = scopes[0]
            assert {key: scope[key] for key in ("type", "http_version", "scheme", "path", "query_string", "subprotocols")} == {
                "type": "websocket",
                "http_version": "2",
                "scheme": "ws",
                "path": "/ws",
                "query_string": b"a=b",
                "subprotocols": ["chat", "talk"],
            }
            assert scope["headers"][0] == (b"host", b"test")
            for socket in sockets:
                await socket.text(f"hello {socket.stream_id}")
            for socket in sockets:
                assert (await socket.message()).payload == f"hello {socket.stream_id}"
            assert (await client.ask(7, GET)).body == b"plain"
            await sockets[0].send(sockets[0].frames.close(CloseReason.NORMAL_CLOSURE, "done"), end=True)
            await client.over(1)
            (close,) = sockets[0].read()
            assert (close.opcode, close.payload[0]) == (Opcode.CLOSE, 1000)
            assert sockets[0].answer.ended
            await served.until(lambda: len(served.server._context.serving.websockets) == 2)
            client.wire.close()
            await served.until(lambda: not served.server._context.serving.websockets)
            assert 'CONNECT /ws?a=b HTTP/2" 200' in served.access[0]
            assert served.log() == []

    run(main())


def test_large_messages_both_ways_with_compression(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await speak(served, settings={4: 2**31 - 1})
            peer = client.peer
            await client.send(peer.window(0, 2**30))
            deflate = PerMessageDeflate()
            socket = Socket(client, 1)
            await socket.open([*CONNECT, (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")])
            assert deflate.finalize(dict(socket.answer.fields)[b"sec-websocket-extensions"].decode()) is None
            socket.frames = FrameProtocol(client=True, extensions=[deflate])
            text = "0123456789abcdef" * 100_000
            await socket.text(text)
            received = ""
            while len(received) < len(text):
                await client.until(socket.read)
                received += "".join(frame.payload for frame in socket.got)
                socket.got.clear()
            assert received == text

    run(main())


def test_an_app_that_does_not_read_makes_the_client_wait(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            count = 0
            while (await receive())["type"] == "websocket.receive":
                count += 1
                if count == 200:
                    await send({"type": "websocket.send", "text": str(count)})

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            socket = Socket(client, 1)
            await socket.open()
            sent = 0
            message = 16_000
            while sent + message + 8 <= limits.H2_STREAM_WINDOW_BYTES + peer.windows.get(1, 0):
                data = socket.frames.send_data(b"x" * message, True)
                sent += len(data)
                await socket.send(data)
                await asyncio.sleep(0.01)
                peer.take(client.wire.waiting())
                client.wire.buffer = b""
                assert sent < 199 * (message + 8)
            go.set()
            while sent < 200 * (message + 8):
                room = sent + message + 8
                await client.until(lambda room=room: limits.H2_STREAM_WINDOW_BYTES + peer.windows.get(1, 0) >= room)
                await socket.send(data := socket.frames.send_data(b"x" * message, True))
                sent += len(data)
            assert (await socket.message()).payload == "200"

    run(main())


@pytest.mark.parametrize("how", ["close", "response"])
def test_denied_it_is_a_plain_response(run: Any, serve: Any, speak: Any, how: str) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if how == "close":
                await send({"type": "websocket.close"})
            else:
                await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"y")]})
                await send({"type": "websocket.http.response.body", "body": b"no"})

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            socket = Socket(client, 1)
            await socket.open()
            answer = await client.over(1)
            assert (answer.status, answer.body) == ((403, b"") if how == "close" else (401, b"no"))
            await client.until(lambda: answer.reset is not None)
            assert answer.reset == 0
            assert not served.server._context.connections.copy().pop().engine.streams

    run(main())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (CONNECT[:-1], 426),
        ([*CONNECT[:-1], (b"sec-websocket-version", b"8")], 426),
        ([*CONNECT, (b"sec-websocket-protocol", b"a b")], 400),
        ([(name, b"connect-udp" if name == b":protocol" else value) for name, value in CONNECT], 501),
    ],
)
def test_handshakes_that_may_not_be(run: Any, serve: Any, speak: Any, fields: Any, status: int) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await speak(served)
            await client.send(client.peer.request(1, fields, end=False))
            answer = await client.over(1)
            assert answer.status == status
            assert (await client.ask(3, GET)).body == b"plain"
            assert len(served.log()) == 1

    run(main())


@pytest.mark.parametrize("how", ["reset", "end", "lost"])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_client_that_is_gone_is_a_disconnect(run: Any, serve: Any, speak: Any, how: str, accepted: bool) -> None:
    async def main() -> None:
        told: list[Any] = []
        there = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if accepted:
                await send({"type": "websocket.accept"})
            there.set()
            told.append(await receive())

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            socket = Socket(client, 1)
            await client.send(client.peer.request(1, CONNECT, end=False))
            await there.wait()
            if how == "reset":
                await client.send(client.peer.rst(1))
            elif how == "end" and accepted:
                await client.until(lambda: socket.answer.fields)
                await socket.send(b"", end=True)
            else:
                client.wire.close()
            await served.until(lambda: told)
            assert told[0]["type"] == "websocket.disconnect"
            assert told[0]["code"] == 1006
            await served.until(lambda: not served.server._context.serving.running)

    run(main())


def test_a_frame_that_breaks_the_rules_closes_its_stream_only(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await speak(served)
            socket = Socket(client, 1)
            await socket.open()
            await socket.send(b"\x81\x05hello")  # not masked
            await client.until(socket.read)
            assert (socket.got[0].opcode, socket.got[0].payload[0]) == (Opcode.CLOSE, 1002)
            assert (await client.ask(3, GET)).body == b"plain"

    run(main())


@pytest.mark.parametrize("how", ["bomb", "too long"])
def test_a_message_over_the_limit_closes_its_stream_only(run: Any, serve: Any, speak: Any, how: str) -> None:
    """A few kilobytes that permessage-deflate would make eight megabytes of, and a message that is that long as it is."""

    async def main() -> None:
        told: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await echo(scope, receive, send)
                return
            await receive()
            await send({"type": "websocket.accept"})
            told.append(await receive())

        async with serve(app, lifespan="off", ws_max_size=65536) as served:
            client = await speak(served)
            socket = Socket(client, 1)
            if how == "bomb":
                deflate = PerMessageDeflate()
                await socket.open([*CONNECT, (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")])
                deflate.finalize(dict(socket.answer.fields)[b"sec-websocket-extensions"].decode())
                socket.frames = FrameProtocol(client=True, extensions=[deflate])
                data = socket.frames.send_data(b"\0" * (8 << 20), True)
                assert len(data) < 16384
            else:
                await socket.open()
                data = socket.frames.send_data(b"x" * 65537, True)[: limits.H2_STREAM_WINDOW_BYTES]
            await socket.send(data)
            await client.until(socket.read)
            assert (socket.got[0].opcode, socket.got[0].payload[0]) == (Opcode.CLOSE, 1009)
            await served.until(lambda: told)
            assert (told[0]["type"], told[0]["code"]) == ("websocket.disconnect", 1009)
            assert (await client.ask(3, GET)).body == b"plain"

    run(main())


def test_codes_and_reasons_of_a_close_reach_the_other_side(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        told: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            if scope["query_string"]:
                told.append(await receive())
            else:
                await send({"type": "websocket.close", "code": 4001, "reason": "said by the app"})

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            first, second = Socket(client, 1), Socket(client, 3)
            await first.open()
            await first.send(first.frames.close(4002, "said by the client"), end=True)
            await client.over(1)
            assert {key: told[0][key] for key in ("type", "code", "reason")} == {
                "type": "websocket.disconnect",
                "code": 4002,
                "reason": "said by the client",
            }
            assert (first.read()[0].opcode, first.got[0].payload[0]) == (Opcode.CLOSE, 4002)
            await second.open([(name, b"/ws" if name == b":path" else value) for name, value in CONNECT])
            await client.until(second.read)
            assert (second.got[0].opcode, second.got[0].payload) == (Opcode.CLOSE, (4001, "said by the app"))
            await second.send(second.frames.close(4001), end=True)
            await client.over(3)

    run(main())


def test_a_stop_closes_them_with_their_code_and_then_the_connection(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await speak(served)
            socket = Socket(client, 1)
            await socket.open()
            await socket.text("hello")
            assert (await socket.message()).payload == "hello"
            stopping = asyncio.ensure_future(served.server.stop(5.0))
            await client.until(socket.read)
            assert socket.got[0].opcode == Opcode.CLOSE
            assert socket.got[0].payload[0] in (1001, 1012)
            await socket.send(socket.frames.close(socket.got[0].payload[0]), end=True)
            await client.rest()
            assert client.peer.goaways == [(2**31 - 1, 0, b""), (1, 0, b"")]
            client.wire.close()
            assert await stopping == []

    run(main())


def test_without_websockets_they_are_not_offered(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws="none") as served:
            client = await speak(served)
            assert client.peer.settings[ENABLE_CONNECT_PROTOCOL] == 0
            await client.send(client.peer.request(1, CONNECT, end=False))
            assert (await client.over(1)).status == 501

    run(main())
