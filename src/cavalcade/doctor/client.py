"""A small HTTP/1.1 client that measures: it connects beforehand, sends when it is told to, and knows when the last byte was there."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httptools

CONNECT_S = 10.0
_TARGET = "/%:?[]@!$&'()*+,;=~-._"  # what a target is made of (RFC 3986); the rest is escaped


@dataclass(frozen=True)
class Request:
    """What is asked for. `path` may have a query; `headers` replace those that would be sent otherwise."""

    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def encode(self, url: str) -> bytes:
        """The bytes of it, for the server at this URL."""
        fields = {"host": urlsplit(url).netloc, "accept": "*/*", "user-agent": "cavalcade-doctor", "connection": "close"}
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            fields["content-length"] = str(len(self.body))
            if self.body[:1] in (b"{", b"["):
                fields["content-type"] = "application/json"
        fields |= {name.lower(): value for name, value in self.headers}
        target = quote(self.path, safe=_TARGET)
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body


@dataclass(frozen=True)
class Answer:
    """One response. `status` is 0 where none came, `error` says why; `complete` is whether the whole body was there."""

    status: int = 0
    began_s: float = 0.0  # from the request to the first byte
    seconds: float = 0.0  # from the request to the last byte, or to when it was given up
    complete: bool = False
    error: str = ""


class Exchange(asyncio.Protocol):
    """One connection, one request."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_at = self._began_at = self._ended_at = 0.0
        self._status = 0
        self._complete = False
        self._error = ""
        self._done: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._began_at = self._began_at or self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._error = f"no HTTP: {error}"
            self._finish()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self._status >= 200:  # 103 Early Hints is a message of its own
            self._complete = True
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._complete and not self._error:
            # A body without a length ends with the connection (RFC 9112 section 6.3).
            self._complete = bool(self._status) and exc is None
            self._error = "" if self._complete else f"the connection was closed{f': {exc}' if exc else ' without a response'}"
        self._finish()

    def send(self, data: bytes) -> None:
        """Send the request; the clock starts."""
        self._sent_at = self._loop.time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def answer(self, patience_s: float) -> Answer:
        """The response, or what there was of it in this time."""
        try:
            async with asyncio.timeout(patience_s):
                await self._done
        except TimeoutError:
            self._error = f"not over within {patience_s:g} s"
            self._finish()
        began_s = max(0.0, self._began_at - self._sent_at)
        return Answer(self._status, began_s, self._ended_at - self._sent_at, self._complete, self._error)

    def close(self) -> None:
        """Let the connection go."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if not self._done.done():
            self._ended_at = self._loop.time()
            self._done.set_result(None)


async def ask(url: str, request: Request, count: int, patience_s: float) -> tuple[list[Answer], float]:
    """Send a request `count` times at once, each on a connection of its own that stood before; how long until the last was answered.

    Raises `OSError` where no connection can be made.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context()  # it is our own server on this machine, whatever name its certificate has
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    exchanges: list[Exchange] = []
    try:
        async with asyncio.timeout(CONNECT_S):
            for _ in range(count):
                _, exchange = await loop.create_connection(Exchange, parts.hostname or "", parts.port or 0, ssl=context)
                exchanges.append(exchange)
        data = request.encode(url)
        began = loop.time()
        for exchange in exchanges:
            exchange.send(data)
        answers = await asyncio.gather(*(exchange.answer(patience_s) for exchange in exchanges))
        return list(answers), loop.time() - began
    finally:
        for exchange in exchanges:
            exchange.close()
