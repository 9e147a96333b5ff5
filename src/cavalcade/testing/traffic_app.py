"""The app that `Traffic` talks to: every answer proves which request it is for, which process gave it, and which code.

It stands alone, needs nothing installed, and is deployed as a file: `deploy()` in cavalcade.testing.traffic writes it with another
version or a fault, as a release would. Any ASGI server can run it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

VERSION = "v1"
FAULT = ""

WORK_S = 0.02

HERE = Path(__file__).parent

if FAULT == "import":
    raise RuntimeError("this release is broken: it fails at import")


# A line for every message of a WebSocket, and every request for /once, that this app was given: what it got must be answered.
LEDGER = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """GET /echo?TOKEN, GET /client?TOKEN, POST /upload?TOKEN, GET /hold?NAME, GET /block?SECONDS, GET /stream,
    GET and POST /once?TOKEN; and WebSockets."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["type"] == "websocket":
        await websocket(receive, send)
        return
    path: str = scope["path"]
    token = scope["query_string"].decode("latin-1")
    if path == "/stream":
        await stream(receive, send)
        return
    said = ""
    if path == "/once":
        await note(token)
    if path == "/upload" or scope["method"] == "POST":
        said = await digest(receive) + " "
    elif path == "/client":
        host, port = scope["client"]
        said = f"{host} {port} "
    elif path == "/hold":
        # Held until the file appears; "held" tells whoever holds it that it is here.
        (HERE / f"{token}.held").touch()
        while not (HERE / token).exists():  # noqa: ASYNC110  (whoever makes it is another process)
            await asyncio.sleep(0.005)
    elif path == "/block":
        (HERE / "blocked").write_text(str(os.getpid()))
        time.sleep(float(token))  # noqa: ASYNC251  (a blocked loop is the point)
    body = f"{VERSION} {os.getpid()} {said}{token}".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def digest(receive: Any) -> str:
    """The length and the hash of a request body."""
    size = 0
    hashed = hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left in the middle of its upload")
        chunk = message.get("body", b"")
        size += len(chunk)
        hashed.update(chunk)
        if not message.get("more_body", False):
            return f"{size} {hashed.hexdigest()}"


async def websocket(receive: Any, send: Any) -> None:
    """Sends every message back, behind who it is that does. A message begins with its token and a space."""
    await receive()
    await send({"type": "websocket.accept"})
    who = f"{VERSION} {os.getpid()} "
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        await note(message["bytes"].partition(b" ")[0].decode() if text is None else text.partition(" ")[0])
        if text is None:
            await send({"type": "websocket.send", "bytes": who.encode() + message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": who + text})


async def note(token: str) -> None:
    """Enter it into the ledger. Some are work: whoever leaves must wait for them."""
    os.write(LEDGER, token.encode() + b"\n")
    if token.endswith("7"):
        await asyncio.sleep(WORK_S)


async def stream(receive: Any, send: Any) -> None:
    """Server-sent events without an end of their own: it comes when the server or the client says so."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.ensure_future(wait_disconnect(receive))
    try:
        while not gone.done():
            await send({"type": "http.response.body", "body": f"data: {VERSION} {os.getpid()}\n\n".encode(), "more_body": True})
            await asyncio.wait({gone}, timeout=0.1)
        await send({"type": "http.response.body", "body": b"data: end\n\n"})
    finally:
        gone.cancel()


async def wait_disconnect(receive: Any) -> None:
    """Done when the other side, or the server, wants no more."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def lifespan(receive: Any, send: Any) -> None:
    """Startup fails if this release is broken there; each shutdown leaves a line in the file `shutdowns`."""
    await receive()
    if FAULT == "startup":
        await send({"type": "lifespan.startup.failed", "message": "this release is broken: it fails at startup"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    with (HERE / "shutdowns").open("a") as file:
        file.write(f"{os.getpid()}\n")
    await send({"type": "lifespan.shutdown.complete"})
