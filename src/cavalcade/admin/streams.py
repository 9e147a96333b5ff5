"""Streams of events (server-sent events, as the HTML standard has them): how the server is, once a second, and what happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from cavalcade import limits
from cavalcade.admin.answers import EVENTS, Answer, Asked, reject
from cavalcade.supervisor.journal import Entry

Wanted = Callable[[Entry], bool]

FEED = 100  # entries that a new stream begins with
QUIET_S = 15.0  # a stream that has nothing to say says so, or a proxy would take it for dead


class Places:
    """How many streams there may be; each holds a connection for as long as its client likes."""

    def __init__(self) -> None:
        self._taken = 0

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._taken += 1
        try:
            async for piece in source:
                yield piece
        finally:
            self._taken -= 1

    @property
    def full(self) -> bool:
        return self._taken >= limits.ADMIN_STREAMS


def too_many() -> Answer:
    """For who comes when all places are taken."""
    text = f"There are {limits.ADMIN_STREAMS} streams of events already."
    return reject(503, text, fix="Close one, or ask for GET /status now and then", fields=[(b"retry-after", b"5")])


def answer(stream: AsyncIterator[bytes]) -> Answer:
    return Answer(200, content_type=EVENTS, stream=stream)


async def events(asked: Asked) -> Answer:
    """`status` once a second, and `entry` for every line of the log that is about an event. Who comes back with the last `id` in
    Last-Event-ID, or with the number of an entry in `after`, gets what came since."""
    server, _, number = asked.header(b"last-event-id").rpartition("-")
    if server and server != str(os.getpid()):  # of the server before this one: all of this one's is new
        number = "0"
    text = number or asked.query.get("after", "0")
    after = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    return answer(_events(asked, after if after <= asked.desk.journal.last else 0))


async def _events(asked: Asked, after: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    journal = asked.desk.journal
    status_at = loop.time()
    yield b"retry: 1000\n\n"
    known = [entry for entry in journal.since(after) if entry.event][-FEED:]
    after = journal.last
    for entry in known:
        yield _event("entry", entry, entry.number)
    while not asked.draining.is_set():
        now = loop.time()
        if now >= status_at:
            status_at = max(status_at + limits.ADMIN_EVENTS_S, now)
            yield _event("status", asked.desk.status())
        for entry in journal.since(after):
            if entry.event:
                yield _event("entry", entry, entry.number)
        after = journal.last
        await _wait(asked, status_at - loop.time())
    yield b"event: bye\ndata: {}\n\n"


async def entries(asked: Asked, known: list[Entry], wanted: Wanted) -> AsyncIterator[bytes]:
    """Entries of the log, those that are `known` first."""
    journal = asked.desk.journal
    after = journal.last
    for entry in known:
        yield _event("entry", entry, entry.number)
    while not asked.draining.is_set():
        newer = journal.since(after)
        after = journal.last
        for entry in newer:
            if wanted(entry):
                yield _event("entry", entry, entry.number)
        if after == journal.last:
            await _wait(asked, QUIET_S)
        if after == journal.last:
            yield b": nothing new\n\n"
    yield b"event: bye\ndata: {}\n\n"


async def _wait(asked: Asked, seconds: float) -> None:
    """Until something is logged, the listener closes, or the time is over."""
    drains: asyncio.Future[object] = asyncio.ensure_future(asked.draining.wait())
    news: asyncio.Future[object] = asked.desk.journal.wait()
    try:
        await asyncio.wait({news, drains}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        drains.cancel()


def _event(name: str, data: Any, number: int = 0) -> bytes:
    known = b"id: %d-%d\n" % (os.getpid(), number) if number else b""
    return known + b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
