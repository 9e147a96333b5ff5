"""WebSockets that count what is lost. Four kinds of clients in turn, on the Sans-I/O engine of `websockets`:

- `ws`: four messages in flight, the next one as soon as an answer is there
- `ws-pausing`: up to 20 ms between two messages, compressed, so that it is idle when its worker leaves
- `ws-short`: closes after ten answers, and connects again
- `ws-large`: 100 KB in three fragments with pauses between them, so that half a message is here when its worker leaves

A connection must end by a whole close handshake: the server's Close, ours, and the end of TCP from the server's side (RFC 6455 section
7.1.1). What the server's Close has left unanswered is sent again on the next connection. So every message is answered in the end, and
the app must have been given each of them once: twice, and its first answer was lost.

What can go wrong: `refused`, `handshake`, `reset`, `cut` (ended without a Close), `code` (a Close that blames
somebody), `wrong` (an answer to something else), `timeout`. All messages in flight have failed then, or one where there was none.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from cavalcade.testing.traffic_report import AFTER_FAILURE_S, Books
from cavalcade.testing.traffic_stream import connect, hang_up, read
from cavalcade.testing.traffic_wire import Lost, Where

IN_FLIGHT = 4
LARGE_BYTES = 100_000
SERVER_LEAVES = (1001, 1012)
BY_CLIENT = "by the client"


@dataclass(frozen=True)
class Kind:
    """How a client behaves."""

    name: str
    in_flight: int = 1
    pause_s: float = 0.0
    messages: int = 0  # on one connection; 0 for as many as it lives
    filling: int = 20
    fragments: int = 1
    deflate: bool = False


KINDS = (
    Kind("ws", in_flight=IN_FLIGHT),
    Kind("ws-pausing", pause_s=0.02, filling=500, deflate=True),
    Kind("ws-short", in_flight=2, messages=10, pause_s=0.005),
    Kind("ws-large", in_flight=2, pause_s=0.01, filling=LARGE_BYTES, fragments=3),
)


@dataclass
class Message:
    """A message, from when it was first sent until it is answered."""

    token: str
    payload: str
    began: float = field(default_factory=time.monotonic)


def websocket_clients(where: Where, books: Books, count: int) -> Sequence[Coroutine[Any, Any, None]]:
    """So many clients, of all kinds."""
    return [_client(KINDS[number % len(KINDS)], where, books) for number in range(count)]


async def _client(kind: Kind, where: Where, books: Books) -> None:
    again: deque[Message] = deque()  # what a Close has left unanswered
    while again or not where.over.is_set():
        session = Session(kind, where, books, again)
        try:
            await session.run()
        except Lost as lost:
            if lost.what == "refused" and where.over.is_set():
                break
            for message in session.flight:
                books.enter(kind.name, message.began, lost)
            if not session.flight:
                books.enter(kind.name, time.monotonic(), lost)
            await asyncio.sleep(AFTER_FAILURE_S)
        else:
            books.report.repeated += len(session.flight)
            again.extendleft(reversed(session.flight))
    books.report.left += [message.token for message in again]


class Session:
    """One connection."""

    def __init__(self, kind: Kind, where: Where, books: Books, again: deque[Message]) -> None:
        self.kind = kind
        self.where = where
        self.books = books
        self.again = again
        self.flight: deque[Message] = deque()
        self.answers = 0
        self.room = asyncio.Event()
        host, port = where.address
        deflate = [ClientPerMessageDeflateFactory()] if kind.deflate else None
        self.protocol = ClientProtocol(parse_uri(f"ws://{host}:{port}/"), extensions=deflate, max_size=None)
        self.parts: list[bytes] = []  # of an answer that is not whole yet
        self.writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Until the connection ends, which must be a good end. Raises `Lost`."""
        reader, self.writer = await connect(self.where)
        sender: asyncio.Task[None] | None = None
        try:
            self.protocol.send_request(self.protocol.connect())
            self.flush()
            while data := await read(reader, f"in state {self.protocol.state.name}"):
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    if isinstance(event, Response):
                        if self.protocol.handshake_exc is not None:
                            raise Lost("handshake", f"{event.status_code} {bytes(event.body or b'')[:100]!r}")
                        sender = asyncio.get_running_loop().create_task(self.send())
                    else:
                        assert isinstance(event, Frame)
                        self.take(event)
                self.flush()
            self.judge()
        finally:
            await hang_up(self.writer, sender)

    def take(self, frame: Frame) -> None:
        """A part of an answer, or something that the engine has dealt with."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self.parts.append(bytes(frame.data))
        if not frame.fin:
            return
        body = b"".join(self.parts).decode()
        self.parts = []
        if not self.flight:
            raise Lost("wrong", f"{body[:200]!r} answers nothing")
        # Still in flight while it is judged: what is wrong with an answer has failed this message.
        self.books.check(body, self.flight[0].payload)
        message = self.flight.popleft()
        self.books.answered(self.kind.name, message.began)
        self.answers += 1
        self.room.set()

    def judge(self) -> None:
        """The connection has ended; was it as it should be? Raises `Lost`."""
        protocol = self.protocol
        if protocol.state is State.CONNECTING:
            raise Lost("handshake", "closed without an answer")
        close = protocol.close_rcvd
        if close is None:
            raise Lost("cut", f"without a Close; {protocol.parser_exc or 'nothing else was wrong'}")
        if close.code in SERVER_LEAVES:
            self.books.end(str(int(close.code)))
        elif close.code == 1000 and not protocol.close_rcvd_then_sent:
            self.books.end(BY_CLIENT)
        else:
            raise Lost("code", f"{close}")

    # -- what goes out -------------------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Message after message, then our Close, unless the server's comes first."""
        kind = self.kind
        sent = 0
        while self.open and not (self.where.over.is_set() and not self.again) and not 0 < kind.messages <= sent:
            while len(self.flight) >= kind.in_flight and self.open:
                self.room.clear()
                await self.room.wait()
            if self.open:
                await self.send_message(self.again.popleft() if self.again else self.new())
                sent += 1
            await asyncio.sleep(random.uniform(0, kind.pause_s or self.where.rest_s))
        while self.flight and self.open:
            self.room.clear()
            await self.room.wait()
        if self.open:
            self.protocol.send_close(1000)
            self.flush()

    def new(self) -> Message:
        token = self.books.token(self.kind.name)
        return Message(token, f"{token} " + "x" * self.kind.filling)

    async def send_message(self, message: Message) -> None:
        """Text where it is short, else binary in fragments. Where the server's Close comes between two of them, the rest is not sent."""
        self.flight.append(message)
        payload = message.payload.encode()
        count = self.kind.fragments
        if count == 1:
            self.protocol.send_text(payload)
            self.flush()
            return
        size = -(-len(payload) // count)
        for number in range(count):
            if number:
                await asyncio.sleep(random.uniform(0, self.kind.pause_s))
            if not self.open:
                return
            part = payload[number * size : (number + 1) * size]
            if number:
                self.protocol.send_continuation(part, fin=number == count - 1)
            else:
                self.protocol.send_binary(part, fin=False)
            self.flush()

    @property
    def open(self) -> bool:
        return self.protocol.state is State.OPEN

    def flush(self) -> None:
        assert self.writer is not None
        for piece in self.protocol.data_to_send():
            if piece:
                self.writer.write(piece)
            elif self.writer.can_write_eof():
                with contextlib.suppress(OSError):
                    self.writer.write_eof()
