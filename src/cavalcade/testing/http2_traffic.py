"""Traffic over HTTP/2 that counts what is lost, for the app of cavalcade.testing.traffic.

Each client is one connection with several requests in flight, small ones and uploads in turn. It goes by the rules that RFC 9113 lets a
client rely on, and no further: after a GOAWAY it opens a new connection for what comes next; a request on a stream beyond the last one
that was named, or refused by REFUSED_STREAM, has not been looked at and is sent again there, which is `retried` and no loss; every
other request must be answered. What is not is `failed`, with a name.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Self

from cavalcade.testing.http2 import Peer

ALL_STREAMS = 2**31 - 1
REFUSED_STREAM = 7
TIMEOUT_S = 15.0
UPLOAD_BYTES = 20_000  # within every window, so that a client need not look at them
IN_FLIGHT = 6


@dataclass
class Http2Report:
    """What came of it. `failures` are (what, detail)."""

    requests: int = 0
    retried: int = 0
    connections: int = 0
    goaways: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.failures)


@dataclass
class _Ask:
    """One request: what is sent, and what must come back behind version and pid."""

    token: str
    body: bytes = b""

    @property
    def wanted(self) -> str:
        return f"{len(self.body)} {hashlib.sha256(self.body).hexdigest()} {self.token}" if self.body else self.token

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        path = "/upload" if self.body else "/echo"
        method = b"POST" if self.body else b"GET"
        return [(b":method", method), (b":scheme", b"http"), (b":path", f"{path}?{self.token}".encode()), (b":authority", b"traffic")]


class _Line:
    """One connection, and what is asked on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = Peer()
        self.asked: dict[int, _Ask] = {}
        self.numbers = itertools.count(1, 2)
        self.last = ALL_STREAMS  # the last stream that is answered here
        self.ended = ""
        self.sock.sendall(self.peer.start())

    @property
    def leaving(self) -> bool:
        return bool(self.peer.goaways or self.ended)

    def ask(self, ask: _Ask) -> None:
        number = next(self.numbers)
        self.asked[number] = ask
        data = self.peer.request(number, ask.fields, end=not ask.body)
        for at in range(0, len(ask.body), 16384):
            data += self.peer.data(number, ask.body[at : at + 16384], end=at + 16384 >= len(ask.body))
        self.send(data)

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            self.ended = self.ended or f"sending: {error.strerror}"

    def fill(self) -> None:
        """Take in what is there."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            self.ended = f"receiving: {error.strerror}"
            return
        if not data:
            self.ended = "closed"
            return
        self.peer.take(data)
        if reply := self.peer.take_reply():
            self.send(reply)
        if self.peer.goaways:
            self.last = self.peer.goaways[-1][0]

    def taken(self) -> list[tuple[int, _Ask]]:
        """What is over by now, with its stream."""
        answers = self.peer.answers
        over = [number for number in self.asked if (number in answers and answers[number].over) or number > self.last or self.ended]
        return [(number, self.asked.pop(number)) for number in over]


class Http2Traffic:
    """Clients that run in threads until `stop()`. A context manager."""

    def __init__(self, address: tuple[str, int], clients: int = 4) -> None:
        self.report = Http2Report()
        self._address = address
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._numbers = itertools.count(1)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self.wait_requests(1)

    def stop(self) -> Http2Report:
        """Let every client get the answers it waits for, and end. The report."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)
        return self.report

    def wait_requests(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until at least `count` requests have ended. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while self.report.requests < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.report.requests} requests in {timeout_s:g} s, {count} wanted: {self.report.failures[:5]}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- one client --------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        lines: list[_Line] = []
        again: list[_Ask] = []
        while True:
            going = not self._over.is_set()
            for one in tuple(lines):
                again += self._look(one)
                if one.ended or (one.leaving and not one.asked):
                    with self._lock:
                        self.report.goaways += len(one.peer.goaways)
                    one.sock.close()
                    lines.remove(one)
            line = next((one for one in lines if not one.leaving), None)
            if line is None and (going or again):
                try:
                    line = _Line(self._address)
                except OSError as error:
                    again.clear()
                    self._count(None, "refused", str(error))
                    time.sleep(0.05)
                    continue
                with self._lock:
                    self.report.connections += 1
                lines.append(line)
            while line is not None and not line.ended and len(line.asked) < IN_FLIGHT and (going or again):
                line.ask(again.pop() if again else self._next())
            if not going and not again and not any(one.asked for one in lines):
                break
            if lines and not select.select([one.sock for one in lines], [], [], TIMEOUT_S)[0]:
                for one in lines:
                    one.ended = "timeout"
            for one in lines:
                while not one.ended and select.select([one.sock], [], [], 0)[0]:
                    one.fill()
        for one in lines:
            one.sock.close()

    def _next(self) -> _Ask:
        with self._lock:
            number = next(self._numbers)
        return _Ask(f"h2-{number}", os.urandom(UPLOAD_BYTES) if number % 8 == 0 else b"")

    def _look(self, line: _Line) -> list[_Ask]:
        """Count what is over; what is to be sent again."""
        again = []
        for number, ask in line.taken():
            answer = line.peer.answers.get(number)
            if number > line.last or (answer is not None and answer.reset == REFUSED_STREAM):
                with self._lock:
                    self.report.retried += 1
                again.append(ask)
            elif answer is None or not answer.over:
                self._count(None, line.ended, f"stream {number} of {ask.token}, {line.peer.goaways}")
            elif answer.reset:
                self._count(None, "reset", f"with {answer.reset}, stream {number} of {ask.token}, {line.peer.goaways}")
            elif answer.status != 200:
                self._count(None, "status", f"{answer.status}: {answer.body[:100]!r}")
            else:
                version, pid, said = (*answer.body.decode("latin-1").split(" ", 2), "", "")[:3]
                if said != ask.wanted:
                    self._count(None, "wrong", f"{answer.body[:200]!r} instead of {ask.wanted!r}")
                else:
                    self._count((version, int(pid)))
        return again

    def _count(self, good: tuple[str, int] | None, what: str = "", detail: str = "") -> None:
        report = self.report
        with self._lock:
            report.requests += 1
            if good is None:
                report.failures.append((what, detail))
            else:
                report.versions[good[0]] = report.versions.get(good[0], 0) + 1
                report.pids.add(good[1])
