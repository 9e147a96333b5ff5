"""A client of TLS that sees how a connection ends: it lives in a thread, and is the standard library's, not ours."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

WAIT_S = 30.0


class TlsClient:
    """One connection. `ended` is how the server ended it: "closed" by the rules of TLS, "cut", "reset", or "" while it is open."""

    def __init__(self, url: str, context: ssl.SSLContext, host: str | None = "localhost") -> None:
        address = url.removeprefix("https://").rpartition(":")
        plain = socket.create_connection((address[0], int(address[2])), timeout=WAIT_S)
        # Not suppressed: whether the end is a proper one is what the tests want to know.
        try:
            self.sock = context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise
        self.ended = ""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self, size: int = 65536) -> bytes:
        """Some bytes, or none when the connection has ended."""
        try:
            data = self.sock.recv(size)
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLEOFError:
            self.ended = "cut"
            return b""
        except ConnectionError:
            self.ended = "reset"
            return b""
        if not data:
            self.ended = "closed"
        return data

    def rest(self) -> bytes:
        """All that comes until the end."""
        pieces = []
        while more := self.receive():
            pieces.append(more)
        return b"".join(pieces)

    def response(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """A response with a length, by the standard library's parser."""
        response = http.client.HTTPResponse(self.sock, method=method)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def ask(self, path: str = "/", *lines: str) -> tuple[int, dict[str, str], bytes]:
        self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        return self.response()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def in_thread() -> Callable[..., Any]:
    """Run a function that blocks in a thread, so that the server's loop goes on."""

    async def go(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(function, *arguments, **options), WAIT_S)

    return go


@pytest.fixture
def tls_client() -> Any:
    """The class of the clients."""
    return TlsClient


@pytest.fixture
def told() -> Any:
    """An app that answers with what it is told of the connection, as text."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = repr({"scheme": scope["scheme"], "tls": scope["extensions"].get("tls")}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return app
