"""Handing idle connections to siblings, alive.

A worker that leaves sends the descriptors of its idle plaintext HTTP/1.1 connections, with what is known of them, through a queue
that all workers share: a pair of sockets made by the supervisor, which holds both ends, so that a descriptor in the queue
outlives its sender. Every worker watches the other end as if it were one more listening socket. The client notices nothing: no
`Connection: close`, no race with its next request.

Before the descriptor goes, reading is paused, so that no byte is taken by a process that is leaving. After it has gone, our
copy is closed, which sends nothing, because the kernel's socket lives on in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from cavalcade import limits
from cavalcade.board.ledger_words import HAND_OVERS
from cavalcade.board.siblings import Siblings

if TYPE_CHECKING:
    from cavalcade.net.connection import Connection

log = logging.getLogger("cavalcade")

PASSPORT_BYTES = 8192


class Passport(msgspec.Struct, array_like=True):
    """What goes with a descriptor. `opened_at` is on the monotonic clock, which all processes of a machine share.

    In an upgrade it goes from one version of the server to another, so it may only ever grow, at its end, by fields with defaults."""

    scheme: str
    client: tuple[str, int | None] | None
    server: tuple[str, int | None] | None
    opened_at: float


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Passport)


def make_queue() -> tuple[socket.socket, socket.socket]:
    """The two ends of the queue: (to give, to take). One message is one connection, whole or not at all."""
    try:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:  # macOS has no such sockets; its datagrams are as reliable, there are fewer at a time
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pair:
        end.setblocking(False)
    return pair


def take(queue: socket.socket) -> tuple[socket.socket, Passport] | None:
    """The next connection from the queue. Raises `BlockingIOError` when there is none; None for one that was lost on the way."""
    data, fds, _, _ = socket.recv_fds(queue, PASSPORT_BYTES, 1)
    if not fds:
        # The kernel drops a descriptor that the receiver has no room for.
        log.error("a connection was lost in its hand-over: no free descriptor here (see `ulimit -n`)")
        return None
    return socket.socket(fileno=fds[0]), _decoder.decode(data)


class HandOver:
    """The giving side, made when a worker begins to leave."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: socket.socket, siblings: Siblings | None) -> None:
        """Without `siblings` there is always somebody: another server, that looks at the queue."""
        self._loop = loop
        self._queue = queue
        self._siblings = siblings
        self._waiting: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.given = 0

    def possible(self) -> bool:
        """Is there anybody to take connections?"""
        return self._siblings is None or self._siblings.ready()

    def offer(self, connection: Connection) -> None:
        """Give an idle connection away, now or as soon as that is possible; it is served here until then. If there is nobody to
        take it, it is closed."""
        if not self._give(connection):
            self._waiting.add(connection)
            if self._timer is None:
                self._timer = self._loop.call_later(limits.HAND_OVER_RETRY_S, self._again)

    def _again(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, set()
        if waiting and not self.possible():
            for connection in waiting:
                connection.close_idle()
            return
        for connection in waiting:
            if connection.is_idle():  # a busy one comes back after its response
                self.offer(connection)

    def _give(self, connection: Connection) -> bool:
        transport: Any = connection.transport
        if transport.is_closing():
            return True
        if transport.get_write_buffer_size():
            return False
        sock = transport.get_extra_info("socket")
        transport.pause_reading()
        try:
            socket.send_fds(self._queue, [_encode(connection.passport())], [sock.fileno()])
        except BlockingIOError:  # the queue is full: the siblings are slower than we
            transport.resume_reading()
            return False
        except OSError as error:
            log.warning("a connection could not be handed over and is closed: %s", error.strerror)
            transport.resume_reading()
            connection.close_idle()
            return True
        self.given += 1
        connection.context.serving.ledger.add(HAND_OVERS, 1)
        connection.forget()
        return True
