"""The seam between the adapters and the network: a `Stream` carries one response, `Serving` is what all requests share."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, Protocol

from cavalcade.types import ASGIApp


class Stream(Protocol):
    """One request's way back to its client, whatever the protocol under it."""

    write_paused: bool  # the client takes less than the app sends: wait with `wait_writable()`

    def start(self, status: int, headers: Any) -> None:
        """Check and keep the response head. Raises `AppProtocolError`."""

    def write(self, body: bytes, more: bool) -> None:
        """Send a piece of the body, the head before it if it is still due. Raises `AppProtocolError`."""

    def wait_writable(self) -> asyncio.Future[None]:
        """Done when the client has taken enough, or is gone."""

    def want_body(self) -> None:
        """The app asks for the body: send 100 Continue if the client waits for it, and read on."""

    def cut(self) -> None:
        """End the response where it is; the client can tell that it is not complete."""

    def fail(self, status: int, text: str) -> bool:
        """Answer with a response of our own if nothing has been sent, else reset so that the client can tell. True if answered."""


class Totals:
    """What one worker has done, as plain attributes: the heartbeat copies them to the board."""

    __slots__ = ("by_class", "bytes_sent", "requests", "shed")

    def __init__(self) -> None:
        self.requests = 0
        self.by_class = [0] * 10
        self.bytes_sent = 0
        self.shed = 0  # answered 503 without the app: too many were in flight


class Serving:
    """What the requests of one worker share. Made once, before the first connection."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self.app = app
        self.loop = loop
        # Each request starts from the context that lifespan startup left, never from that of the request before it.
        self.context = context
        self.state: dict[str, Any] | None = None  # lifespan state; None when the app has no lifespan
        self.running: set[Any] = set()  # exchanges whose app has not returned
        self.totals = Totals()
        self.draining = asyncio.Event()  # set when the worker begins to leave; apps see it as an ASGI extension
        self.root_path = ""
        self.raw_root_path = b""
