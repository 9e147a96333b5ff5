"""An app that keeps the scopes it is called with, over HTTP and WebSocket."""

from __future__ import annotations

from typing import Any

import pytest


class Seen:
    """It answers with an empty 200, and refuses every WebSocket."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    @property
    def clients(self) -> list[Any]:
        return [scope["client"] for scope in self.scopes]


@pytest.fixture
def app() -> Seen:
    return Seen()
