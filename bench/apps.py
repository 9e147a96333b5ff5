"""The apps that are measured. Small on purpose: what is left is the server's own cost."""

from __future__ import annotations

from typing import Any

BODY = b"Hello, World!"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]


async def raw(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The least an ASGI app can be: two messages."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
