"""What all connections of one worker share."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cavalcade.apps.stream import NewCall, Serving
from cavalcade.apps.wsgi.service import Service
from cavalcade.board import layout
from cavalcade.board.row import Row
from cavalcade.config.options import Settings
from cavalcade.config.trusted import Trusted
from cavalcade.net.forwarded import Forwarding
from cavalcade.net.handover import HandOver
from cavalcade.net.transport import Turn
from cavalcade.observe.access import AccessLog
from cavalcade.observe.peers import PeerLog
from cavalcade.wire.h1_response import Rules

if TYPE_CHECKING:
    from cavalcade.net.connection import Connection
    from cavalcade.net.h2 import H2Connection
    from cavalcade.net.link import Link
    from cavalcade.net.request_ids import RequestIds


def _nothing() -> None:
    pass


class ConnectionContext:
    """What all connections of one worker share. `now` is a coarse monotonic clock, kept by the sweep, and always ahead: no deadline
    that is counted from it comes early."""

    def __init__(self, serving: Serving, settings: Settings, rules: Rules, access: AccessLog | None, row: Row) -> None:
        self.serving = serving
        self.loop = serving.loop
        self.turn = Turn(serving.loop)
        self.wsgi: Service | None = None  # there when the app is a WSGI app
        self.new_call: NewCall | None = None  # makes the call of a request; None where that is always an ASGI app's `Exchange`
        self.rules = rules
        self.access = access
        self.peer_log = PeerLog()
        self.overload_log = PeerLog()  # a flood of one kind must not hide the other
        self.tls_log = PeerLog()
        self.connection_class: type[Connection]  # speaks HTTP/1
        self.request_ids: RequestIds  # there where `connection_class` names its requests
        self.http2: type[H2Connection] | None = None  # speaks it, where that is wanted and the library installed
        self.limit = settings.limit_concurrency  # requests in flight; 0 for no limit
        self.connections: set[Link] = set()
        self.row = row
        self.on_first = _nothing  # called when the first connection comes
        self.load = 0  # connections accepted and not closed yet, those without a transport included
        self.forwarding = Forwarding(Trusted(settings.trusted_proxies), settings.forwarded_headers)
        self.now = time.monotonic()
        self.draining = False
        self.closes = False  # every response says `Connection: close`: the server stops, or there is nobody to hand over to
        self.last_call = False  # we drain and cannot hand over: an idle connection stays for a moment, its next request may be on its way
        self.handover: HandOver | None = None  # there while draining, if siblings may take our idle connections
        self.keep_alive_s = settings.keep_alive
        self.head_s = settings.head_timeout
        self.body_s = settings.body_timeout
        self.write_s = settings.write_timeout
        self.closing: asyncio.Future[None] | None = None

    def catch_up_logs(self, now: float) -> None:
        """Say what was held back of bad clients and is due now."""
        self.peer_log.catch_up(now)
        self.overload_log.catch_up(now)
        self.tls_log.catch_up(now)

    def opened(self) -> None:
        """A connection was accepted: the siblings see it at once."""
        self.load += 1
        self.row.set(layout.CONNECTIONS, self.load)
        if self.load == 1:
            self.on_first()

    def closed(self) -> None:
        """A connection is gone."""
        self.load -= 1
        self.row.set(layout.CONNECTIONS, self.load)
        if self.closing is not None and not self.closing.done():
            self.closing.set_result(None)

    def wait_connection_closed(self) -> asyncio.Future[None]:
        """Done when the next connection has closed."""
        if self.closing is None or self.closing.done():
            self.closing = self.loop.create_future()
        return self.closing
