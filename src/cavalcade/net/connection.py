"""One HTTP/1.1 connection: it moves bytes between a transport and the engine, keeps the deadlines, and is the `Stream` of the
request that is being answered.

Requests of one connection are answered one after the other. While one runs, later ones stay unparsed in the engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from cavalcade import limits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.asgi.order import NOTHING as NOTHING_SENT
from cavalcade.apps.asgi.scope import build as build_scope
from cavalcade.apps.asgi.websocket import WebSocketExchange, open_call
from cavalcade.apps.stream import Call, Pipe
from cavalcade.board.ledger_words import BYTES_RECEIVED
from cavalcade.errors import AppProtocolError, PeerError, PeerTooSlow
from cavalcade.net.context import ConnectionContext
from cavalcade.net.files import H1File
from cavalcade.net.handover import Passport
from cavalcade.net.link import BODY, FIRST_BYTE, FLUSH, HEAD, IDLE, LINGER, Link
from cavalcade.net.overload import failure_headers, turn_away
from cavalcade.net.websocket import WebSocketLink
from cavalcade.types import Address
from cavalcade.wire.h1 import H1
from cavalcade.wire.sink import Head
from cavalcade.wire.ws_handshake import is_websocket

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLIENT_CLOSED = 499  # nginx's number for a client that left before the answer; only ever logged

JOIN_BYTES = limits.JOIN_BYTES
TURN_BYTES = limits.WRITE_TURN_BYTES
PIECE_BYTES = limits.WRITE_TURN_PIECE_BYTES


class Connection(Link):
    """Speaks HTTP/1.1 and HTTP/1.0."""

    def __init__(
        self,
        context: ConnectionContext,
        scheme: str,
        client: Address | None,
        server: Address | None,
        opened_at: float,
        tls: dict[str, Any] | None = None,
    ) -> None:
        """`tls` is what the app is told of the TLS that the connection is over."""
        Link.__init__(self, context, scheme, client, server, opened_at)
        self.engine = H1(self, context.rules)
        wsgi = context.wsgi
        # What all requests of this connection have in common: of an ASGI scope, or of a WSGI environ.
        self.template = (
            asgi_scope.template(context.serving, scheme, client, server, tls) if wsgi is None else wsgi.template(scheme, client, server)
        )
        self.own_template = self.template  # that of requests which no proxy makes for somebody else
        self.asker = ""  # the client for the access log, where it is not the peer
        self.moved_in = False  # it came from a sibling
        self.exchange: Call | None = None
        self.unbegun: Call | None = None  # what is here of the request body comes first, then the app is called
        self.lingering = False
        self.discarded = 0
        # the request
        self.method = ""
        self.target = b""
        self.version = ""
        self.body_pending = False
        self.continue_due = False
        self.switched = False  # another protocol is spoken here now, by somebody else
        self.turn_due = False  # more of what is held will be fed in the next turn of the loop
        self.started = 0.0
        # the response
        self.first_at = 0.0  # when it began, where that was before its end
        self.sent_bytes = 0
        self.file: H1File | None = None

    # -- called by the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.attach(transport)
        context = self.context
        if self.moved_in:
            self.deadline = context.now + context.keep_alive_s
            self.deadline_for = IDLE
        else:
            self.deadline = context.now + context.head_s
            self.deadline_for = FIRST_BYTE

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            self.discard(data)
            return
        engine = self.engine
        try:
            engine.feed(data)
        except PeerError as error:
            self.refuse(error, data)
            return
        if self.unbegun is not None:
            self.begin_call()
        if engine.rest:
            self.hold_rest()
        elif self.exchange is None:
            if engine.head_bytes:
                self.await_head()
            elif self.context.draining and self.is_idle():
                self.leave()

    def stop_parsing(self) -> None:
        self.engine.close()

    def connection_lost(self, error: BaseException | None) -> None:
        Link.connection_lost(self, error)
        self.engine.release()

    def abandon(self) -> None:
        """The client is gone, or as good as gone: whoever waits for it is told, and the request is over."""
        exchange = self.exchange
        self.unbegun = None
        if self.file is not None:
            self.file.stop()
            self.file = None
        if exchange is not None:
            status = self.engine.response_status if self.head_is_out() else CLIENT_CLOSED
            self.exchange = None
            exchange.disconnect()
            self.account(status)

    def on_writable(self) -> None:
        if self.exchange is None and not self.body_pending and not self.lingering and not self.transport.is_closing():
            self.go_on()

    # -- called by the engine ------------------------------------------------------------------------------------------------

    def on_request(self, head: Head) -> None:
        context = self.context
        self.method = head.method
        self.target = head.target
        self.version = head.version
        self.sent_bytes = 0
        self.started = time.perf_counter()
        self.first_at = 0.0
        if head.forwarded:
            self.template, self.asker = context.forwarding.view(self, self.own_template, head)
        elif self.asker:
            self.template, self.asker = self.own_template, ""
        if context.closes:
            self.engine.keep_alive = False
        if context.limit and len(context.serving.running) >= context.limit:
            turn_away(self, head)
            return
        exchange: Call
        serving = context.serving
        if head.upgrade and serving.websocket_rules is not None and is_websocket(head):
            self.deadline = 0.0
            exchange = open_call(serving, self, self.template, head)
        else:
            if head.length == 0:
                self.deadline = 0.0
            else:
                self.await_request_body(head)
            if context.new_call is None:
                scope = build_scope(serving, self.template, head)
                exchange = Exchange(serving, self, scope, head.length != 0)
            else:
                exchange = context.new_call(self, head, self.template)
        self.exchange = exchange
        if self.continue_due:
            # Not at once: the body may be right behind the head, and then nobody waits to be told to go on.
            context.loop.call_soon(exchange.begin)
        elif self.body_pending:
            # What came with the head of the body is fed first: an app that asks for it need not wait for the loop's next turn.
            self.unbegun = exchange
        else:
            exchange.begin()

    def begin_call(self) -> None:
        """Call the app of a request with a body."""
        exchange = self.unbegun
        self.unbegun = None
        if exchange is not None and self.exchange is exchange:
            exchange.begin()

    def on_preface(self, data: bytes) -> bool:
        """The client speaks HTTP/2 without having asked whether we do (RFC 9113 section 3.3, prior knowledge)."""
        context = self.context
        if context.http2 is None or self.version or self.moved_in or self.secure:  # under TLS it has to ask (RFC 9113 section 3.2)
            return False
        link = context.http2(context, self.scheme, self.client, self.server, self.opened_at)
        link.succeed(self)
        link.begin(data)
        return True

    def await_request_body(self, head: Head) -> None:
        self.body_pending = True
        self.discarded = 0
        if head.expects_continue:
            # A client that was never told to go on may or may not send its body: what follows a response that comes before
            # that cannot be told apart, so it is announced that the connection ends with it.
            self.continue_due = True
            self.engine.keep_alive = False
        self.await_body(not head.expects_continue)

    def on_body(self, chunk: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.discard(chunk)
            return
        self.context.serving.ledger.add(BYTES_RECEIVED, len(chunk))
        if exchange.feed_body(chunk) > limits.BODY_BUFFER_BYTES:
            self.pause_reading()
        else:
            self.await_body(True)

    def on_end(self) -> None:
        self.body_pending = False
        if self.continue_due:
            self.go_ahead()  # it did not wait to be told
        exchange = self.exchange
        if exchange is not None:
            self.deadline = 0.0
            exchange.feed_end()
            if self.unbegun is not None:
                self.begin_call()
        elif not self.lingering and not self.write_paused:
            self.go_on()

    def go_ahead(self) -> None:
        """The body is on its way, or asked for: the connection can go on after it, unless the client was told otherwise."""
        self.continue_due = False
        if not self.head_is_out() and (not self.context.draining or self.context.handover is not None):
            self.engine.keep_alive = self.engine.head.keep_alive

    # -- called by the exchange: the `Stream` ------------------------------------------------------------------------------------

    def start(self, status: int, headers: Any) -> None:
        engine = self.engine
        engine.start_response(status, headers)
        if engine.response_length < 0:
            # No length given: this may be a stream whose first piece comes much later, and the client wants to see the head.
            # If the body comes in the same turn of the loop, they go out together.
            self.context.loop.call_soon(self.send_head, self.exchange)

    def send_head(self, exchange: Call | None) -> None:
        """Send a head that is still due, for example that of an event stream with no event yet."""
        if exchange is not None and self.exchange is exchange and self.engine.head_due and not exchange.gone:
            self.first_at = time.perf_counter()
            self.transport.write(self.engine.take_head(0, True))

    def write(self, body: bytes, more: bool) -> None:
        engine = self.engine
        size = len(body)
        if engine.head_due and not more and size <= JOIN_BYTES:
            self.transport.write(engine.respond(body))
            if not engine.response_bodiless:
                self.sent_bytes = size
        else:
            self.write_piece(body, size, more)
        if not more:
            self.response_done()

    def write_piece(self, body: bytes, size: int, more: bool) -> None:
        engine = self.engine
        if engine.head_due and more:
            self.first_at = time.perf_counter()
        before, after = engine.frame(size, more)
        if engine.response_bodiless:
            body = after = b""
        else:
            self.sent_bytes += size
        if size <= JOIN_BYTES:
            body = before + body + after
            before = after = b""
        if self.transport.is_closing():
            if more:
                self.abandon()  # broken a moment ago: we are told in the next turn, which an app that writes and writes would not let come
            return
        for piece in (before, body, after):  # a large body is not copied
            if piece:
                self.transport.write(piece)
        if more:
            self.turn_bytes += size + PIECE_BYTES
            if self.turn_bytes > TURN_BYTES:
                self.end_turn()

    def hint(self, links: list[tuple[bytes, bytes]]) -> None:
        hints = self.engine.early_hints(links)
        if hints and not self.head_is_out() and not self.transport.is_closing():
            self.transport.write(hints)

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        last = self.engine.end_chunks(trailers)
        if last and not self.transport.is_closing():
            self.transport.write(last)
        self.response_done()

    def reword(self, reason: bytes) -> None:
        self.engine.reword(reason)

    def send_file(self, fd: int, offset: int, count: int, more: bool = False, done: Callable[[], None] | None = None) -> None:
        engine = self.engine
        if engine.head_due:
            self.first_at = time.perf_counter()
        try:
            before, behind = engine.frame(count, more)
        except AppProtocolError:
            os.close(fd)
            raise
        if before:
            self.transport.write(before)
        if engine.response_bodiless:
            count = 0
        sent = 0
        if 0 < count <= limits.FILE_TURN_BYTES and not self.secure:
            sent = self.transport.send_file(fd, offset, count)
            if sent == count:  # as usual where it is not large
                os.close(fd)
                self.file_sent(count, behind, not more, done)
                return
        self.file = H1File(self, fd, offset, count, sent=sent, last=not more, behind=behind, done=done)
        self.file.start()

    def file_sent(self, count: int, behind: bytes, last: bool, done: Callable[[], None] | None) -> None:
        """The kernel has all `count` bytes of a file; `behind` it something is left to say, and `done` wants to hear of it."""
        self.sent_bytes += count
        if behind:
            self.transport.write(behind)
        if done is not None:
            done()
        if last:
            self.response_done()

    def most_read(self) -> int:
        return JOIN_BYTES if self.secure else limits.FILE_JOIN_BYTES

    def progress(self) -> int | None:
        waits = self.body_pending and not self.read_paused and not self.continue_due
        return None if waits or self.write_paused or self.file is not None else self.sent_bytes

    def body_left(self) -> int:
        engine = self.engine
        return engine.response_length if engine.head_due or engine.response_length < 0 else engine.response_left

    def head_is_out(self) -> bool:
        """Has the client seen anything of the response that is being sent?"""
        exchange = self.exchange
        return exchange is not None and exchange.sent != NOTHING_SENT and not self.engine.head_due

    def want_body(self) -> None:
        if self.body_pending and self.exchange is not None:
            if self.continue_due:
                self.go_ahead()
                if not self.head_is_out():
                    # RFC 9110 section 10.1.1: only now is it known that the body is wanted.
                    self.transport.write(CONTINUE)
            self.resume_reading()
            self.await_body(True)

    def fail(self, status: int, text: str) -> bool:
        if self.transport is None or self.transport.is_closing() or self.exchange is None:
            return False
        if self.head_is_out():
            self.reset()
            return False
        self.start(status, failure_headers(status, self.context.draining))
        self.write(text.encode(), False)
        return True

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        call = self.exchange
        assert isinstance(call, WebSocketExchange)
        self.transport.write(self.engine.switch_protocols(b"websocket", headers))
        self.exchange = None
        self.switched = True
        self.account(self.engine.response_status)
        return WebSocketLink(self, call, self.engine)

    def cut(self) -> None:
        """End a response that will not be completed, because we leave: what was sent goes out, the missing end tells the rest."""
        if not self.head_is_out():
            self.fail(503, "Service Unavailable")
            return
        if self.file is not None:
            self.file.stop()
            self.file = None
        self.exchange = None
        self.account(self.engine.response_status)
        self.close()

    # -- the end of a response -------------------------------------------------------------------------------------------------

    def response_done(self) -> None:
        engine = self.engine
        exchange = self.exchange
        self.exchange = None
        self.account(engine.response_status)
        context = self.context
        if (
            engine.keep_alive
            and not engine.rest
            and not self.body_pending
            and not self.write_paused
            and not self.read_paused
            and not context.draining
            and not engine.response_left
        ):
            # The usual end: nothing is left over, on to the next request.
            self.deadline = context.now + context.keep_alive_s
            self.deadline_for = IDLE
            engine.next_request()
        else:
            self.end_response(exchange)

    def end_response(self, exchange: Call | None) -> None:
        """The end of a response after which something is left to look at."""
        engine = self.engine
        if engine.response_short() and exchange is not None:
            exchange.complain_short(engine.response_length - engine.response_left, engine.response_length)
            self.reset()
            return
        if not engine.keep_alive:
            self.close()
        elif self.body_pending:
            self.await_body(True)
            self.resume_reading()
        elif not self.write_paused:
            self.go_on()

    def go_on(self) -> None:
        """Ready for the next request of this connection."""
        context = self.context
        self.deadline = context.now + context.keep_alive_s
        self.deadline_for = IDLE
        engine = self.engine
        if self.read_paused and not engine.feeding:
            self.hold_rest()
        if engine.rest and not engine.feeding:
            # Not from here: this may be inside of an app's `send`, and the next request must not run inside of that.
            context.loop.call_soon(self.next_request)
            return
        engine.next_request()
        if context.draining and not engine.feeding:
            self.leave()

    def next_request(self) -> None:
        self.turn_due = False
        if self.lingering or self.exchange is not None or self.transport.is_closing():
            return
        engine = self.engine
        rest = engine.rest
        try:
            engine.next_request()
        except PeerError as error:
            self.refuse(error, rest)
            return
        if self.unbegun is not None:
            self.begin_call()
        if engine.rest or self.read_paused:
            self.hold_rest()
        self.await_head()
        if self.context.draining and self.is_idle():
            self.leave()  # the last of the held requests was answered at once, inside of the engine's feed

    def hold_rest(self) -> None:
        """Bytes of later requests are held, or were: only so many, and not for ever."""
        engine = self.engine
        if self.switched:
            return  # they are no requests; who speaks the other protocol takes them
        if len(engine.rest) > limits.PIPELINE_BUFFER_BYTES:
            self.pause_reading()
        elif self.exchange is None:
            self.resume_reading()
        if self.exchange is None and not self.turn_due and engine.due():
            self.turn_due = True
            self.context.loop.call_soon(self.next_request)

    def account(self, status: int) -> None:
        """Count a request that is over, and log it."""
        context = self.context
        now = time.perf_counter()
        seconds = now - self.started
        ledger = context.serving.ledger
        ledger.answered(self.method, status, self.sent_bytes, seconds, self.first_at - self.started if self.first_at else seconds)
        access = context.access
        if access is not None:
            access.add(self.asker or self.peer(), self.method, self.target, self.version, status, self.sent_bytes, seconds)
            if context.turn.access is None:
                context.turn.add_lines(access)

    def refuse(self, error: PeerError, data: bytes) -> None:
        """The peer broke a rule: answer if that is still possible, say so in the log, close."""
        context = self.context
        exchange = self.exchange
        answered = self.body_pending if exchange is None else self.head_is_out()
        context.peer_log.refused(context.now, self.peer(), error, data, late=answered)
        self.unbegun = None
        if exchange is not None:
            self.exchange = None
            exchange.disconnect()
            self.account(self.engine.response_status if answered else error.status)
            if answered:
                self.reset()
                return
        elif answered:
            self.linger()  # its request has been answered already; another answer would be taken for that of the next
            return
        else:
            context.serving.ledger.refused(error.status)
        if not self.transport.is_closing():
            self.transport.write(self.engine.refuse(error.status, error.cause, error.fields))
        self.linger()

    def close(self) -> None:
        """Close after what was written has gone out."""
        if self.body_pending:
            self.linger()
        else:
            self.engine.close()
            self.await_flush()
            self.transport.close()

    def linger(self) -> None:
        """Close while the peer may still be sending: a plain close would make the kernel answer its bytes with a reset, which can
        destroy our response before it is read. So: end our side, and read on for a moment (RFC 9112 section 9.6)."""
        self.engine.close()
        self.lingering = True
        transport = self.transport
        if transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self.resume_reading()
        self.await_flush()
        if not self.deadline:
            self.deadline = self.context.now + limits.LINGER_S
            self.deadline_for = LINGER

    def abort(self) -> None:
        """Close now; what was written and not taken is lost."""
        if self.exchange is not None:
            self.reset()
        else:
            self.transport.abort()

    def discard(self, data: bytes) -> None:
        """Bytes that nobody wants, read so that the connection can go on or end well."""
        self.discarded += len(data)
        if self.discarded > limits.UNREAD_BODY_BYTES and not self.lingering:
            self.linger()

    # -- flow and deadlines ------------------------------------------------------------------------------------------------------

    def await_head(self) -> None:
        """If a head has begun, it must end. More of it does not move its deadline."""
        if self.exchange is None and self.engine.head_bytes and self.deadline_for != HEAD:
            self.deadline = self.context.now + self.context.head_s
            self.deadline_for = HEAD

    def await_body(self, running: bool) -> None:
        self.deadline = self.context.now + self.context.body_s if running else 0.0
        self.deadline_for = BODY

    def on_sweep(self, now: float) -> None:
        """Called about twice a second: has a deadline passed, is a head overdue?"""
        Link.on_sweep(self, now)
        if self.file is not None:
            self.file.on_sweep(now)
        exchange = self.exchange
        if exchange is not None and self.engine.head_due:
            self.send_head(exchange)

    def on_flushed(self, now: float) -> None:
        if self.lingering:
            self.deadline = now + limits.LINGER_S
            self.deadline_for = LINGER

    def on_deadline(self, now: float) -> None:
        kind = self.deadline_for
        if FIRST_BYTE <= kind <= IDLE and self.has_unread():
            # It came in time, and the loop, which was blocked or turns right now, has not come to read it: the fault is ours. Once, for
            # a head that drips in would always have a byte unread.
            self.deadline_for = -kind
            self.deadline = now
            return
        kind = abs(kind)
        if kind == HEAD:
            self.refuse(PeerTooSlow(f"the request head took longer than {self.context.head_s:g} s (head_timeout)"), b"")
        elif kind == BODY and self.exchange is not None:
            self.refuse(PeerTooSlow(f"no byte of the request body for {self.context.body_s:g} s (body_timeout)"), b"")
        elif kind == LINGER:
            self.transport.abort()
        elif kind == FLUSH:
            self.give_up_writing(now)
        else:  # idle, never used, or a body that nobody reads
            self.body_pending = False
            self.close()

    # -- leaving -----------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The worker leaves: move to a sibling or close, now if this connection is idle, else after its response."""
        if self.exchange is not None:
            if self.context.handover is None:
                self.engine.keep_alive = False
        elif self.is_idle():
            self.leave()
        elif self.body_pending:
            self.close()
        # else: half of a head is here, or it lingers; the head is answered first

    def leave(self) -> None:
        handover = self.context.handover
        if handover is not None:
            handover.offer(self)
        elif not self.context.last_call:
            self.close_idle()

    def is_idle(self) -> bool:
        """Between two requests, or before the first, with nothing on its way in either direction that we know of?"""
        return self.exchange is None and not self.lingering and not self.body_pending and self.engine.idle()

    def close_idle(self) -> None:
        """Close a connection that could not be moved."""
        if self.is_idle() and not self.has_unread():
            self.close()
        else:
            self.engine.keep_alive = False

    def passport(self) -> Passport:
        """What a sibling must know to go on with this connection."""
        return Passport(self.scheme, self.client, self.server, self.opened_at)

    def forget(self) -> None:
        """It lives on with a sibling: close our copy of the descriptor, which sends nothing."""
        self.engine.close()
        self.deadline = 0.0
        self.transport.abort()
