"""The apps that are measured. Small on purpose: what is left is the server's own cost."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

BODY = b"Hello, World!"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]

SLEEP_S = 0.01
BURN_S = 0.2
CHUNK = b"0123456789abcdef" * 4096  # 64 KiB
CHUNKS = 160  # 10 MiB
DOWNLOAD_HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % (len(CHUNK) * CHUNKS))]
FILE = Path(__file__).parent / "results" / "file-50k.bin"  # written by the command
FILE_HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"51200")]


async def raw(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The least an ASGI app can be: two messages."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The least a WebSocket app can be."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})


async def body_echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """What was sent comes back."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = await whole_body(receive)
    await answer(send, body)


async def upload(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The length of what was sent, which is not kept."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, b"%d" % length)


async def download(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """10 MiB in pieces of 64 KiB, each of which waits until it is taken."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": DOWNLOAD_HEADERS})
    for _ in range(CHUNKS - 1):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": CHUNK})


async def file(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A file of 50 KiB: the server sends it where it offers that; elsewhere it is read, which takes no thread: it is in the page cache."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": FILE_HEADERS})
    if "http.response.pathsend" in scope.get("extensions", {}):
        await send({"type": "http.response.pathsend", "path": str(FILE)})
    else:
        with open(FILE, "rb") as opened:  # noqa: ASYNC230
            await send({"type": "http.response.body", "body": opened.read()})


async def sleep(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await asyncio.sleep(SLEEP_S)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def burn(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A hello; at /burn after so much CPU time, in which the event loop stands; at /pid the worker's number."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/burn":
        end = time.thread_time() + BURN_S
        while time.thread_time() < end:
            pass
    await answer(send, b"%d" % os.getpid() if scope["path"] == "/pid" else BODY)


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The least a WSGI app can be."""
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "13")])
    return [BODY]


async def whole_body(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
