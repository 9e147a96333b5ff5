"""Accepting. All workers watch the same listening sockets, so the backlog outlives any of them.

Here is also the place of the accept gate: a worker that has more connections than the least loaded one will step back for a moment.
Today every worker accepts what it sees.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence

from cavalcade.net.connection import Connection, ConnectionContext
from cavalcade.types import Address

log = logging.getLogger("cavalcade")

ACCEPTS_PER_WAKE = 16  # then the loop turns once, so that a burst does not hold up requests that are being answered
EXHAUSTED_PAUSE_S = 0.5  # out of descriptors: the backlog is safe with the kernel, look again after this
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Gate:
    """Accepts on some listening sockets while open. It does not own them."""

    def __init__(self, context: ConnectionContext, socks: Sequence[socket.socket]) -> None:
        self._context = context
        self._loop = context.loop
        self._socks = list(socks)
        self._open = False
        self._exhausted = False
        self._starting: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Begin to accept."""
        if not self._open:
            self._open = True
            for sock in self._socks:
                self._loop.add_reader(sock.fileno(), self._on_acceptable, sock)

    def close(self) -> None:
        """Accept no more. What is in the backlog stays there for the siblings."""
        if self._open:
            self._open = False
            for sock in self._socks:
                self._loop.remove_reader(sock.fileno())

    def _on_acceptable(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                connected, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return  # a sibling was faster
            except ConnectionError:
                continue  # that client left before it was accepted
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(error)
                return
            self._exhausted = False
            self._adopt(connected, address)

    def _adopt(self, connected: socket.socket, address: object) -> None:
        connected.setblocking(False)
        client: Address | None = None
        server: Address | None
        name = connected.getsockname()
        if connected.family == socket.AF_UNIX:
            server = (name if isinstance(name, str) else name.decode("utf-8", "replace"), None)
        else:
            server = (name[0], name[1])
            if isinstance(address, tuple):
                client = (address[0], address[1])
        connection = Connection(self._context, "http", client, server)
        task = self._loop.create_task(self._connect(connection, connected))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, connection: Connection, connected: socket.socket) -> None:
        try:
            # The loops ask for no base class, their type stubs do.
            await self._loop.connect_accepted_socket(lambda: connection, connected)  # type: ignore[type-var]
        except OSError:
            connected.close()  # it broke before it began

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            log.error("cannot accept: %s; waiting for connections to close (see `ulimit -n`)", error.strerror)
        if self._open:
            self.close()
            self._loop.call_later(EXHAUSTED_PAUSE_S, self.open)
