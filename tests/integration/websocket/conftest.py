"""A WebSocket client of raw frames, for what no decent client can be made to send. Nothing of the server, or of a library, is used."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3: the answer to this key
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x01\x02\x03\x04") -> bytes:
    """One frame; `mask=None` leaves it unmasked, which a client must not."""
    first = (fin << 7) | (rsv << 4) | opcode
    masked = 0 if mask is None else 128
    size = len(payload)
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask)))


def handshake(path: str = "/", *fields: bytes, key: bytes = KEY) -> bytes:
    lines = [b"GET %b HTTP/1.1" % path.encode(), b"Host: test", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, b"Sec-WebSocket-Key: " + key, b"Sec-WebSocket-Version: 13", *fields, b"", b""])


@dataclass
class Frame:
    opcode: int
    payload: bytes
    fin: bool
    rsv: int

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a Close; 1005 where it has none."""
        assert self.opcode == CLOSE, self
        return (struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()) if self.payload else (1005, "")


class Peer:
    """The client's end of a WebSocket. `answer` is the server's 101."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.answer: Any = None

    async def send(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        await self.wire.send(frame(opcode, payload, **how))

    async def frame(self) -> Frame:
        """The next frame. It must be as a server's frames are: not masked, its length in the shortest form."""
        first, size = await self.wire.take(2)
        assert size < 128, "a masked frame from a server"
        if size == 126:
            (size,) = struct.unpack("!H", await self.wire.take(2))
            assert size > 125
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.wire.take(8))
            assert size > 65535
        return Frame(first & 15, await self.wire.take(size), bool(first & 128), first >> 4 & 7)

    async def text(self) -> str:
        got = await self.frame()
        assert (got.opcode, got.fin, got.rsv) == (TEXT, True, 0), got
        return got.payload.decode()

    async def closed(self) -> tuple[int, str]:
        """The server's Close, which must be the next frame."""
        return (await self.frame()).close

    async def end(self) -> tuple[int, str]:
        """The server's Close, answered; then the server must end the connection, without a reset."""
        got = await self.frame()
        code = got.close
        await self.send(CLOSE, got.payload)
        assert await self.wire.rest() == b""
        assert self.wire.ended == "closed"
        return code


@pytest.fixture
def peer() -> Callable[..., Coroutine[Any, Any, Peer]]:
    """Open a WebSocket: `await peer(served, path, *more_fields)`."""

    async def connect(served: Any, path: str = "/", *fields: bytes, **options: Any) -> Peer:
        peer = Peer(await served.connect(**options))
        await peer.wire.send(handshake(path, *fields))
        peer.answer = await peer.wire.head()
        assert peer.answer.status == 101, peer.answer
        return peer

    return connect


@pytest.fixture
def raw() -> Any:
    """What the tests build their bytes with."""

    class Raw:
        CONT, TEXT, BINARY, CLOSE, PING, PONG = CONT, TEXT, BINARY, CLOSE, PING, PONG
        KEY, ACCEPT = KEY, ACCEPT
        frame = staticmethod(frame)
        handshake = staticmethod(handshake)

    return Raw


class Told(list[Any]):
    """What the app was told, in order."""

    async def disconnected(self, timeout_s: float = 10.0) -> dict[str, Any]:
        """The websocket.disconnect that the app got."""
        for _ in range(int(timeout_s / 0.005)):
            if self and self[-1]["type"] == "websocket.disconnect":
                return self[-1]
            await asyncio.sleep(0.005)
        raise AssertionError(f"never disconnected: {self}")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def echo(told: Told) -> Any:
    """An app that sends back what it gets, and keeps what it was told."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket", scope
        told.append(await receive())
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            told.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})

    return app
