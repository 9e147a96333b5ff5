"""One HTTP/2 connection: it moves bytes between a transport and the engine, and has the deadlines that are not those of one stream.

All that happens in one turn of the loop goes out in one write. A connection of HTTP/2 is never handed over: its state is in two
compression tables and many windows. It says GOAWAY, twice, and ends when what was begun is finished (RFC 9113 section 6.8).
"""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes

from cavalcade import limits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.stream import Call
from cavalcade.board.layout import CONNECTIONS_HTTP2
from cavalcade.errors import ConnectionFault, StreamFault
from cavalcade.net.context import ConnectionContext
from cavalcade.net.h2_stream import H2Stream
from cavalcade.net.link import FLUSH, IDLE, LINGER, Link
from cavalcade.types import Address
from cavalcade.wire.h2 import H2


def name_of(code: int) -> str:
    """An error code as RFC 9113 section 7 writes it."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"{code:#x}"


class H2Connection(Link):
    """Speaks HTTP/2, over TLS or in the clear."""

    stream_class = H2Stream
    protocol = CONNECTIONS_HTTP2

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
        self.engine = H2(self, context.rules, websocket=context.serving.websocket_rules is not None)
        wsgi = context.wsgi
        self.template = (
            asgi_scope.template(context.serving, scheme, client, server, tls) if wsgi is None else wsgi.template(scheme, client, server)
        )
        self.feeding = False
        self.flush_due = False
        self.lingering = False
        self.leaving = False
        self.partial_deadline = 0.0  # of a frame or a head that has begun
        self.settle_deadline = 0.0  # between the two GOAWAYs
        self.at_work: list[Call] = []  # apps whose requests are over

    # -- called by the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.attach(transport)
        self.begin()

    def begin(self, data: bytes = b"") -> None:
        """The transport is here, and perhaps the first bytes with it."""
        self.partial_deadline = self.context.now + self.context.head_s
        self.data_received(data)
        if self.context.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        engine = self.engine
        engine.now = self.context.now
        self.feeding = True
        try:
            engine.feed(data)
        except ConnectionFault as error:
            self.break_off(error)
            return
        finally:
            self.feeding = False
        if not engine.is_partial():
            self.partial_deadline = 0.0
        elif not self.partial_deadline:
            self.partial_deadline = self.context.now + self.context.head_s
        if not engine.streams and self.deadline_for != IDLE:
            self.await_request()
        self.flush()

    def stop_parsing(self) -> None:
        self.engine.close()

    def abandon(self) -> None:
        """The client is gone, or as good as gone: every request of it is over."""
        for stream in tuple(self.engine.streams.values()):
            self.engine.forget(stream)
            stream.on_reset(0)
        self.deadline = self.partial_deadline = self.settle_deadline = 0.0

    def pause_writing(self) -> None:
        Link.pause_writing(self)
        self.engine.held_back = True

    def on_writable(self) -> None:
        engine = self.engine
        engine.held_back = False
        engine.send_waiting()
        self.resume_reading()
        for stream in tuple(engine.streams.values()):
            if not stream.pending:
                stream.on_taken()
        if not engine.streams and not self.lingering:
            self.await_request()
        self.flush()

    # -- called by the engine ------------------------------------------------------------------------------------------------

    def new_stream(self, stream_id: int) -> H2Stream | None:
        """None while too many apps are still at work on requests that this client has cancelled."""
        if self.at_work:
            self.at_work = [call for call in self.at_work if not call.task.done()]
            if len(self.at_work) >= limits.H2_STREAMS:
                why = f"{len(self.at_work)} requests that it has cancelled are still being worked on"
                self.context.peer_log.stream_closed(self.context.now, self.peer(), why)
                return None
        self.deadline = 0.0
        self.deadline_for = 0
        if self.context.closes and not self.leaving:
            self.drain()
        return self.stream_class(self, stream_id)

    def on_malformed(self, error: StreamFault) -> None:
        self.context.peer_log.refused_stream(self.context.now, self.peer(), error, name_of(error.code))
        self.schedule_flush()

    def on_complaint(self, code: int, why: bytes) -> None:
        self.context.peer_log.complained(self.context.now, self.peer(), name_of(code), why)

    def on_settled(self) -> None:
        self.settle_deadline = 0.0
        self.engine.stop_taking()

    def on_stream_closed(self) -> None:
        if not self.engine.streams:
            self.await_request()
            if self.leaving:
                self.schedule_flush()

    # -- called by streams ---------------------------------------------------------------------------------------------------

    def leave_behind(self, call: Call) -> None:
        """The request of this app is over, the app may not be."""
        if call.task is not None and not call.task.done():
            self.at_work.append(call)

    def schedule_flush(self) -> None:
        """Something is to be written: at the end of this turn, with all that comes until then."""
        if not self.feeding and not self.flush_due:
            self.flush_due = True
            self.context.loop.call_soon(self.flush)

    def flush(self) -> None:
        self.flush_due = False
        engine = self.engine
        transport = self.transport
        if transport.is_closing():
            engine.take_output()
            return
        while data := engine.take_output():
            self.transport.write(data)
            if engine.waiting and not self.write_paused:
                engine.send_waiting()
        if self.write_paused and transport.get_write_buffer_size() > limits.H2_HELD_OUTPUT_BYTES:
            self.pause_reading()  # it asks, and does not take the answers
        if self.leaving and not engine.streams and not engine.settling and not self.lingering:
            self.linger()

    # -- deadlines ---------------------------------------------------------------------------------------------------------------

    def await_request(self) -> None:
        self.deadline = self.context.now + self.context.keep_alive_s
        self.deadline_for = IDLE

    def on_sweep(self, now: float) -> None:
        Link.on_sweep(self, now)
        if self.lingering or self.transport.is_closing():
            return
        self.engine.now = self.context.now
        if 0.0 < self.partial_deadline < now and not self.has_unread():
            if not self.engine.has_begun():
                self.close_idle()  # never used: no fault, clients keep such in reserve
                return
            why = f"a frame, or the fields of a request, took longer than {self.context.head_s:g} s (head_timeout)"
            self.engine.goaway(self.engine.highest, ErrorCodes.NO_ERROR, why)
            self.break_off(ConnectionFault(why, ErrorCodes.NO_ERROR))
            return
        if 0.0 < self.settle_deadline < now:
            self.on_settled()  # it does not answer PINGs
            self.schedule_flush()
        for stream in tuple(self.engine.streams.values()):
            stream.on_sweep(now)  # type: ignore[attr-defined]

    def on_deadline(self, now: float) -> None:
        kind = self.deadline_for
        if kind == LINGER:
            self.transport.abort()
        elif kind == FLUSH:
            self.give_up_writing(now)
        elif self.has_unread():
            self.deadline = now  # see Connection.on_deadline
        else:
            self.close_idle()

    def on_flushed(self, now: float) -> None:
        self.deadline = now + limits.LINGER_S
        self.deadline_for = LINGER

    # -- leaving -----------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The worker leaves. Asked a second time, the peer has had time enough to hear of it."""
        if self.lingering or self.transport.is_closing():
            return
        if not self.leaving:
            self.leaving = True
            self.engine.announce_leaving()
            self.settle_deadline = self.context.now + limits.H2_SETTLE_S
        else:
            self.on_settled()
        self.schedule_flush()

    def is_idle(self) -> bool:
        return not self.engine.streams and not self.lingering

    def close_idle(self) -> None:
        if not self.lingering and not self.transport.is_closing():
            self.leaving = True
            self.on_settled()
            self.schedule_flush()

    def break_off(self, error: ConnectionFault) -> None:
        """The peer broke the protocol, or is a flood: GOAWAY says why, the log too."""
        self.feeding = False
        self.context.peer_log.closed(self.context.now, self.peer(), f"{error.cause} (GOAWAY {name_of(error.code)})")
        self.engine.close()
        self.abandon()
        if not self.transport.is_closing():
            self.transport.write(self.engine.take_output())
            self.linger()

    def linger(self) -> None:
        """Close while the peer may still be sending: a plain close would make the kernel answer its bytes with a reset, which can
        destroy what we sent before it is read. So: end our side, and read on for a moment."""
        self.lingering = True
        self.engine.close()
        self.partial_deadline = self.settle_deadline = 0.0
        transport = self.transport
        if not transport.can_write_eof():
            self.await_flush()
            transport.close()
            return
        transport.write_eof()
        self.resume_reading()
        self.await_flush()
        if not self.deadline:
            self.on_flushed(self.context.now)
