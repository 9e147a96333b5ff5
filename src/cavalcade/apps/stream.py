"""The seam between the adapters and the network: a `Stream` carries one response, a `Call` is the app at work on it, `Serving` is what
all requests share."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Protocol

from cavalcade.apps.tasks import Starter
from cavalcade.board.ledger import private_ledger
from cavalcade.types import ASGIApp
from cavalcade.wire.sink import Head
from cavalcade.wire.ws import WebSocketRules

# The key in scope and environ: what the request is called in all logs, where `request_id` is on.
REQUEST_ID = "cavalcade.request_id"


class Stream(Protocol):
    """One request's way back to its client, whatever the protocol under it."""

    write_paused: bool  # the client takes less than the app sends: wait with `wait_writable()`

    def start(self, status: int, headers: Any) -> None:
        """Check and keep the response head. Raises `AppProtocolError`."""

    def write(self, body: bytes, more: bool) -> None:
        """Send a piece of the body, the head before it if it is still due. Raises `AppProtocolError`."""

    def hint(self, links: list[tuple[bytes, bytes]]) -> None:
        """Send 103 Early Hints with these fields, where it is not too late and the client knows what that is. Raises `AppProtocolError`."""

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """End the response behind the last `write`, which said that there is more, with trailer fields where it can have any. They
        have been checked."""

    def reword(self, reason: bytes) -> None:
        """Give the head that was just kept a reason phrase of the app's own, where the protocol has one."""

    def send_file(self, fd: int, offset: int, count: int, more: bool = False, done: Callable[[], None] | None = None) -> None:
        """Send `count` bytes of a regular file, the head before them if it is still due. `fd` is the stream's from now on, in any
        case. Nothing else may be written until `done` is called, which it is not when the client goes before; a file that turns out to be
        shorter ends the response so that the client can tell. Without `more` it then is as after the last `write`. Raises as `write`."""

    def most_read(self) -> int:
        """A file of at most so many bytes is better read and given to `write` than to `send_file`."""

    def body_left(self) -> int:
        """How many bytes of body the response that was started still lacks of its Content-Length; -1 where it has none."""

    def wait_writable(self) -> asyncio.Future[None]:
        """Done when the client has taken enough, or is gone."""

    def want_body(self) -> None:
        """The app asks for the body: send 100 Continue if the client waits for it, and read on."""

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        """Agree to change the protocol, with these fields in the answer. Raises `AppProtocolError` with nothing sent."""

    def progress(self) -> int | None:
        """How many bytes of body were sent; None while it is the client that is waited for."""

    def cut(self) -> None:
        """End the response where it is; the client can tell that it is not complete."""

    def fail(self, status: int, text: str) -> bool:
        """Answer with a response of our own if nothing has been sent, else reset so that the client can tell. True if answered."""


class Pipe(Protocol):
    """Both directions of a stream whose protocol was switched: what is left of a `Stream` when it carries a WebSocket.

    It gives `WebSocketExchange.feed_data()` what comes in, from `start_reading()` on, and calls `disconnect()` when the client is gone.
    """

    @property
    def write_paused(self) -> bool:
        """The client takes less than is sent: wait with `wait_writable()`."""

    def start_reading(self) -> None:
        """Feed what is there already, and what comes; not from inside of this call."""

    def write(self, data: bytes) -> None:
        """Send; harmless when the client is gone."""

    def wait_writable(self) -> asyncio.Future[None]:
        """Done when the client has taken enough, or is gone."""

    def pause_reading(self) -> None:
        """Feed no more for now: the client must not be able to send on."""

    def resume_reading(self) -> None:
        """Feed again."""

    def close(self, unread: bool) -> None:
        """Close after what was written has gone out. `unread` says that the client may still be sending: it must see our last bytes all
        the same."""

    def abort(self) -> None:
        """Close now."""

    def complain(self, why: str) -> None:
        """Say in the log, but not too often, why this client's connection is closed."""


class Call(Protocol):
    """One request in the hands of an app, whatever its interface: the connection's side of it."""

    sent: int  # what the app has sent so far: 0 for nothing
    gone: bool  # the client is

    @property
    def task(self) -> Any:
        """A Future that is done when the app has returned."""

    def begin(self) -> None:
        """Call the app, which may run at once, up to where it first waits."""

    def feed_body(self, chunk: bytes) -> int:
        """A piece of the request body; returns how many bytes the app has not taken yet."""

    def feed_end(self) -> None:
        """The request body is whole."""

    def disconnect(self) -> None:
        """The client is gone."""

    def notice(self) -> None:
        """The worker leaves: a response that streams had better end soon."""

    def cancel(self) -> None:
        """The time is up."""

    def progress(self) -> int | None:
        """A number that grows while the app answers; None while it is not the app that is waited for."""

    def time_out(self) -> bool:
        """It has not gone on for `request_timeout`: answer 504 or, behind the head, end the response so that the client can tell, and have
        the app stop if that can be done. True if answered."""

    def left_behind(self) -> str:
        """Why it is still there a while after it was cancelled, for the log."""

    def complain_short(self, sent: int, length: int) -> None:
        """The response was shorter than its Content-Length: `sent` bytes instead of `length`."""

    def request_line(self) -> str:
        """The request as the log shows it, safe to print."""


# What makes the call of one request: of its stream, its head, and what all requests of its connection have in common.
NewCall = Callable[[Stream, Head, dict[str, Any]], Call]


class WebSocketCall(Call, Protocol):
    """One WebSocket in the hands of an app: what the sweep and the drain tell it."""

    def feed_data(self, data: bytes) -> None:
        """What the client has sent since the protocol was switched."""

    def on_sweep(self) -> None:
        """Called about twice a second, for pings and deadlines."""

    def drain(self) -> None:
        """The worker leaves: close as soon as the app has answered what it was given."""


def add_waiter(waiters: list[asyncio.Future[None]], loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    """A Future for one more who waits among `waiters`; those who no longer do are dropped. One for each: a Future that several await is
    cancelled for all of them when one is."""
    if waiters:
        waiters[:] = [other for other in waiters if not other.done()]
    waiter: asyncio.Future[None] = loop.create_future()
    waiters.append(waiter)
    return waiter


def wake_all(waiters: list[asyncio.Future[None]]) -> None:
    """Let all of them go on, but for those who were cancelled."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


class Serving:
    """What the requests of one worker share. Made once, before the first connection."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self.app = app
        self.loop = loop
        self.starter = Starter(loop)
        # Each request starts from the context that lifespan startup left, never from that of the request before it.
        self.context = context
        self.state: dict[str, Any] | None = None  # lifespan state; None when the app has no lifespan
        self.running: dict[Call, None] = {}  # those whose app has not returned; oldest first, which a set would not know
        self.ledger = private_ledger()  # what is counted
        self.draining = asyncio.Event()  # set when the worker begins to leave; apps see it as an ASGI extension
        self.websockets: set[WebSocketCall] = set()  # those whose connection is not over
        self.websocket_rules: WebSocketRules | None = None  # None: requests for one are treated as plain ones
        self.leave_code = 1012  # what WebSockets are closed with when this worker leaves
        self.extensions: dict[str, Any] = {}  # of the scope of a request
        self.cancel_on_disconnect = False
        self.root_path = ""
        self.raw_root_path = b""
        # Where several apps are served: what opens the WebSocket that a request asks for.
        self.websocket_serving: Callable[[Head], Serving] | None = None

    def with_app(self, app: ASGIApp, context: contextvars.Context, state: dict[str, Any] | None) -> Serving:
        """The same for another app of this worker: what is counted, listed and told to leave stays in common."""
        other = Serving(app, self.loop, context)
        other.state = state
        other.running = self.running
        other.ledger = self.ledger
        other.draining = self.draining
        other.websockets = self.websockets
        other.websocket_rules = self.websocket_rules
        other.extensions = self.extensions
        other.cancel_on_disconnect = self.cancel_on_disconnect
        other.root_path = self.root_path
        other.raw_root_path = self.raw_root_path
        return other
