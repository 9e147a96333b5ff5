"""One WSGI request and its response: what is the same whether the app runs in a thread or in the loop."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

from cavalcade.apps.asgi.order import COMPLETE, NOTHING, STARTED
from cavalcade.apps.stream import REQUEST_ID, Serving, Stream
from cavalcade.apps.wsgi.environ import build
from cavalcade.apps.wsgi.headers import LENGTH, STATUSES, learn_status, read_headers
from cavalcade.errors import AppProtocolError
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("cavalcade")

# A body that an app hands over in one of these is all there: nothing runs when it is iterated.
LIST_ITERATOR: type = type(iter([]))
TUPLE_ITERATOR: type = type(iter(()))


class WsgiApp:
    """A WSGI app, and what its calls need beside it. The base class of `Service`, which makes them."""

    def __init__(self, app: Any, serving: Serving, context: contextvars.Context, spool_bytes: int) -> None:
        self.app = app
        self.serving = serving
        self.context = context  # that of all requests that run in the loop
        self.spool_bytes = spool_bytes  # at most of a request body


class WsgiCall:
    """Between one call of the app and one `Stream`. The base class of `InlineCall` and `ThreadCall`."""

    headers: list[tuple[bytes, bytes]]  # what the app has said with start_response; there when `status` is not 0

    def take(self, service: WsgiApp, stream: Stream, head: Head, template: dict[str, Any]) -> None:
        """Be the call of this request. No `__init__`: compiled, a method of a base class is called at once, and its `__init__` is not."""
        self.service = service
        self.serving: Serving = service.serving
        self.stream = stream
        self.environ = build(template, head)
        self.method = head.method
        self.target = head.target
        self.body_length = head.length  # -1 when it is known only at its end
        self.awaits_continue = head.expects_continue
        self.sent = NOTHING
        self.gone = False  # the client is
        self.done: asyncio.Future[None] | None = None
        # what else it has said there
        self.status = 0
        self.reason = b""
        self.length = -1  # its Content-Length
        self.bodiless = False
        self.head_sent = False  # the app has given a piece of body: what it said can no longer be taken back

    @property
    def task(self) -> asyncio.Future[None]:
        """Done when the app has returned and its response is with the connection. Made for those who ask."""
        done = self.done
        if done is None:
            done = self.done = self.serving.loop.create_future()
            if self not in self.serving.running:
                done.set_result(None)
        return done

    # -- the app's side ------------------------------------------------------------------------------------------------------

    def start_response(self, status: Any, headers: Any, exc_info: Any = None) -> Any:
        """PEP 3333's. Raises `AppProtocolError` for what cannot go onto the wire, and the app's own error where it is too late for
        another head."""
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it holds this frame
        elif self.status:
            raise AppProtocolError("start_response was called a second time, and without exc_info")
        self.take_head(status, headers)
        return self.write

    def take_head(self, status: Any, headers: Any) -> None:
        """Keep what the app says of its response. Raises `AppProtocolError`, with nothing kept."""
        entry = STATUSES.get(status)
        if entry is None:
            entry = learn_status(status)
        out: list[tuple[bytes, bytes]] = []
        length = read_headers(headers, out)
        code = entry[0]
        self.status = code
        self.reason = entry[1]
        self.headers = out
        self.length = length
        self.bodiless = code == 204 or code == 304 or self.method == "HEAD"

    def write(self, data: Any) -> None:
        """The callable that `start_response` returns."""
        raise NotImplementedError

    def check_piece(self, size: int) -> None:
        """The app gives a piece of body. Raises `AppProtocolError` where it has given no head, or more than it said."""
        if not self.status:
            what = "gave a piece of its body before it called start_response" if size else "returned without calling start_response"
            raise AppProtocolError(f"the app {what}")
        if self.length >= 0 and size > self.length and not self.bodiless:
            raise AppProtocolError(f"the response body is longer than its Content-Length: {size} bytes instead of {self.length}")

    # -- the response, in the loop ---------------------------------------------------------------------------------------------

    def start_stream(self, size: int) -> None:
        """Give the head to the stream; `size` is that of the whole body, where that is known, else -1."""
        code = self.status
        if self.length < 0 and size >= 0 and code != 204 and code != 304 and (size > 0 or self.method != "HEAD"):
            self.headers.append((LENGTH, b"%d" % size))
        self.stream.start(code, self.headers)
        if self.reason:
            self.stream.reword(self.reason)
        self.sent = STARTED

    def finish(self) -> None:
        """The app has returned, and its response is with the connection."""
        self.serving.running.pop(self, None)
        self.sent = COMPLETE
        done = self.done
        if done is not None and not done.done():
            done.set_result(None)

    def log_failure(self, error: BaseException, complete: bool) -> None:
        """The app failed."""
        trace = error.__traceback__
        ours = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
        if trace is not None and trace.tb_next is not None and ours.startswith("cavalcade."):
            trace = trace.tb_next  # without the frame of ours that called the app
        what = "the app failed after its response was complete" if complete else "the app failed"
        log.error("%s: %s", self.request_line(), what, exc_info=(type(error), error, trace))

    # -- the connection's side -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """There is a request."""
        raise NotImplementedError

    def feed_body(self, chunk: bytes) -> int:
        """A piece of the request body; returns how many bytes the app has not taken yet."""
        raise NotImplementedError

    def feed_end(self) -> None:
        """The request body is whole."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """The client is gone."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The time is up."""
        raise NotImplementedError

    def progress(self) -> int | None:
        if self.sent == COMPLETE or self.gone:
            return None
        sent_bytes = self.stream.progress()
        return None if sent_bytes is None else sent_bytes * 8 + self.sent

    def time_out(self) -> bool:
        """It has not gone on for `request_timeout`."""
        raise NotImplementedError

    def left_behind(self) -> str:
        """Why it is still there a while after it was cancelled."""
        return "the app has not returned; it is left behind"

    def notice(self) -> None:
        """The worker leaves. WSGI has no word for it; an app that streams may look at `environ["cavalcade.draining"]`."""

    def complain_short(self, sent: int, length: int) -> None:
        """The response was shorter than its Content-Length; the client will see a reset."""
        log.error("%s: the response body is shorter than its Content-Length: %d bytes instead of %d", self.request_line(), sent, length)

    def request_line(self) -> str:
        """The request as the log shows it, safe to print."""
        name = f" [{self.environ[REQUEST_ID]}]" if REQUEST_ID in self.environ else ""
        return f"{self.method} {self.target.decode('ascii', 'backslashreplace')[:512]}{name}"


def iterate(result: Any) -> Any:
    """An iterator over what an app has returned. Raises `AppProtocolError` where that is no iterable of pieces."""
    if isinstance(result, bytes | str):
        raise AppProtocolError(f"the app returned {type(result).__name__}, not an iterable of bytes", fix="Return [body].")
    try:
        return iter(result)
    except TypeError:
        raise AppProtocolError(f"the app returned {type(result).__name__}, not an iterable of bytes") from None
