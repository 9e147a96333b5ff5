"""HTTP/2 that counts what is lost. Three kinds of clients in turn, on the library h2, over TLS where they are told whom to trust:

- `h2`: GET, ten streams in flight, the next one as soon as an answer is there
- `h2-pausing`: up to four GETs at once, then up to 20 ms of nothing, so that it is idle when its worker leaves
- `h2-uploads`: POST of 64 KiB, four in flight, whose hash must come back

After a GOAWAY a client begins no stream on that connection but connects again, and waits for the answers that are still to come, and for
the connection's end. Streams above
the last one that GOAWAY names, and those that are reset with REFUSED_STREAM, were not looked at (RFC 9113 sections 6.8 and 8.7): they are
repeated on the next connection, whatever their method. All others must be answered, and the app must have been given each request
once.

What can go wrong: `refused`, `handshake`, `reset` (a stream, or the connection), `closed` (before an answer, or
without a GOAWAY), `goaway` (one that blames somebody), `status`, `wrong`, `timeout`. Needs the extra `http2`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, WindowUpdated

from cavalcade.testing.traffic_report import AFTER_FAILURE_S, Books
from cavalcade.testing.traffic_stream import connect, hang_up, read
from cavalcade.testing.traffic_wire import Lost, Where

UPLOAD_BYTES = 64 * 1024
GOAWAY = 7  # RFC 9113 section 6.8
HEAD_BYTES = 9
SESSIONS = 4  # of one client, with those that only wait for their end
BY_CLIENT = "by the client"


@dataclass(frozen=True)
class Kind:
    """How a client behaves."""

    name: str
    in_flight: int
    pause_s: float = 0.0
    upload: bool = False


KINDS = (Kind("h2", 10), Kind("h2-pausing", 4, pause_s=0.02), Kind("h2-uploads", 4, pause_s=0.01, upload=True))


@dataclass
class Request:
    """A request, from when it was first sent until it is answered."""

    token: str
    body: bytes
    began: float = field(default_factory=time.monotonic)
    sent: int = 0  # of the body
    status: str = ""
    got: bytes = b""

    @property
    def wanted(self) -> str:
        return f"{len(self.body)} {hashlib.sha256(self.body).hexdigest()} {self.token}" if self.body else self.token

    def begin_again(self) -> Request:
        return Request(self.token, self.body, self.began)


def http2_clients(where: Where, books: Books, count: int) -> Sequence[Coroutine[Any, Any, None]]:
    """So many clients, of all kinds. Where there is TLS, its context offers h2 and nothing else."""
    return [_client(KINDS[number % len(KINDS)], where, books) for number in range(count)]


async def _client(kind: Kind, where: Where, books: Books) -> None:
    again: deque[Request] = deque()  # what a GOAWAY has left to be sent again
    sessions: set[asyncio.Task[None]] = set()
    while again or not where.over.is_set():
        session = Session(kind, where, books, again)
        sessions.add(asyncio.create_task(session.live()))
        # The next one begins while this one still gets its last answers.
        await session.leaving.wait()
        if session.refused and where.over.is_set():
            break
        if where.over.is_set() or len(sessions) >= SESSIONS:
            await asyncio.wait(sessions)
        sessions = {task for task in sessions if not task.done()}
    if sessions:
        await asyncio.wait(sessions)
    books.report.left += [request.token for request in again]


class Session:
    """One connection."""

    def __init__(self, kind: Kind, where: Where, books: Books, again: deque[Request]) -> None:
        self.kind = kind
        self.where = where
        self.books = books
        self.again = again
        self.streams: dict[int, Request] = {}
        self.told = False  # by a GOAWAY
        self.leaving = asyncio.Event()  # told, or ended
        self.refused = False
        self.done = False  # by ourselves
        self.room = asyncio.Event()
        self.buffer = b""
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.writer: asyncio.StreamWriter | None = None

    async def live(self) -> None:
        """Until the connection ends, with what went wrong in the books."""
        try:
            await self.run()
        except Lost as lost:
            self.refused = lost.what == "refused"
            for request in self.streams.values():
                self.books.enter(self.kind.name, request.began, lost)
            if not self.streams and not (self.refused and self.where.over.is_set()):
                self.books.enter(self.kind.name, time.monotonic(), lost)
            await asyncio.sleep(AFTER_FAILURE_S)
        finally:
            self.leaving.set()

    async def run(self) -> None:
        """Until the connection ends, which must be a good end. Raises `Lost`."""
        reader, self.writer = await connect(self.where)
        self.h2.initiate_connection()
        self.flush()
        sender = asyncio.get_running_loop().create_task(self.send())
        try:
            while not self.done and (data := await read(reader, self.standing())):
                self.buffer += data
                self.take_frames()
                self.flush()
            self.judge()
        finally:
            await hang_up(self.writer, sender)

    def standing(self) -> str:
        return "after a GOAWAY" if self.told else "without a GOAWAY"

    def judge(self) -> None:
        """The connection has ended; was it as it should be? Raises `Lost`."""
        if self.done:
            self.books.end(BY_CLIENT)
        elif not self.told:
            raise Lost("closed", "without a GOAWAY")
        elif self.streams:
            raise Lost("closed", f"{len(self.streams)} streams that GOAWAY has promised to answer")
        else:
            self.books.end("GOAWAY")

    # -- what comes in -------------------------------------------------------------------------------------------------------------

    def take_frames(self) -> None:
        """One frame after the other to the library, but not GOAWAY: after one it would take no answer any more."""
        while len(self.buffer) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < end:
                return
            frame, self.buffer = self.buffer[:end], self.buffer[end:]
            if frame[3] == GOAWAY:
                self.take_goaway(frame[HEAD_BYTES:])
            else:
                for event in self.h2.receive_data(frame):
                    self.take(event)

    def take_goaway(self, payload: bytes) -> None:
        last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
        if code:
            raise Lost("goaway", f"{ErrorCodes(code).name} {payload[8:]!r}")
        self.told = True
        self.leaving.set()
        for stream_id in [other for other in self.streams if other > last]:
            self.repeat(stream_id)
        self.room.set()

    def take(self, event: Event) -> None:
        stream_id = getattr(event, "stream_id", None)
        request = self.streams.get(stream_id) if stream_id is not None else None
        if isinstance(event, WindowUpdated):
            for other, waiting in self.streams.items():
                self.send_body(other, waiting)
        elif isinstance(event, DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if request is not None:
                request.got += event.data
        elif request is None:
            return
        elif isinstance(event, ResponseReceived):
            request.status = dict(event.headers)[b":status"].decode()
        elif isinstance(event, StreamReset):
            if event.error_code == ErrorCodes.REFUSED_STREAM:
                self.repeat(event.stream_id)
            else:
                self.fail(event.stream_id, Lost("reset", f"stream {event.stream_id}: {event.error_code!r}"))
        elif isinstance(event, StreamEnded):
            self.take_answer(event.stream_id, request)

    def take_answer(self, stream_id: int, request: Request) -> None:
        try:
            if request.status != "200":
                raise Lost("status", f"{request.status}: {request.got[:100]!r}")
            self.books.check(request.got.decode("latin-1"), request.wanted)
        except Lost as lost:
            self.fail(stream_id, lost)
        else:
            del self.streams[stream_id]
            self.books.answered(self.kind.name, request.began)
        self.room.set()

    def fail(self, stream_id: int, lost: Lost) -> None:
        self.books.enter(self.kind.name, self.streams.pop(stream_id).began, lost)
        self.room.set()

    def repeat(self, stream_id: int) -> None:
        self.again.append(self.streams.pop(stream_id).begin_again())
        self.books.report.repeated += 1
        self.room.set()

    # -- what goes out -------------------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Request after request, until we have had enough or are told to go."""
        kind = self.kind
        filling = os.urandom(UPLOAD_BYTES) if kind.upload else b""
        while not self.told and (self.again or not self.where.over.is_set()):
            for _ in range(random.randint(1, kind.in_flight) if kind.pause_s else kind.in_flight):
                if len(self.streams) < kind.in_flight:
                    self.begin(self.again.popleft() if self.again else self.new(filling))
            self.flush()
            if pause_s := kind.pause_s or self.where.rest_s:
                await asyncio.sleep(random.uniform(0, pause_s))
            while len(self.streams) >= kind.in_flight and not self.told:
                self.room.clear()
                await self.room.wait()
        while self.streams:
            self.room.clear()
            await self.room.wait()
        if not self.told:
            self.done = True
            self.h2.close_connection()
            self.flush()
            assert self.writer is not None
            self.writer.close()  # which wakes whoever reads

    def new(self, filling: bytes) -> Request:
        token = self.books.token(self.kind.name)
        return Request(token, (token.encode() + filling)[:UPLOAD_BYTES] if filling else b"")

    def begin(self, request: Request) -> None:
        stream_id = self.h2.get_next_available_stream_id()
        host, port = self.where.address
        fields = [
            (":method", "POST" if request.body else "GET"),
            (":scheme", "https" if self.where.trust else "http"),
            (":path", f"/once?{request.token}"),
            (":authority", f"{host}:{port}"),
        ]
        if request.body:
            fields.append(("content-length", str(len(request.body))))
        self.streams[stream_id] = request
        self.h2.send_headers(stream_id, fields, end_stream=not request.body)
        self.send_body(stream_id, request)

    def send_body(self, stream_id: int, request: Request) -> None:
        """As much of it as there is room for."""
        size = len(request.body)
        while request.sent < size:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, size - request.sent)
            if room <= 0:
                return
            self.h2.send_data(stream_id, request.body[request.sent : request.sent + room], request.sent + room == size)
            request.sent += room

    def flush(self) -> None:
        assert self.writer is not None
        if data := self.h2.data_to_send():
            self.writer.write(data)
