"""Turning a request away without the app, and saying why: a proxy or a person can tell our 503 from one of the app's.

`cavalcade-reason: overloaded`: more requests were in flight than `limit_concurrency`; `draining`: the server leaves and the request was
not finished in time. Both may be tried again (RFC 9110 section 10.2.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cavalcade.board.ledger_words import SHED
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    from cavalcade.net.connection import Connection
    from cavalcade.net.context import ConnectionContext

TEXT = (b"content-type", b"text/plain; charset=utf-8")
RETRY_AFTER = (b"retry-after", b"1")
OVERLOADED = (b"cavalcade-reason", b"overloaded")
DRAINING = (b"cavalcade-reason", b"draining")
BODY = b"Service Unavailable: too many requests at once"
HEADERS = [TEXT, RETRY_AFTER, OVERLOADED, (b"content-length", b"%d" % len(BODY))]


def failure_headers(status: int, draining: bool) -> list[tuple[bytes, bytes]]:
    """For a response of our own. A 503 then is a request that was cancelled; where we leave, that is why."""
    return [TEXT, RETRY_AFTER, DRAINING] if status == 503 and draining else [TEXT]


def note_shed(context: ConnectionContext, peer: str) -> None:
    """Count a request that is turned away, and say so."""
    context.serving.ledger.add(SHED, 1)
    context.overload_log.shed(context.now, peer, len(context.serving.running))


def turn_away(connection: Connection, head: Head) -> None:
    """Too many requests are in flight: answer this one at once. The connection can go on."""
    note_shed(connection.context, connection.peer())
    connection.deadline = 0.0
    connection.discarded = 0
    connection.body_pending = head.length != 0
    if head.expects_continue:
        connection.engine.keep_alive = False  # its body is not asked for, so what follows could be body or request
    connection.start(503, HEADERS)
    connection.write(BODY, False)
