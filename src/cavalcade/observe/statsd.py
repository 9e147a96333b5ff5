"""Pushing to StatsD, or DogStatsD: gunicorn's options, names and formats, and whatever else `/metrics` tells.

gunicorn's workers send packets for every request. Here the supervisor sends once a second what they have counted since: counters as
they have grown, gauges as they are, and of the durations one line for each bucket, with the sample rate that makes it count as often
as there were requests. Nothing waits for a receiver: what cannot be sent at once is lost, as is UDP's way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cavalcade import limits
from cavalcade.board.ledger_words import BOUNDS_S, LATENCY, REQUESTS, STATUS_WORDS, STATUSES, Sums
from cavalcade.config import addresses
from cavalcade.observe.metrics import FAMILIES, PREFIX, Histogram, Kind, Values

GUNICORNS = {"workers_ready": "gunicorn.workers"}  # what is the same under another name

log = logging.getLogger("cavalcade")


class StatsD:
    """One receiver. `dogstatsd_tags` as gunicorn takes them: "env:prod,team:web"; with some, what has labels is sent too, as tags."""

    def __init__(self, address: str, prefix: str, dogstatsd_tags: str, loop: asyncio.AbstractEventLoop) -> None:
        self._address = address
        self._prefix = f"{prefix.rstrip('.')}." if prefix else ""
        self._tags = dogstatsd_tags
        self._loop = loop
        self._sock: socket.socket | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._failed = ""
        self._try_at = 0.0
        self._rebase = False
        self._before: dict[str, float] = {}

    def push(self, sums: Sums, values: Values, logged: Mapping[str, int]) -> None:
        """What there is now. `logged` is how many lines of each level there were since the last time."""
        if self._sock is None:
            if (self._connecting is None or self._connecting.done()) and self._loop.time() >= self._try_at:
                self._connecting = self._loop.create_task(self._connect())
            return
        lines = [*self._gunicorns(sums, logged), *self._ours(values)]
        if self._rebase:  # told by somebody else
            self._rebase = False
            return
        for packet in packets(lines):
            try:
                self._sock.send(packet)
            except OSError:  # nobody listens, or it is slower than we
                continue

    @property
    def connected(self) -> bool:
        """Is it known where to send?"""
        return self._sock is not None

    def rebase(self) -> None:
        """What comes to the counts before the next push has been pushed already, by the server before this one."""
        self._rebase = True

    def close(self) -> None:
        """Send no more."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def _connect(self) -> None:
        address = addresses.parse(self._address)
        try:
            if address.path:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                target: Any = address.path
            else:
                found = await self._loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
                family, kind, protocol, _, target = found[0]
                sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                sock.connect(target)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            if str(error) != self._failed:
                self._failed = str(error)
                log.warning("StatsD: %s cannot be reached: %s; tried again", address, error.strerror or error)
            self._try_at = self._loop.time() + limits.STATSD_RETRY_S
            return
        self._failed = ""
        self._sock = sock

    # -- the lines -----------------------------------------------------------------------------------------------------------

    def _gunicorns(self, sums: Sums, logged: Mapping[str, int]) -> Iterator[str]:
        yield from self._count("gunicorn.requests", sums.get(REQUESTS))
        for number in range(STATUS_WORDS):
            count = sums.get(STATUSES + number)
            if count:
                yield from self._count(f"gunicorn.request.status.{100 + number}", count)
        yield from self._durations(sums.buckets(LATENCY))
        for level, count in logged.items():
            yield self._line(f"gunicorn.log.{level}", f"{count}|c|@1.0")

    def _durations(self, buckets: Sequence[int]) -> Iterator[str]:
        middle = [(lower + upper) / 2 for lower, upper in zip((0.0, *BOUNDS_S), BOUNDS_S, strict=False)] + [BOUNDS_S[-1]]
        for number, seconds in enumerate(middle):
            grown = self._growth(f"latency {number}", buckets[number])
            if grown:
                rate = f"|@{1 / grown:.9g}" if grown > 1 else ""
                yield self._line("gunicorn.request.duration", f"{seconds * 1000:g}|ms{rate}")

    def _ours(self, values: Values) -> Iterator[str]:
        for family in FAMILIES:
            name = GUNICORNS.get(family.name) or f"{PREFIX.rstrip('_')}.{family.name}"
            for labels, value in values.get(family.name, ()):
                if isinstance(value, Histogram) or (labels and not self._tags):
                    continue
                tags = [f"{key}:{_tag(label)}" for key, label in zip(family.labels, labels, strict=True)]
                if family.kind is Kind.COUNTER:
                    yield from self._count(name, value, *tags)
                else:
                    yield self._line(name, f"{value:.12g}|g", *tags)

    def _count(self, name: str, total: float, *tags: str) -> Iterator[str]:
        """A zero is sent as well: a counter that is there and stands still is another thing than one that nobody sends."""
        grown = self._growth(" ".join((name, *tags)), total)
        yield self._line(name, f"{grown:.12g}|c|@1.0", *tags)

    def _growth(self, key: str, total: float) -> float:
        grown = max(0.0, total - self._before.get(key, 0.0))
        self._before[key] = total
        return grown

    def _line(self, name: str, value: str, *tags: str) -> str:
        all_tags = ",".join([*([self._tags] if self._tags else []), *tags])
        return f"{self._prefix}{name}:{value}|#{all_tags}" if all_tags else f"{self._prefix}{name}:{value}"


def packets(lines: Sequence[str]) -> Iterator[bytes]:
    """As many lines in a packet as fit into one frame of an Ethernet."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        data = line.encode("utf-8", "replace")
        if batch and size + len(data) > limits.STATSD_PACKET_BYTES:
            yield b"\n".join(batch)
            batch, size = [], 0
        batch.append(data)
        size += len(data) + 1
    if batch:
        yield b"\n".join(batch)


def _tag(text: str) -> str:
    """A value that ends neither the tag nor the line."""
    return "".join("_" if char in ",|#\n" else char for char in text)
