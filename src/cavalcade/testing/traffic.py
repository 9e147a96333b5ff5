"""Traffic that counts what is lost: clients of four kinds at once, in a process of their own, that never retry.

    with Traffic(server.address) as traffic:
        ... reload, recycle, break a deploy ...
    assert traffic.report.failed == 0

The kinds:

- `kept`: keep-alive, the next request as soon as the answer is there
- `pausing`: keep-alive, with up to 20 ms between requests, so that its connection is idle when a worker leaves
- `closing`: a connection for every request
- `uploads`: POST of 64 KiB, the answer carries the body's hash
- `late`: connects, waits 200 ms, then sends
- WebSockets and HTTP/2, where the mix asks for them: see the modules of these names beside this one

The client is written on bare sockets, so that nothing below it tries again in silence. Every request has a token that must come
back. What can go wrong has a name each: `refused`, `handshake` (of TLS), `reset`, `closed` (no byte of an answer), `short` (a part of
one), `status`, `wrong` (an answer to something else), `timeout`. As every connection pool does, a client looks whether its idle connection
has been closed before it uses it again; one that is closed after that look has lost a request, and it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import msgspec

from cavalcade.testing.traffic_report import REQUEST_TIMEOUT_S, Books, Report
from cavalcade.testing.traffic_websocket import websocket_clients
from cavalcade.testing.traffic_wire import Lost, TlsWire, Where, Wire

try:
    from cavalcade.testing.traffic_http2 import http2_clients
except ImportError:
    http2_clients = None  # type: ignore[assignment]

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

PAUSE_S = 0.02  # a `pausing` client waits up to this between two requests
LATE_S = 0.2
PROGRESS_S = 0.1
UPLOAD_BYTES = 64 * 1024
APP_FILE = Path(__file__).with_name("traffic_app.py")


class Mix(msgspec.Struct, frozen=True):
    """How many clients of each kind. Those that ask again as soon as the answer is there wait for up to `rest_s` before they do."""

    kept: int = 4
    pausing: int = 8
    closing: int = 4
    uploads: int = 2
    late: int = 8
    websockets: int = 0  # see cavalcade.testing.traffic_websocket
    http2: int = 0  # see cavalcade.testing.traffic_http2; needs h2
    rest_s: float = 0.0

    @classmethod
    def only(cls, *, websockets: int = 0, http2: int = 0, rest_s: float = 0.0) -> Mix:
        """None of the others."""
        return cls(0, 0, 0, 0, 0, websockets, http2, rest_s)


# For tests: all kinds, but they leave most of a CPU to whatever starts meanwhile. `make faults` is the one that gives no rest.
REST_S = 0.01
GENTLE = Mix(kept=2, closing=2, uploads=1, rest_s=REST_S)


class Progress(msgspec.Struct):
    requests: int
    failed: int


class _Orders(msgspec.Struct):
    host: str
    port: int
    mix: Mix
    trust: str


def deploy(folder: Path, version: str = "v1", fault: str = "", name: str = "main") -> None:
    """Put the app that `Traffic` talks to in `folder`, as a release would: whole, at once. `fault` is "", "import" or "startup"."""
    source = APP_FILE.read_text("utf-8")
    source = source.replace('VERSION = "v1"', f'VERSION = "{version}"', 1).replace('FAULT = ""', f'FAULT = "{fault}"', 1)
    scratch = folder / f".{name}.new"
    scratch.write_text(source, "utf-8")
    scratch.replace(folder / f"{name}.py")


class Traffic:
    """Clients that run until `stop()`, which returns the report. A context manager.

    With `trust`, a file of certificates in PEM, they speak HTTPS, and accept what is signed by those.
    """

    def __init__(self, address: tuple[str, int], mix: Mix | None = None, *, trust: str | Path = "") -> None:
        self._orders = _Orders(*address, mix or Mix(), str(trust))
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._more = threading.Condition()
        self._progress = Progress(0, 0)
        self._report: Report | None = None
        self._ended = False

    def start(self) -> None:
        """Start the clients; returns when the first request has been answered, or has failed."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cavalcade.testing.traffic"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(self._orders) + b"\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.wait_requests(1)

    def stop(self) -> Report:
        """Let every client finish the request it is at, and end. The report."""
        if self._report is None:
            assert self._process is not None, "not started"
            assert self._process.stdin is not None
            assert self._reader is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._reader.join(3 * REQUEST_TIMEOUT_S)
            self._process.kill()
            self._process.wait()
            if self._report is None:
                raise RuntimeError("the traffic process ended without a report; its error is above")
        return self._report

    @property
    def report(self) -> Report:
        """Only after `stop()`."""
        assert self._report is not None, "the traffic still runs"
        return self._report

    @property
    def progress(self) -> Progress:
        with self._more:
            return self._progress

    def wait_requests(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until at least `count` requests have ended. Raises `TimeoutError`."""
        with self._more:
            if not self._more.wait_for(lambda: self._progress.requests >= count or self._ended, timeout_s) or self._ended:
                raise TimeoutError(f"{self._progress.requests} requests in {timeout_s:g} s, {count} wanted")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                kind, _, data = line.partition(b" ")
                with self._more:
                    if kind == b"report":
                        self._report = msgspec.json.decode(data, type=Report)
                    else:
                        self._progress = msgspec.json.decode(data, type=Progress)
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


# == in the process of the clients =======================================================================================


class Clients:
    """All clients of one process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int], trusted: str) -> None:
        self._loop = loop
        self._trusted = trusted
        self._trust = _trust(trusted)
        self._address = address
        self._host = f"{address[0]}:{address[1]}"
        self._over = asyncio.Event()
        self._books = Books()

    async def run(self, mix: Mix, on_progress: Callable[[Progress], None]) -> Report:
        """Until stdin ends."""
        await self._loop.connect_read_pipe(lambda: _Stdin(self._over), sys.stdin)
        clients = [self._kept("kept", mix.rest_s) for _ in range(mix.kept)]
        clients += [self._kept("pausing", PAUSE_S) for _ in range(mix.pausing)]
        clients += [self._closing("closing", 0.0, mix.rest_s) for _ in range(mix.closing)]
        clients += [self._closing("late", LATE_S) for _ in range(mix.late)]
        clients += [self._uploads() for _ in range(mix.uploads)]
        clients += websocket_clients(Where(self._address, self._trust, self._over, mix.rest_s), self._books, mix.websockets)
        if mix.http2:
            trust = _trust(self._trusted)
            if trust is not None:
                trust.set_alpn_protocols(["h2"])
            clients += http2_clients(Where(self._address, trust, self._over, mix.rest_s), self._books, mix.http2)
        running = [self._loop.create_task(client) for client in clients]
        while running:
            done, waiting = await asyncio.wait(running, timeout=PROGRESS_S)
            for task in done:
                task.result()  # a client never raises; if one does, that is a fault of ours and must be seen
            running = list(waiting)
            on_progress(Progress(self._books.report.requests, self._books.report.failed))
        return self._books.close()

    def _wire(self) -> Wire:
        return Wire(self._loop, self._address) if self._trust is None else TlsWire(self._loop, self._address, self._trust)

    # -- the kinds -------------------------------------------------------------------------------------------------------

    async def _kept(self, kind: str, pause_s: float) -> None:
        wire = self._wire()
        try:
            while not self._over.is_set():
                token = self._books.token(kind)
                async with self._books.counted(kind, wire):
                    if not wire.usable:
                        wire.close()
                        await wire.connect()
                    answer = await wire.ask(self._get(token, "keep-alive"))
                    self._books.check(answer.body, token)
                    if not answer.keep_alive:
                        wire.close()
                if pause_s:
                    await asyncio.sleep(random.uniform(0, pause_s))
        finally:
            wire.close()

    async def _closing(self, kind: str, wait_s: float, rest_s: float = 0.0) -> None:
        while not self._over.is_set():
            token = self._books.token(kind)
            wire = self._wire()
            if wait_s:
                # The wait is the client's own: what counts is whether there is an answer, and how soon after it has asked.
                try:
                    await wire.connect()
                except Lost as lost:
                    await self._books.lost(kind, time.monotonic(), lost)
                    wire.close()
                    continue
                await asyncio.sleep(wait_s)
            async with self._books.counted(kind, wire):
                if not wait_s:
                    await wire.connect()
                answer = await wire.ask(self._get(token, "close"))
                self._books.check(answer.body, token)
            wire.close()
            if rest_s:
                await asyncio.sleep(random.uniform(0, rest_s))

    async def _uploads(self) -> None:
        filling = os.urandom(UPLOAD_BYTES)
        wire = self._wire()
        try:
            while not self._over.is_set():
                token = self._books.token("upload")
                body = (token.encode() + filling)[:UPLOAD_BYTES]
                head = f"POST /upload?{token} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n"
                async with self._books.counted("uploads", wire):
                    if not wire.usable:
                        wire.close()
                        await wire.connect()
                    answer = await wire.ask(head.encode() + body)
                    self._books.check(answer.body, f"{len(body)} {hashlib.sha256(body).hexdigest()} {token}")
                    if not answer.keep_alive:
                        wire.close()
                await asyncio.sleep(random.uniform(0, PAUSE_S))
        finally:
            wire.close()

    def _get(self, token: str, connection: str) -> bytes:
        return f"GET /echo?{token} HTTP/1.1\r\nHost: {self._host}\r\nConnection: {connection}\r\n\r\n".encode()


def _trust(file: str) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=file) if file else None


class _Stdin(asyncio.Protocol):
    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()


def _say(kind: str, what: Progress | Report) -> None:
    sys.stdout.buffer.write(kind.encode() + b" " + msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


async def _main(orders: _Orders) -> None:
    clients = Clients(asyncio.get_running_loop(), (orders.host, orders.port), orders.trust)
    _say("report", await clients.run(orders.mix, lambda progress: _say("progress", progress)))


def main() -> None:
    """Read the orders from the first line of stdin, run until it ends, print the report."""
    orders = msgspec.json.decode(os.read(0, 65536), type=_Orders)  # one write; no buffer may swallow the end of the pipe
    with asyncio.Runner(loop_factory=getattr(uvloop, "new_event_loop", asyncio.new_event_loop)) as runner:
        runner.run(_main(orders))


if __name__ == "__main__":
    main()
