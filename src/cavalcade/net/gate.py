"""The accept gate: connections go to the least loaded worker.

All workers watch the same listening sockets, so the backlog outlives any of them, and one more queue, through which a leaving
worker gives its connections away (net/handover.py). Left to themselves they would share badly: whoever wakes first takes a whole
burst. So a worker accepts only while it has no more connections than the least loaded sibling on the board; otherwise it steps
back for a moment, in which the level-triggered socket wakes the others. At equal load nobody waits.

A sibling that is blocked or leaving does not count, so nobody waits for it; and a worker steps back only so often in a row, so
that a connection is accepted within milliseconds whatever the board says.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from cavalcade import limits
from cavalcade.board.ledger_words import ACCEPT_WAIT, ACCEPTED
from cavalcade.board.siblings import Siblings
from cavalcade.net import handover
from cavalcade.net.context import ConnectionContext
from cavalcade.net.handshake import Handshake
from cavalcade.net.link import IDLE, Link, written
from cavalcade.net.listener import Listener, plain_name, queued_s
from cavalcade.net.proxied import Proxied
from cavalcade.net.tls import Tls
from cavalcade.net.transport import Transport
from cavalcade.types import Address

log = logging.getLogger("cavalcade")

ACCEPTS_PER_WAKE = 16  # then the loop turns once, so that a burst does not hold up requests that are being answered
ACCEPT_WAKE_S = 0.01  # or after so long
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SHUT = (errno.EINVAL, errno.EBADF)  # what accept() says of a socket that a sibling has shut down


class Gate:
    """Accepts on some listening sockets while open. It does not own them."""

    def __init__(
        self,
        context: ConnectionContext,
        listeners: Sequence[Listener],
        *,
        siblings: Siblings | None = None,
        queue: socket.socket | None = None,
        name_peer: Callable[[socket.socket], Address | None] | None = None,
        tls: Tls | None = None,
        connections_max: int = 0,
    ) -> None:
        self._context = context
        self._ledger = context.serving.ledger
        self._name_peer = name_peer
        self._tls = tls
        self._connections_max = connections_max or sys.maxsize
        self._loop = context.loop
        self._listeners = list(listeners)
        self._siblings = siblings
        self._queue = queue
        self._open = False
        self._watching = False
        self._stepped_back = 0
        self._exhausted_at = 0.0  # when accept() last failed for want of descriptors; 0 while there are enough
        self._shed = 0  # idle connections closed since they ran out
        self._first = False  # nothing was accepted in this wake yet
        self._proxied = Proxied(context, self._new_link)

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        self._watch()

    def close(self, *, last: bool = False) -> None:
        """Accept no more. What is in the backlog stays there for the siblings.

        The `last` one to leave takes what is there before it closes, and shuts the listening sockets: whoever connects later is
        refused at once, instead of waiting in a backlog that nobody will ever look at.
        """
        self._open = False
        self._unwatch()
        # A load balancer that connects without a header for long only looks whether we are there.
        self._loop.call_later(limits.LAST_CALL_S, self._proxied.give_up)
        if last:
            for listener in self._listeners:
                while self._accept(listener):
                    pass
                try:
                    listener.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # a sibling was faster

    def wait_connected(self) -> Awaitable[None]:
        """Done when every connection that was accepted has its transport."""
        return self._proxied.wait()

    # -- watching ----------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._open and not self._watching:
            self._watching = True
            for listener in self._listeners:
                self._loop.add_reader(listener.sock.fileno(), self._on_wake, partial(self._accept, listener))
            if self._queue is not None:
                self._loop.add_reader(self._queue.fileno(), self._on_wake, partial(self._take_over, self._queue))

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.sock.fileno())
            if self._queue is not None:
                self._loop.remove_reader(self._queue.fileno())

    def _on_wake(self, take: Callable[[], bool]) -> None:
        # The app of a client that has asked already runs in here: one that blocks must not hold up those who wait with it.
        enough = time.monotonic() + ACCEPT_WAKE_S
        self._first = True
        for _ in range(ACCEPTS_PER_WAKE):
            if self._siblings is not None and self._stepped_back < limits.STEP_BACK_TIMES:
                excess = self._context.load - self._siblings.least_load()
                if excess > 0:
                    self._step_back(excess)
                    return
            if not take():
                return
            self._stepped_back = 0
            if time.monotonic() > enough:
                return

    def _step_back(self, excess: int) -> None:
        self._stepped_back += 1
        self._pause(min(limits.STEP_BACK_S * excess, limits.STEP_BACK_MAX_S))

    def _pause(self, seconds: float) -> None:
        self._unwatch()
        self._loop.call_later(seconds, self._watch)

    # -- taking ------------------------------------------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> bool:
        """Accept one connection; False when there is none."""
        try:
            fd, address = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False  # a sibling was faster
        except ConnectionError:
            return True  # that client left before it was accepted
        except OSError as error:
            if error.errno in SHUT:
                self._unwatch()
            elif error.errno in EXHAUSTED:
                self._run_out(error)
            else:
                raise
            return False
        os.set_blocking(fd, False)
        self._ledger.add(ACCEPTED, 1)
        sock: socket.socket | None = None
        if self._first:
            # Who is first has waited longest of those that this wake takes: asking for each of them costs as much as accepting it.
            self._first = False
            sock = listener.wrap(fd)
            waited_s = queued_s(sock)
            if waited_s is not None:
                self._ledger.observe(ACCEPT_WAIT, waited_s)
        client: Address | None = None
        server = listener.own_name
        if server is None:
            sock = listener.wrap(fd) if sock is None else sock
            server = plain_name(sock.getsockname())
        if not listener.is_unix:
            client = plain_name(address)
        elif self._name_peer is not None:
            sock = listener.wrap(fd) if sock is None else sock
            client = self._name_peer(sock)
        context = self._context
        if context.load >= self._connections_max:
            why = f"{listener.address} has {self._connections_max} connections already"
            context.peer_log.closed(time.monotonic(), written(client), why)
            os.close(fd if sock is None else sock.detach())
        elif listener.proxy_protocol:
            self._proxied.adopt(listener.wrap(fd) if sock is None else sock, client, server, listener.address)
        else:
            self._adopt(fd, self._new_link(client, server), sock)
        return True

    def _new_link(self, client: Address | None, server: Address | None) -> Link:
        """What speaks to a client that has just connected."""
        now = time.monotonic()
        if self._tls is None:
            return self._context.connection_class(self._context, "http", client, server, now)
        return Handshake(self._context, self._tls, client, server, now)

    def _take_over(self, queue: socket.socket) -> bool:
        """Take one connection from a sibling that leaves; False when there is none."""
        try:
            taken = handover.take(queue)
        except (BlockingIOError, InterruptedError):
            return False
        if taken is not None:
            sock, passport = taken
            sock.setblocking(False)
            context = self._context
            connection = context.connection_class(context, passport.scheme, passport.client, passport.server, passport.opened_at)
            connection.moved_in = True
            self._adopt(sock.fileno(), connection, sock)
        return True

    def _adopt(self, fd: int, connection: Link, sock: socket.socket | None) -> None:
        self._context.opened()
        Transport(self._context.turn, fd, connection, sock).start()

    # -- out of descriptors --------------------------------------------------------------------------------------------------

    def _run_out(self, error: OSError) -> None:
        """Pause, because a level-triggered socket would wake us at once and for ever, and make room: who has been idle longest goes.
        Those who wait to be accepted are safe with the kernel meanwhile."""
        before, self._exhausted_at = self._exhausted_at, time.monotonic()
        closed = self._shed_idle()
        self._shed += closed
        self._pause(limits.EXHAUSTED_SHED_PAUSE_S if closed else limits.EXHAUSTED_PAUSE_S)
        if not before:
            log.error("cannot accept: %s; idle connections are closed to make room, oldest first (see `ulimit -n`)", error.strerror)
            self._loop.call_later(limits.EXHAUSTED_OVER_S, self._look_for_end)

    def _shed_idle(self) -> int:
        """Close the connections that have been idle longest, some at a time. Returns how many."""
        idle = [connection for connection in self._context.connections if connection.deadline_for == IDLE and connection.is_idle()]
        idle.sort(key=lambda connection: connection.deadline)  # all have the same time, so the first to end has waited longest
        oldest = idle[: min(limits.EXHAUSTED_SHED, -(-len(idle) // 2))]
        for connection in oldest:
            connection.close_idle()
        return len(oldest)

    def _look_for_end(self) -> None:
        """Say once that it is over: when it has not happened for a while."""
        left_s = self._exhausted_at + limits.EXHAUSTED_OVER_S - time.monotonic()
        if left_s > 0:
            self._loop.call_later(left_s, self._look_for_end)
            return
        self._exhausted_at = 0.0
        log.info("accepting again: there are descriptors enough; %d idle connections were closed meanwhile", self._shed)
        self._shed = 0
