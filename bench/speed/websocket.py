"""The load for WebSocket: on every connection so many messages of 64 bytes are in flight, and whatever comes back is answered with as many
new ones. It knows every byte that it sends and gets, so it is cheap.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import uvloop

from speed.process import HOST, Unmeasurable

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"
SIZE = 64
OPEN_S = 10.0
# Longer than one read: whatever a read brings is a piece of this.
REPEATED = 8192


class Client(asyncio.Protocol):
    """One connection. It checks and counts what comes back, and sends as many again."""

    def __init__(self, in_flight: int, opened: asyncio.Future[None]) -> None:
        payload = bytes(97 + at % 26 for at in range(SIZE))
        frame = bytes((0x81, 0x80 | SIZE)) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
        self.batches = [frame * count for count in range(in_flight + 1)]
        self.length = 2 + SIZE
        self.expected = (bytes((0x81, SIZE)) + payload) * REPEATED
        self.in_flight = in_flight
        self.opened = opened
        self.head = b""
        self.left = 0  # bytes of an answer that has not come whole
        self.messages = 0
        self.sent_at = 0.0
        self.took_s: list[float] = []  # only with one in flight: otherwise an answer cannot be told from its neighbour
        self.error = ""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        fields = b"Host: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY
        transport.write(b"GET / HTTP/1.1\r\n" + fields + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.head += data
            if b"\r\n\r\n" in self.head:
                if b" 101 " not in self.head[:20]:
                    self.error = f"the handshake was answered with {self.head[:200]!r}"
                self.opened.set_result(None)
            return
        if data != self.expected[self.left : self.left + len(data)]:
            self.error = f"an answer is wrong: {data[:80]!r}"
            self.transport.abort()
            return
        whole, self.left = divmod(self.left + len(data), self.length)
        self.messages += whole
        if whole:
            now = time.perf_counter()
            if self.in_flight == 1:
                self.took_s.append(now - self.sent_at)
            self.sent_at = now
            self.transport.write(self.batches[whole])

    def begin(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.batches[self.in_flight])

    def connection_lost(self, error: Exception | None) -> None:
        self.error = self.error or f"the connection was lost: {error}"
        if not self.opened.done():
            self.opened.set_result(None)


def drive(port: int, connections: int, in_flight: int, seconds: float) -> tuple[int, float, list[float]]:
    """(messages that came back, the seconds it took, the seconds that each took). Raises `Unmeasurable`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(port, connections, in_flight, seconds))


async def _drive(port: int, connections: int, in_flight: int, seconds: float) -> tuple[int, float, list[float]]:
    loop = asyncio.get_running_loop()
    clients = [Client(in_flight, loop.create_future()) for _ in range(connections)]
    try:
        for client in clients:
            await loop.create_connection(lambda client=client: client, HOST, port)  # type: ignore[misc]
            await asyncio.wait_for(client.opened, OPEN_S)
        check(clients)
        for client in clients:
            client.begin()
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took_s, messages = time.monotonic() - began, sum(client.messages for client in clients)
        check(clients)
    except (OSError, TimeoutError) as error:
        raise Unmeasurable(f"no WebSocket could be opened: {error!r}") from error
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
    if not messages:
        raise Unmeasurable("no message came back")
    return messages, took_s, [each for client in clients for each in client.took_s]


def check(clients: list[Client]) -> None:
    if errors := [client.error for client in clients if client.error]:
        raise Unmeasurable(errors[0])
