"""A client of HTTP/2 frames on a real socket, and real clients by other authors."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cavalcade.testing.http2 import GET, Answer, Fields, Peer

WAIT_S = 30.0


class Client:
    """A `Peer` on one connection of a `Served`. It answers SETTINGS and PINGs by itself."""

    def __init__(self, wire: Any, peer: Peer) -> None:
        self.wire = wire
        self.peer = peer

    async def send(self, data: bytes) -> None:
        await self.wire.send(data)

    async def fill(self) -> bool:
        """Read once; False when the connection has ended."""
        if not await self.wire.fill():
            return False
        data, self.wire.buffer = self.wire.buffer, b""
        self.peer.take(data)
        if reply := self.peer.take_reply():
            await self.send(reply)
        return True

    async def until(self, fact: Callable[[], Any]) -> Any:
        """Read until something has come."""
        while not (value := fact()):
            assert await self.fill(), f"the connection was {self.wire.ended}: {self.peer.goaways} {self.peer.answers}"
        return value

    async def rest(self) -> None:
        """Read until the connection ends."""
        while await self.fill():
            pass

    async def over(self, stream_id: int) -> Answer:
        """The whole answer on a stream, or its reset."""
        answer = self.peer.answer(stream_id)
        await self.until(lambda: answer.over)
        return answer

    async def ask(self, stream_id: int, fields: Fields = GET, body: bytes | None = None) -> Answer:
        """One request and its answer."""
        data = self.peer.request(stream_id, fields, end=body is None)
        if body is not None:
            data += b"".join(self.peer.data(stream_id, body[at : at + 16384]) for at in range(0, len(body), 16384))
            data += self.peer.data(stream_id, b"", end=True)
        await self.send(data)
        return await self.over(stream_id)

    @property
    def ended(self) -> str:
        ended: str = self.wire.ended
        return ended


Speak = Callable[..., Awaitable[Client]]


@pytest.fixture
def speak() -> Speak:
    """Open a connection to a `Served` and begin to speak HTTP/2."""

    async def begin(served: Any, *, settings: dict[int, int] | None = None, pings: bool = True, **connect: Any) -> Client:
        wire = await served.connect(**connect)
        client = Client(wire, Peer(refuse_pings=not pings))
        await client.send(client.peer.start(settings))
        await client.until(lambda: client.peer.acks)
        return client

    return begin


@pytest.fixture
def command() -> Callable[..., Awaitable[bytes]]:
    """Run a real client in a process of its own; what it prints."""

    async def run(*argv: str, code: int = 0, stdin: bytes | None = None) -> bytes:
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed here; .ci/run installs it")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        out, errors = await asyncio.wait_for(process.communicate(stdin), 6 * WAIT_S)
        assert process.returncode == code, (process.returncode, errors[-2000:])
        return out

    return run
