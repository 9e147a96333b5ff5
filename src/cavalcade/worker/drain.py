"""Leaving without losing anything: what is in flight is finished, within a grace.

The order is: accept no more; idle connections move to siblings, busy ones after their response; responses that stream are told
after a while; at the deadline what is left is cancelled; lifespan shutdown runs in a slice of the grace that is kept for it.

Where there are no siblings, because the whole server stops, idle connections are not closed at once: a client that is about to
send, or has just connected, would lose that request. For a moment they are still answered, with `Connection: close`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cavalcade import limits
from cavalcade.net.context import ConnectionContext

log = logging.getLogger("cavalcade")

SHUTDOWN_LEAST_S = 1.0  # lifespan shutdown gets this even when there is no grace at all
CANCEL_S = 1.0  # how long an app may take to notice that it is cancelled


def reserve(grace_s: float) -> float:
    """The slice of a grace that is kept for lifespan shutdown, in seconds."""
    return min(grace_s * limits.SHUTDOWN_RESERVE, limits.SHUTDOWN_RESERVE_MAX_S)


async def finish_requests(context: ConnectionContext, seconds: float, hurry: asyncio.Event) -> list[str]:
    """Let requests in flight end, then cancel what is left after `seconds`, or as soon as `hurry` is set.

    Returns the request lines of what was cancelled.
    """
    loop = context.loop
    began = loop.time()
    deadline = began + seconds
    notice_at = began + seconds * limits.DRAIN_NOTICE
    context.draining = True
    context.last_call = context.handover is None
    context.closes = context.closes or context.last_call
    last_call_over_at = began + min(limits.LAST_CALL_S, seconds * limits.LAST_CALL) if context.last_call else deadline
    context.serving.draining.set()
    for connection in tuple(context.connections):
        connection.drain()
    for websocket in tuple(context.serving.websockets):
        websocket.drain()
    hurried: asyncio.Future[Any] = loop.create_task(hurry.wait())
    try:
        while (now := loop.time()) < deadline and not hurry.is_set():
            waits: set[asyncio.Future[Any]] = {exchange.task for exchange in context.serving.running}
            if not waits:
                if not context.load:
                    return []
                waits.add(context.wait_connection_closed())
            if now >= last_call_over_at:
                last_call_over_at = deadline
                context.last_call = False
                for connection in tuple(context.connections):
                    connection.drain()
            if now >= notice_at:
                notice_at = deadline
                for exchange in tuple(context.serving.running):
                    exchange.notice()
            timeout = min(last_call_over_at, notice_at, deadline) - now
            await asyncio.wait({*waits, hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return await _cancel(context)
    finally:
        hurried.cancel()


async def _cancel(context: ConnectionContext) -> list[str]:
    running = tuple(context.serving.running)
    left = [exchange.request_line() for exchange in running]
    for exchange in running:
        exchange.cancel()
    tasks = {exchange.task for exchange in running}
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_S)
    for exchange in tuple(context.serving.running):
        log.error("%s: %s", exchange.request_line(), exchange.left_behind())
    for connection in tuple(context.connections):
        connection.abort()
    return left
