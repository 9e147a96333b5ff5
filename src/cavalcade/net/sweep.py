"""One timer for all deadlines of a worker: a connection stores until when it may stay as it is, the sweep looks twice a second.

It also keeps what is the same for all requests of a second: the coarse clock and the Date header.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from email.utils import formatdate

from cavalcade import limits
from cavalcade.board.layout import CONNECTIONS_HTTP1, CONNECTIONS_HTTP2, CONNECTIONS_TLS, CONNECTIONS_WEBSOCKET
from cavalcade.net.context import ConnectionContext

log = logging.getLogger("cavalcade")

PROTOCOLS = (CONNECTIONS_HTTP1, CONNECTIONS_HTTP2, CONNECTIONS_WEBSOCKET, CONNECTIONS_TLS)

# Turns come so long after the half second. uvloop cuts a pause to whole milliseconds: one that fell short of it would turn again and
# again until it is reached, dozens of times, and WebSockets count time in turns: they would be pinged, and given up, much too early.
AFTER_S = 0.002


class Sweep:
    """Runs while a worker serves."""

    def __init__(self, context: ConnectionContext, *, date_header: bool, also: Callable[[float], None] | None = None) -> None:
        """`also` is called at the end of each turn, with the monotonic time."""
        self._context = context
        self._date_header = date_header
        self._also = also
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._turn()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._context.catch_up_logs(math.inf)

    def _turn(self) -> None:
        context = self._context
        now = time.monotonic()
        wall = time.time()
        # To the turn of the next half second, so that Date is never stale for long. First of all: whatever happens below, the
        # sweep goes on.
        self._timer = context.loop.call_later(limits.SWEEP_S - wall % limits.SWEEP_S + AFTER_S, self._turn)
        context.now = now + limits.SWEEP_S
        if self._date_header:
            # RFC 9110 section 6.6.1: an origin server with a clock sends Date; it has the resolution of a second.
            context.rules.set_date(formatdate(wall, usegmt=True).encode("ascii"))
        open_now = dict.fromkeys(PROTOCOLS, 0)
        for connection in tuple(context.connections):
            open_now[connection.protocol] += 1
            if connection.secure:
                open_now[CONNECTIONS_TLS] += 1
            try:
                connection.on_sweep(now)
            except Exception:
                log.exception("connection of %s: failed", connection.peer())
                connection.transport.abort()
        for word, count in open_now.items():
            context.row.set(word, count)
        for call in tuple(context.serving.websockets):
            try:
                call.on_sweep()
            except Exception:
                log.exception("%s: failed", call.request_line())
                call.cancel()
        context.catch_up_logs(context.now)
        if self._also is not None:
            try:
                self._also(now)
            except Exception:
                log.exception("the sweep failed")
