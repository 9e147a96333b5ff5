"""A server in the test's own event loop, and a client that speaks to it in raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cavalcade.types import ASGIApp
from cavalcade.worker.server import Server

WAIT_S = 30.0  # for what is sure to come, on a machine that may be busy
RESET = struct.pack("ii", 1, 0)


class Truncated(Exception):
    """The connection ended before the response did."""


@dataclass
class Response:
    """One response, taken apart by rules of its own: nothing of the server is used."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The one value of a field, None where there is none."""
        values = [value for other, value in self.headers if other == name]
        assert len(values) < 2, values
        return values[0] if values else None


class Wire:
    """A client of raw bytes. `ended` is how the server ended the connection: "closed", "reset", or "" while it is open."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.ended = ""

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), WAIT_S)

    async def fill(self, size: int = 65536) -> bool:
        """Read once; False when the connection has ended."""
        if self.ended:
            return False
        try:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, size), WAIT_S)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "reset"
            return False
        if not data:
            self.ended = "closed"
        self.buffer += data
        return bool(data)

    def waiting(self) -> bytes:
        """What is there to read right now, without waiting for any."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(65536):
                self.buffer += data
        return self.buffer

    async def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not await self.fill():
                raise Truncated(f"{len(self.buffer)} bytes instead of {size}, then {self.ended}")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def until(self, marker: bytes) -> bytes:
        """Everything up to `marker`, which goes with it."""
        while marker not in self.buffer:
            if not await self.fill():
                raise Truncated(f"no {marker!r} in {self.buffer[:1000]!r}, then {self.ended}")
        return await self.take(self.buffer.index(marker) + len(marker))

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        while await self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    async def head(self) -> Response:
        """A response head. It must be exact: line ends, one space, no folding."""
        raw = await self.until(b"\r\n\r\n")
        first, *lines = raw[:-4].split(b"\r\n")
        match = re.fullmatch(rb"HTTP/(1\.1) ([0-9]{3}) ([ -~]*)", first)
        assert match, first
        headers = []
        for line in lines:
            name, colon, value = line.partition(b": ")
            assert colon, line
            assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name), line
            assert not re.search(rb"[\r\n\0]", value), line
            headers.append((name.decode().lower(), value.decode("latin-1")))
        return Response(int(match[2]), match[1].decode(), headers)

    async def response(self, method: str = "GET") -> Response:
        """A whole response, as RFC 9112 section 6.3 frames it. Raises `Truncated`."""
        interim = []
        while (response := await self.head()).status < 200:
            interim.append(response.status)
        response.interim = interim
        length, coding = response.header("content-length"), response.header("transfer-encoding")
        assert length is None or coding is None
        if method == "HEAD" or response.status in (204, 304):
            pass
        elif coding is not None:
            assert coding == "chunked"
            response.body = await self._chunks()
        elif length is not None:
            response.body = await self.take(int(length))
        else:
            assert response.header("connection") == "close"
            response.body = await self.rest()
            if self.ended != "closed":
                raise Truncated(f"{self.ended} after {len(response.body)} bytes")
        return response

    async def _chunks(self) -> bytes:
        body = []
        while size := int(await self.until(b"\r\n"), 16):
            body.append(await self.take(size))
            assert await self.take(2) == b"\r\n"
        assert await self.take(2) == b"\r\n"
        return b"".join(body)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Served:
    """A running server, and its clients."""

    def __init__(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        self.server = server
        self.url = server.url
        self._caplog = caplog
        self._clients: list[Wire] = []

    async def connect(self, *, receive_buffer: int = 0) -> Wire:
        """A new connection. With a small `receive_buffer` the kernel holds little of what this client does not read."""
        loop = asyncio.get_running_loop()
        if self.url.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            address: Any = self.url.removeprefix("unix:")
        else:
            sock = socket.socket()
            host, _, port = self.url.removeprefix("http://").partition(":")
            address = host, int(port)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.wait_for(loop.sock_connect(sock, address), WAIT_S)
        client = Wire(sock)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        client = await self.connect()
        await client.send(request)
        response = await client.response(method)
        client.close()
        return response

    @property
    def connections(self) -> int:
        """How many connections the server has."""
        context = self.server._context
        assert context is not None
        return len(context.connections)

    async def until(self, fact: Callable[[], Any], what: str = "") -> Any:
        """Wait for something to become true that nobody tells of."""
        for _ in range(int(WAIT_S / 0.005)):
            if value := fact():
                return value
            await asyncio.sleep(0.005)
        raise AssertionError(f"never came true: {what or fact}")

    async def until_gone(self) -> None:
        """Wait until the server has no connection any more."""
        await self.until(lambda: self.connections == 0, "no connection left")

    def log(self, logger: str = "cavalcade", level: int = logging.WARNING) -> list[str]:
        """What was logged so far, tracebacks left out."""
        records = self._caplog.records
        return [record.getMessage() for record in records if record.name == logger and record.levelno >= level]

    @property
    def access(self) -> list[str]:
        return self.log("cavalcade.access", logging.INFO)

    def close(self) -> None:
        for client in self._clients:
            client.close()


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Serve:
    """Serve an app. `errors` are patterns: exactly these lines of level error must be logged, in this order, and by nobody else
    any. So every test proves that nothing unexpected went wrong."""
    caplog.set_level(logging.INFO, "cavalcade")

    @contextlib.asynccontextmanager
    async def serve_app(app: ASGIApp, errors: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Served]:
        options = {"bind": "127.0.0.1:0", "graceful_timeout": 2.0, **options}
        server = Server(app, **options)
        await server.start()
        served = Served(server, caplog)
        try:
            yield served
        finally:
            served.close()
            await asyncio.wait_for(server.stop(), WAIT_S)
        logged = served.log(level=logging.ERROR)
        assert len(logged) == len(errors), logged
        for line, pattern in zip(logged, errors, strict=True):
            assert re.search(pattern, line), (line, pattern)
        assert served.log("asyncio") == []

    return serve_app


@pytest.fixture
def truncated() -> type[Truncated]:
    """What `Wire.response` raises when a response is not whole."""
    return Truncated


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files by their size in bytes, around the borders of how they are sent. What is in them does not repeat."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for size in (0, 1, 8192, 8193, 65536, 65537, 1_000_000, 3_000_000):
        made[size] = folder / str(size)
        made[size].write_bytes(random.Random(size).randbytes(size))
    return made
