"""One connection of a client that counts what is lost: HTTP/1.1 on a bare socket or over TLS, and nothing that tries again."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from dataclasses import dataclass

import msgspec


class Lost(Exception):
    """A request that got no good answer."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what, detail)
        self.what = what
        self.detail = detail


@dataclass(frozen=True)
class Where:
    """What clients connect to: HTTPS with `trust`. They go on until `over` is set, with up to `rest_s` before they ask again."""

    address: tuple[str, int]
    trust: ssl.SSLContext | None
    over: asyncio.Event
    rest_s: float = 0.0


class Answer(msgspec.Struct):
    body: str
    keep_alive: bool


class Wire:
    """One connection of a client, on a bare socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> None:
        self._loop = loop
        self._address = address
        self._sock: socket.socket | None = None

    async def connect(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.sock_connect(sock, self._address)
        except ConnectionRefusedError as error:
            raise Lost("refused") from error
        except OSError as error:
            raise Lost("reset", f"in connect: {error}") from error

    @property
    def usable(self) -> bool:
        """Whether it is connected, and not closed from over there as far as one can see."""
        return self._sock is not None and not select.select([self._sock], [], [], 0)[0]

    async def ask(self, request: bytes) -> Answer:
        sock = self._sock
        assert sock is not None
        data = b""
        try:
            await self._send(sock, request)
            while (end := data.find(b"\r\n\r\n")) < 0:
                data += await self._receive(sock, data)
            status, headers = _parse(data[:end])
            size = int(headers.get("content-length", "0"))
            while len(data) < end + 4 + size:
                data += await self._receive(sock, data)
        except OSError as error:
            raise Lost("reset", f"{error.strerror}, {len(data)} bytes of an answer were here") from error
        if status != 200:
            raise Lost("status", f"{status}: {data[end + 4 :][:100]!r}")
        if len(data) > end + 4 + size:
            raise Lost("wrong", f"{len(data) - end - 4 - size} bytes too many")
        return Answer(data[end + 4 :].decode("latin-1"), headers.get("connection", "").lower() != "close")

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        await self._loop.sock_sendall(sock, data)

    async def _receive(self, sock: socket.socket, so_far: bytes) -> bytes:
        data = await self._loop.sock_recv(sock, 65536)
        if not data:
            raise Lost("short" if so_far else "closed", f"after {len(so_far)} bytes" if so_far else "")
        return data

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *fields = head.decode("latin-1").split("\r\n")
    headers = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    return int(first.split(" ", 2)[1]), headers


class TlsWire(Wire):
    """The same over TLS, which is done here by hand: what goes wrong in a handshake is not hidden either."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(loop, address)
        self._context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def connect(self) -> None:
        await super().connect()
        sock = self._sock
        assert sock is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls = self._context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._address[0])
        try:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._loop.sock_sendall(sock, self._outgoing.read())
                data = await self._loop.sock_recv(sock, 65536)
                if not data:
                    raise Lost("handshake", "closed")
                self._incoming.write(data)
            await self._loop.sock_sendall(sock, self._outgoing.read())
        except OSError as error:
            raise Lost("handshake", str(error)) from error

    @property
    def usable(self) -> bool:
        sock, tls = self._sock, self._tls
        if sock is None or tls is None:
            return False
        # What is there to read may be a ticket for a later session. It may also be the end.
        try:
            while select.select([sock], [], [], 0)[0]:
                data = sock.recv(65536)
                if not data:
                    return False
                self._incoming.write(data)
            tls.read(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        assert self._tls is not None
        done = 0
        while done < len(data):
            done += self._tls.write(data[done:])
        await self._loop.sock_sendall(sock, self._outgoing.read())

    async def _receive(self, sock: socket.socket, so_far: bytes) -> bytes:
        assert self._tls is not None
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(await super()._receive(sock, so_far))
                continue
            if not data:
                raise Lost("short" if so_far else "closed", "by close_notify")
            return data
