"""One request over HTTP/2: what the engine calls for it, and the `Stream` of its response."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes

from cavalcade import limits
from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.asgi.order import NOTHING as NOTHING_SENT
from cavalcade.apps.asgi.scope import build as build_scope
from cavalcade.apps.asgi.websocket import WebSocketExchange, open_call
from cavalcade.apps.stream import Call, Pipe, add_waiter, wake_all
from cavalcade.board.ledger_words import BYTES_RECEIVED
from cavalcade.errors import AppProtocolError, PeerError, PeerTooSlow
from cavalcade.net import overload
from cavalcade.net.files import ReadSend
from cavalcade.net.h2_websocket import H2Pipe
from cavalcade.wire import fields
from cavalcade.wire.h2_stream import StreamState
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    from cavalcade.net.h2 import H2Connection

CLIENT_CLOSED = 499  # nginx's number for a client that left before the answer; only ever logged


class H2Stream(StreamState):
    """Deadlines are its own: one stream that stands still is ended without the others."""

    __slots__ = (
        "asker",
        "continue_due",
        "deadline",
        "discarded",
        "early",
        "exchange",
        "file",
        "first_at",
        "link",
        "pipe",
        "sent_bytes",
        "started",
        "target",
        "write_deadline",
        "write_paused",
        "writers",
    )

    def __init__(self, link: H2Connection, stream_id: int) -> None:
        StreamState.__init__(self, stream_id)
        self.link = link
        self.exchange: Call | None = None
        self.target = b""
        self.started = 0.0
        self.first_at = 0.0  # when the response began, where that was before its end
        self.sent_bytes = 0
        self.file: ReadSend | None = None
        self.early: list[bytes] | None = None  # of a WebSocket: what comes before the answer to its handshake
        self.pipe: H2Pipe | None = None  # it has become one
        self.deadline = 0.0  # of its body: 0 while nothing of it is waited for
        self.discarded = 0
        self.continue_due = False
        self.asker = ""  # the client for the access log, where it is not the peer
        self.write_paused = False
        self.write_deadline = 0.0
        self.writers: list[asyncio.Future[None]] = []

    # -- called by the engine ------------------------------------------------------------------------------------------------

    def on_request(self, head: Head) -> None:
        link = self.link
        context = link.context
        serving = context.serving
        self.target = head.target
        self.started = time.perf_counter()
        if context.limit and len(serving.running) >= context.limit:
            self.turn_away()
            return
        template = link.template
        if head.forwarded:
            template, self.asker = context.forwarding.view(link, template, head)
        exchange: Call
        if head.protocol:
            try:
                exchange = open_call(serving, self, template, head, keyed=False)
            except PeerError as error:
                self.on_refused(error)
                return
            self.early = []
        else:
            if head.length != 0:
                self.continue_due = head.expects_continue
                self.deadline = context.now + context.body_s
            if context.new_call is None:
                exchange = Exchange(serving, self, build_scope(serving, template, head), head.length != 0)
            else:
                exchange = context.new_call(self, head, template)
        self.exchange = exchange
        if self.continue_due:
            # Not at once: the body may be right behind the head, and then nobody waits to be told to go on.
            context.loop.call_soon(exchange.begin)
        else:
            exchange.begin()

    def turn_away(self) -> None:
        """Too many requests are in flight: answer this one at once."""
        overload.note_shed(self.link.context, self.link.peer())
        self.respond(503, overload.HEADERS, overload.BODY)
        self.account(503)

    def on_refused(self, error: PeerError) -> None:
        link = self.link
        context = link.context
        exchange = self.exchange
        answered = exchange is not None and self.head_is_out()
        context.peer_log.refused(context.now, link.peer(), error, late=answered)
        if exchange is not None:
            self.let_go()
            self.account(self.status if answered else error.status)
        else:
            context.serving.ledger.refused(error.status)
        if answered:
            link.engine.reset(self, ErrorCodes.CANCEL)
        else:
            self.respond(error.status, [overload.TEXT, *error.fields], error.cause.encode("ascii", "backslashreplace") + b"\n")
        link.schedule_flush()

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        """A response of our own, without the app."""
        engine = self.link.engine
        engine.start_response(self, status, headers)
        engine.send(self, body, False)
        self.write_deadline = self.link.context.now + self.link.context.write_s if self.pending else 0.0
        self.link.schedule_flush()

    def on_body(self, chunk: bytes) -> None:
        exchange = self.exchange
        engine = self.link.engine
        if self.pipe is not None:
            self.pipe.feed(chunk)
        elif exchange is None:
            self.discarded += len(chunk)
            if self.discarded > limits.UNREAD_BODY_BYTES:
                engine.reset(self, ErrorCodes.NO_ERROR)
            else:
                engine.give_back(self)
        elif self.early is not None:
            self.early.append(chunk)  # as much as its window allows
        else:
            self.link.context.serving.ledger.add(BYTES_RECEIVED, len(chunk))
            unread = exchange.feed_body(chunk)
            engine.give_back(self, unread)
            if self.exchange is exchange:
                # A window that is used up is the app's to open.
                context = self.link.context
                self.deadline = 0.0 if unread > limits.BODY_BUFFER_BYTES else context.now + context.body_s

    def on_end(self) -> None:
        self.deadline = 0.0
        self.continue_due = False
        exchange = self.exchange
        if self.pipe is not None:
            self.pipe.end()
        elif exchange is not None:
            exchange.feed_end()

    def on_reset(self, code: int) -> None:
        exchange = self.exchange
        if exchange is not None:
            status = self.status if self.head_is_out() else CLIENT_CLOSED
            self.let_go()
            self.account(status)
        if self.pipe is not None:
            self.pipe.over = True
            self.pipe.call.disconnect()
        self.write_paused = False
        self.wake_writers()

    def on_taken(self) -> None:
        context = self.link.context
        if self.pending:
            self.write_deadline = context.now + context.write_s
        else:
            self.write_deadline = 0.0
        if self.write_paused and self.pending_bytes <= limits.H2_RESUME_BYTES:
            self.write_paused = False
            self.wake_writers()

    def on_answered(self) -> None:
        # RFC 9113 section 8.1: after a whole response the rest of the request may be declined. A short rest is rather let come in.
        declined = self.expected - self.received > limits.UNREAD_BODY_BYTES
        if self.pipe is None and (declined or self.early is not None):
            self.link.engine.reset(self, ErrorCodes.NO_ERROR)
            return
        if self.pipe is None:
            self.deadline = self.link.context.now + self.link.context.body_s
        self.link.engine.give_back(self)

    # -- called by the exchange: the `Stream` ------------------------------------------------------------------------------------

    def start(self, status: int, headers: Any) -> None:
        self.link.engine.start_response(self, status, headers)
        if self.length < 0:
            # No length given: this may be a stream whose first piece comes much later, and the client wants to see the head.
            # If the body comes in the same turn of the loop, they go out together.
            self.link.context.loop.call_soon(self.send_due_head)

    def send_due_head(self) -> None:
        """Send a head that is still due, for example that of an event stream with no event yet."""
        if self.head_due and self.exchange is not None and not self.closed:
            self.first_at = time.perf_counter()
            self.link.engine.send_head(self, 0, True)
            self.link.schedule_flush()

    def write(self, body: bytes, more: bool) -> None:
        if self.head_due and more:
            self.first_at = time.perf_counter()
        self.send(body, more)
        if not self.bodiless:
            self.sent_bytes += len(body)
        if not more:
            self.response_done()

    def send(self, data: bytes, more: bool) -> None:
        """Send a piece, the last one if there are no `more`; does the client keep up?"""
        link = self.link
        link.engine.send(self, data, more)
        if self.pending:
            if not self.write_deadline:
                self.write_deadline = link.context.now + link.context.write_s
            if self.pending_bytes > limits.WRITE_HIGH_BYTES or link.write_paused:
                self.write_paused = True
        link.schedule_flush()

    def hint(self, links: list[tuple[bytes, bytes]]) -> None:
        fields.check_fields(links)
        if not self.head_is_out():
            self.link.engine.send_interim(self, 103, links)
            self.link.schedule_flush()

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.link.engine.send_trailers(self, trailers)
        self.response_done()
        self.link.schedule_flush()

    def reword(self, reason: bytes) -> None:
        pass  # RFC 9113 section 8.3.2: HTTP/2 has none

    def send_file(self, fd: int, offset: int, count: int, more: bool = False, done: Callable[[], None] | None = None) -> None:
        if self.head_due:
            self.first_at = time.perf_counter()
        if self.bodiless:
            if self.head_due:
                self.link.engine.send_head(self, count, more)
            count = 0
        elif 0 <= self.left < count:
            os.close(fd)
            size = self.length - self.left + count
            raise AppProtocolError(f"the response body is longer than its Content-Length: {size} bytes instead of {self.length}")
        elif self.head_due:
            self.link.engine.send_head(self, count, more)

        def write(data: bytes) -> None:
            self.sent_bytes += len(data)
            self.send(data, True)

        def sent(size: int) -> None:
            self.file = None
            if size != count:
                if self.exchange is not None:
                    self.exchange.complain_short(size, count)
                self.break_off(ErrorCodes.INTERNAL_ERROR)
                return
            if done is not None:
                done()
            if not more:
                self.write(b"", False)

        self.file = ReadSend(self, self.link.context.loop, fd, offset, count, write, sent)
        self.file.start()

    def most_read(self) -> int:
        return limits.JOIN_BYTES

    def progress(self) -> int | None:
        waits = self.deadline and not self.continue_due
        return None if waits or self.write_paused or self.file is not None else self.sent_bytes

    def body_left(self) -> int:
        return self.left

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        call = self.exchange
        assert isinstance(call, WebSocketExchange)
        engine = self.link.engine
        engine.start_response(self, 200, headers)  # RFC 8441 section 5
        engine.send_head(self, 0, True)
        self.exchange = None
        self.account(200)
        self.pipe = H2Pipe(self, call)
        self.link.schedule_flush()
        return self.pipe

    def give_back(self) -> None:
        """All that came so far was taken."""
        self.link.engine.give_back(self)
        self.link.schedule_flush()

    def response_done(self) -> None:
        exchange = self.exchange
        self.exchange = None
        self.account(self.status)
        if self.is_short():
            if exchange is not None:
                exchange.complain_short(self.length - self.left, self.length)
            self.link.engine.reset(self, ErrorCodes.INTERNAL_ERROR)

    def head_is_out(self) -> bool:
        """Has the client seen anything of the response that is being sent?"""
        exchange = self.exchange
        return exchange is not None and exchange.sent != NOTHING_SENT and not self.head_due

    def wait_writable(self) -> asyncio.Future[None]:
        if self.write_paused:
            return add_waiter(self.writers, self.link.context.loop)
        writer: asyncio.Future[None] = self.link.context.loop.create_future()
        writer.set_result(None)
        return writer

    def wake_writers(self) -> None:
        if self.writers:
            writers, self.writers = self.writers, []
            wake_all(writers)

    def want_body(self) -> None:
        if self.remote_ended or self.closed or self.exchange is None:
            return
        link = self.link
        if self.continue_due:
            self.continue_due = False
            if not self.head_is_out():
                # RFC 9110 section 10.1.1: only now is it known that the body is wanted.
                link.engine.send_interim(self, 100, ())
        if self.held:
            link.engine.give_back(self)
        self.deadline = link.context.now + link.context.body_s
        link.schedule_flush()

    def fail(self, status: int, text: str) -> bool:
        if self.exchange is None or self.closed:
            return False
        if self.head_is_out():
            self.break_off(ErrorCodes.INTERNAL_ERROR)
            return False
        self.start(status, overload.failure_headers(status, self.link.context.draining))
        self.write(text.encode(), False)
        return True

    def cut(self) -> None:
        """End a response that will not be completed, because we leave: what was sent goes out, the reset tells the rest."""
        if self.head_is_out():
            self.break_off(ErrorCodes.CANCEL)
        else:
            self.fail(503, "Service Unavailable")

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def break_off(self, code: int) -> None:
        """End a request without its answer, or in the middle of it."""
        self.link.engine.reset(self, code)
        self.on_reset(code)
        self.link.schedule_flush()

    def let_go(self) -> None:
        """The request is over, though its app may not know yet."""
        exchange = self.exchange
        self.deadline = 0.0
        if self.file is not None:
            self.file.stop()
            self.file = None
        if exchange is not None:
            self.exchange = None
            exchange.disconnect()
            self.link.leave_behind(exchange)

    def account(self, status: int) -> None:
        """Count a request that is over, and log it."""
        link = self.link
        context = link.context
        now = time.perf_counter()
        seconds = now - self.started
        first_byte_s = self.first_at - self.started if self.first_at else seconds
        context.serving.ledger.answered(self.method, status, self.sent_bytes, seconds, first_byte_s)
        access = context.access
        if access is not None:
            access.add(self.asker or link.peer(), self.method, self.target, "2", status, self.sent_bytes, seconds)
            if context.turn.access is None:
                context.turn.add_lines(access)

    def on_sweep(self, now: float) -> None:
        """Called about twice a second: has a deadline passed, is a head overdue?"""
        context = self.link.context
        if 0.0 < self.deadline < now:
            self.deadline = 0.0
            if self.exchange is not None:
                self.on_refused(PeerTooSlow(f"no byte of the request body for {context.body_s:g} s (body_timeout)"))
            else:
                self.break_off(ErrorCodes.NO_ERROR)
        elif 0.0 < self.write_deadline < now:
            if self.link.write_paused:
                self.write_deadline = now + context.write_s  # nobody's fault but that of the connection, which has a deadline of its own
            else:
                why = f"it opened no window for its response for {context.write_s:g} s (write_timeout)"
                context.peer_log.stream_closed(context.now, self.link.peer(), why)
                self.break_off(ErrorCodes.CANCEL)
        elif self.head_due:
            self.send_due_head()
