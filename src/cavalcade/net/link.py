"""What every client connection has, whatever is spoken on it: a transport, its two addresses, one deadline, and backpressure.

No timer belongs to a connection: it stores until when it may stay as it is, and a sweep over all of them looks (net/sweep.py).
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

from cavalcade import limits
from cavalcade.apps.stream import add_waiter, wake_all
from cavalcade.board.layout import CONNECTIONS_HTTP1
from cavalcade.config.addresses import join
from cavalcade.net.context import ConnectionContext
from cavalcade.types import Address

# What the deadline is for.
NOTHING, FIRST_BYTE, HEAD, BODY, IDLE, LINGER, FLUSH = range(7)

RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes close() send a reset


class Link:
    """An asyncio protocol by shape, and the base of each of ours. It needs no base class of theirs: neither loop asks for one."""

    protocol = CONNECTIONS_HTTP1  # where it is counted on the board

    def __init__(self, context: ConnectionContext, scheme: str, client: Address | None, server: Address | None, opened_at: float) -> None:
        self.context = context
        self.scheme = scheme
        self.secure = scheme == "https"  # TLS: our bytes must go through the transport, and no other process can take it over
        self.client = client
        self.server = server
        self.opened_at = opened_at  # monotonic; it survives a hand-over
        self.client_name = ""  # for the log, once somebody wants it
        self.transport: Any = None
        self.fd = -1
        self.deadline = 0.0  # 0 for none
        self.deadline_for = NOTHING
        self.read_paused = False
        self.write_paused = False
        self.write_deadline = 0.0
        self.write_size = 0
        self.turn_ending = False  # it is for the loop to turn, and not for the client, that writing is paused
        self.turn_bytes = 0  # written by an app that could go on and on, since others had their turn
        self.writers: list[asyncio.Future[None]] = []

    def peer(self) -> str:
        """The client's address, for the log."""
        name = self.client_name
        if not name:
            name = self.client_name = written(self.client)
        return name

    # -- what each kind does in its own way ------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    def stop_parsing(self) -> None:
        """Whatever the peer sends from now on is not for us."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The client is gone, or as good as gone: whoever waits for it is told."""
        raise NotImplementedError

    def on_deadline(self, now: float) -> None:
        """The deadline has passed, and is no longer set."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The client has taken what was held back; those who waited are awake already."""

    def drain(self) -> None:
        """The worker leaves: end as soon as nothing is lost by it."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Is nothing under way here in either direction, as far as we know?"""
        raise NotImplementedError

    def close_idle(self) -> None:
        """Close now if idle, else as soon as that is so."""
        raise NotImplementedError

    # -- called by the transport ---------------------------------------------------------------------------------------------

    def attach(self, transport: Any) -> None:
        """This is now what the transport talks to."""
        self.transport = transport
        self.fd = transport.fileno()
        self.context.connections.add(self)
        transport.set_write_buffer_limits(limits.WRITE_HIGH_BYTES)

    def succeed(self, before: Link) -> None:
        """Take the connection over from the protocol spoken `before`."""
        before.deadline = before.write_deadline = 0.0
        self.context.connections.discard(before)
        self.attach(before.transport)
        self.transport.set_protocol(self)
        self.read_paused = before.read_paused
        if before.write_paused:
            before.write_paused = False
            self.pause_writing()

    def eof_received(self) -> bool:
        """The client has left, or says that it will send nothing more, which looks the same. What was written still goes out."""
        self.stop_parsing()
        self.abandon()
        self.await_flush()
        return False  # the transport closes

    def connection_lost(self, error: BaseException | None) -> None:
        context = self.context
        context.connections.discard(self)
        context.closed()
        self.stop_parsing()
        self.deadline = 0.0
        self.write_deadline = 0.0
        self.write_paused = False
        self.abandon()
        self.wake_writers()

    # -- backpressure ----------------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.turn_ending = False
        self.write_paused = True
        self.write_size = self.transport.get_write_buffer_size()
        self.write_deadline = self.context.now + self.context.write_s

    def resume_writing(self) -> None:
        self.write_paused = False
        self.write_deadline = 0.0
        self.wake_writers()
        self.on_writable()

    def end_turn(self) -> None:
        """Let an app that writes and writes wait until the loop has turned: others have their turn, and when the connection has broken
        under it that is told only then."""
        self.turn_bytes = 0
        if not self.write_paused:
            self.pause_writing()
            self.turn_ending = True
            self.context.loop.call_soon(self.next_turn)

    def next_turn(self) -> None:
        """Unless the transport has paused it as well meanwhile, and will say when it is over."""
        if self.turn_ending and self.write_paused and not self.transport.is_closing():
            self.turn_ending = False
            self.resume_writing()

    def wait_writable(self) -> asyncio.Future[None]:
        if self.write_paused:
            return add_waiter(self.writers, self.context.loop)
        writer: asyncio.Future[None] = self.context.loop.create_future()
        writer.set_result(None)
        return writer

    def wake_writers(self) -> None:
        if self.writers:
            writers, self.writers = self.writers, []
            wake_all(writers)

    def pause_reading(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.deadline = 0.0  # it is the app that is slow now
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # -- deadlines ---------------------------------------------------------------------------------------------------------------

    def has_unread(self) -> bool:
        """Has the client sent, or ended, something that the loop has not come to read, though it may?"""
        if self.read_paused:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def on_sweep(self, now: float) -> None:
        """Called about twice a second: has a deadline passed?"""
        if 0.0 < self.deadline < now:
            self.deadline = 0.0
            self.on_deadline(now)
        elif self.deadline_for == FLUSH and self.deadline:
            if self.taken():
                self.await_flush()
                if not self.deadline:
                    self.on_flushed(now)
        elif self.write_paused:
            if self.taken():
                self.write_deadline = now + self.context.write_s
            elif self.write_deadline < now:
                self.give_up_writing(now)

    def on_flushed(self, now: float) -> None:
        """The client has taken all that had to go out before the end."""

    def await_flush(self) -> None:
        """What was written must be taken, bit by bit, before the connection can close."""
        self.deadline = 0.0
        size = self.transport.get_write_buffer_size()
        if size:
            self.write_size = size
            self.deadline = self.context.now + self.context.write_s
            self.deadline_for = FLUSH

    def taken(self) -> bool:
        """Has the client taken anything of what was written since this was last asked?"""
        before = self.write_size
        self.write_size = size = self.transport.get_write_buffer_size()
        return bool(size < before)

    def give_up_writing(self, now: float) -> None:
        why = f"it took no byte of its response for {self.context.write_s:g} s (write_timeout)"
        self.context.peer_log.closed(now, self.peer(), why)
        self.reset()

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """End so that the client can tell that something is missing."""
        self.stop_parsing()
        self.deadline = 0.0
        self.abandon()
        self.wake_writers()
        transport = self.transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()

    def abort(self) -> None:
        """Close now; what was written and not taken is lost."""
        self.reset()


def written(client: Address | None) -> str:
    """A client's address, for the log."""
    return "a unix socket" if client is None else join(client[0], client[1] or 0)
