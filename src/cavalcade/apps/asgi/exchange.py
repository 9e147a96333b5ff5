"""One request and its response: the `receive` and `send` that an ASGI app is called with.

Nothing here allocates a Future, an Event or a timer for a request that need not wait: `send` returns one shared awaitable that is
done, `receive` a message that is there.

This file is plain Python and, compiled with the exchange.pxd beside it, an extension module. No `async def` in it: those
are in waits.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any

from cavalcade.apps.asgi import extras, waits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.asgi.order import (
    BODY,
    COMPLETE,
    DEBUG,
    FILE,
    HINT,
    LEGAL,
    NOTHING,
    PATH,
    SEND_FILE,
    START,
    STARTED,
    TRAILERS,
    WRITE,
    violation,
)
from cavalcade.apps.stream import Serving, Stream, add_waiter, wake_all
from cavalcade.errors import AppProtocolError

log = logging.getLogger("cavalcade")


class Done:
    """An awaitable that is done, with no result. A whole coroutine, so that `asyncio.create_task(send(...))` works.

    It has no state: one serves all.
    """

    def __await__(self) -> Generator[Any, None, None]:
        return iter(())  # type: ignore[return-value]  # the cheapest iterator there is; nobody sends into it

    def send(self, value: object) -> None:
        raise StopIteration

    def throw(self, *error: Any) -> None:
        if len(error) > 1 and error[1] is not None:
            raise error[1]
        raise error[0]

    def close(self) -> None:
        pass


Coroutine.register(Done)
DONE = Done()


class Exchange:
    """Between one app call and one `Stream`. The connection feeds it, the app drains it."""

    def __init__(self, serving: Serving, stream: Stream, scope: dict[str, Any], has_body: bool) -> None:
        self.serving = serving
        self.stream = stream
        self.scope = scope
        self.sent = NOTHING
        self.trailers: list[Any] | None = None  # there once they were promised
        self.after_file = COMPLETE  # what `sent` becomes when the file is sent
        self.gone = False  # the client is
        self.noticed = False  # it was told by http.disconnect that the worker leaves
        self.body_ended = not has_body
        self.end_told = False  # the app has received more_body=False
        self.chunks: list[bytes] = []
        self.buffered = 0
        self.news: list[asyncio.Future[None]] | None = None  # of those who wait in `receive`
        self.task: asyncio.Task[None] | None = None  # there when the app waits

    def begin(self) -> None:
        """Call the app, which runs at once, up to where it first waits."""
        serving = self.serving
        serving.running[self] = None
        self.task = serving.starter.run(waits.run(self), serving.context.copy())

    # -- the app's side ------------------------------------------------------------------------------------------------------

    def receive(self) -> Any:
        """ASGI `receive`: http.request with a piece of the body, or http.disconnect when the client is gone or answered."""
        # Nothing is taken before it is awaited: a `receive()` that is cancelled before its first step loses no message.
        return waits.next_message(self)

    def send(self, message: Any) -> Any:
        """ASGI `send`. Raises `AppProtocolError` on what the order table does not allow, `OSError` when the client is gone."""
        try:
            event = message if type(message) is dict else dict(message)
            legal = LEGAL[self.sent]
            step = legal.get(event["type"], 0)
        except (TypeError, KeyError, ValueError):
            raise violation(self.sent, message) from None
        if step == 0:
            raise violation(self.sent, message)
        if self.gone:
            raise waits.ClientDisconnected("the client is gone")
        if step == START:
            status: Any = event.get("status")
            self.stream.start(status, event.get("headers", ()))
            self.sent = STARTED
            if "trailers" in event:
                self.promise_trailers(event["trailers"])
            return DONE
        if step != WRITE:
            return self.send_extra(step, event)
        body = event.get("body", b"")
        if type(body) is not bytes:
            if not isinstance(body, bytes | bytearray | memoryview):
                raise AppProtocolError(f"the body is {type(body).__name__}, not bytes")
            body = bytes(body)
        more = event.get("more_body", False)
        if more or self.trailers is not None:
            self.stream.write(body, True)
            self.sent = BODY if more else TRAILERS
            if self.stream.write_paused:
                return waits.writable(self)
            return DONE
        self.stream.write(body, False)
        self.sent = COMPLETE
        if self.news is not None:
            self.wake()
        return DONE

    def promise_trailers(self, wanted: Any) -> None:
        """http.response.start says whether trailers follow the body."""
        if wanted:
            self.trailers = []

    def send_extra(self, step: int, message: Any) -> Any:
        """The messages of ASGI extensions."""
        if step in (PATH, SEND_FILE):
            return self.send_file(step, message)
        if step == HINT:
            # RFC 8297: a Link field each, in a response with status 103 before the real one.
            self.stream.hint([(b"link", link) for link in extras.items(message, "links")])
            return DONE
        if step == DEBUG:
            if message["type"] not in self.serving.extensions:
                raise violation(self.sent, message)
            log.debug("%s: http.response.debug: %.1000r", self.request_line(), message.get("info"))
            return DONE
        assert self.trailers is not None
        self.trailers += extras.items(message, "headers")
        if not message.get("more_trailers", False):
            self.stream.end(extras.wanted_trailers(self.scope, self.trailers))
            self.sent = COMPLETE
            self.wake()
        return DONE

    def send_file(self, step: int, message: Any) -> Any:
        """http.response.pathsend and http.response.zerocopysend."""
        stream = self.stream
        if step == PATH:
            span = extras.open_path(message, stream.body_left())
            more = False
        else:
            span = extras.open_file(message)
            more = bool(message.get("more_body", False))
        then = BODY if more else COMPLETE if self.trailers is None else TRAILERS
        if span.count <= stream.most_read():
            stream.write(extras.read(span), then != COMPLETE)
            self.sent = then
            self.wake()
            return waits.writable(self) if stream.write_paused else DONE
        before = self.sent
        self.sent = FILE
        self.after_file = then
        try:
            stream.send_file(span.fd, span.offset, span.count, then != COMPLETE, self.file_sent)
        except AppProtocolError:
            self.sent = before
            raise
        return waits.file_sent(self) if self.sent == FILE or self.gone else DONE

    def file_sent(self) -> None:
        """The file is with the client's kernel, as far as we can know."""
        self.sent = self.after_file
        self.wake()

    def take_news(self) -> dict[str, Any] | None:
        """The next message for the app, if there is one."""
        if self.sent == COMPLETE:
            return {"type": "http.disconnect"}
        chunks = self.chunks
        if chunks:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self.chunks = []
            self.buffered = 0
            if self.body_ended:
                self.end_told = True
                return {"type": "http.request", "body": body, "more_body": False}
            self.stream.want_body()
            return {"type": "http.request", "body": body, "more_body": True}
        if self.body_ended and not self.end_told:
            self.end_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.gone or self.noticed:
            return {"type": "http.disconnect"}
        return None

    def wait_news(self) -> asyncio.Future[None]:
        """Done when it is worth while to look again."""
        if not self.body_ended:
            self.stream.want_body()
        return self.add_news_waiter()

    def wait_file(self) -> asyncio.Future[None]:
        """Done when it is worth while to look whether the file is sent."""
        return self.add_news_waiter()

    def add_news_waiter(self) -> asyncio.Future[None]:
        if self.news is None:
            self.news = []
        return add_waiter(self.news, self.serving.loop)

    def wake(self) -> None:
        waiters = self.news
        if waiters is not None:
            self.news = None
            wake_all(waiters)

    def is_complete(self) -> bool:
        """Has the app sent its whole response?"""
        return self.sent == COMPLETE

    # -- the connection's side ---------------------------------------------------------------------------------------------

    def feed_body(self, chunk: bytes) -> int:
        """A piece of the request body; returns how many bytes the app has not taken yet."""
        self.chunks.append(chunk)
        self.buffered += len(chunk)
        if self.news is not None:
            self.wake()
        return self.buffered

    def feed_end(self) -> None:
        self.body_ended = True
        if self.news is not None:
            self.wake()

    def disconnect(self) -> None:
        """The client is gone: wake `receive`, and let `send` fail."""
        self.gone = True
        if self.news is not None:
            self.wake()
        if self.serving.cancel_on_disconnect and self.sent != COMPLETE and self.task is not None:
            self.task.cancel()

    def progress(self) -> int | None:
        if self.sent == COMPLETE:
            return None
        if self.gone:
            return 0
        sent_bytes = self.stream.progress()
        return None if sent_bytes is None else sent_bytes * 8 + self.sent

    def time_out(self) -> bool:
        """What the app still sends from now on fails as if the client were gone: another request may be answered there by now."""
        answered = not self.gone and self.stream.fail(504, "Gateway Timeout")
        self.gone = True
        self.wake()
        self.cancel()
        return answered

    def notice(self) -> None:
        """The worker leaves: a response that streams is told so by http.disconnect. It may still send what it has to."""
        if self.sent != NOTHING:
            self.noticed = True
            self.wake()

    def cancel(self) -> None:
        """The time is up. An app that swallows this is left behind when its loop closes."""
        if self.task is not None:
            self.task.cancel()

    # -- the end -------------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        self.serving.running.pop(self, None)

    def app_returned(self) -> None:
        self.finish()
        if self.sent == COMPLETE or (self.sent == FILE and self.after_file == COMPLETE):
            return
        if self.gone:
            pass
        elif self.noticed:
            self.stream.cut()
        else:
            if self.sent == BODY or self.sent == FILE:
                what = "the app returned in the middle of its response body (more_body was still true)"
            elif self.sent == TRAILERS:
                what = "the app returned without the http.response.trailers that it has promised"
            elif self.sent == STARTED:
                what = "the app returned after http.response.start without a body"
            else:
                what = "the app returned without sending a response"
            log.error("%s: %s", self.request_line(), what)
            self.stream.fail(500, "Internal Server Error")
        self.let_go()

    def app_raised(self, error: BaseException) -> None:
        self.finish()
        cancelled = isinstance(error, asyncio.CancelledError)
        if self.gone and (cancelled or waits.is_disconnect(error)):
            pass  # it was told that the client is gone, and left
        elif self.sent == COMPLETE:
            if not cancelled:
                log.error("%s: the app failed after its response was complete", self.request_line(), exc_info=waits.as_the_app_saw(error))
        elif not cancelled:
            log.error("%s: the app failed", self.request_line(), exc_info=waits.as_the_app_saw(error))
            if not self.gone:
                self.stream.fail(500, "Internal Server Error")
        elif self.noticed:
            self.stream.cut()
        else:
            log.warning("%s: cancelled before the response was complete", self.request_line())
            self.stream.fail(503, "Service Unavailable")
        self.let_go()

    def let_go(self) -> None:
        """Tasks that the app has left behind may still hold `send`: nothing of theirs may reach the wire, where another request is
        being answered by now."""
        self.sent = COMPLETE
        self.wake()

    def left_behind(self) -> str:
        return "the app swallowed its cancellation; it is left behind"

    def complain_short(self, sent: int, length: int) -> None:
        """The response was shorter than its Content-Length; the client will see a reset."""
        log.error("%s: the response body is shorter than its Content-Length: %d bytes instead of %d", self.request_line(), sent, length)

    def request_line(self) -> str:
        """The request as the log shows it, safe to print."""
        try:
            return f"{self.scope['method']} {asgi_scope.describe_target(self.scope)}"
        except (KeyError, TypeError, AttributeError):
            return "a request whose scope the app has changed"
