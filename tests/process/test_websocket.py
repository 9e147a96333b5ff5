"""WebSockets through a reload, recycling and a stop: every client sees a clean Close, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import websockets

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.traffic import REST_S, Mix, Traffic, deploy

CLIENTS = 12
WAIT_S = 30.0

APP = """
    import os
    from pathlib import Path

    LEDGER = Path(__file__).parent / "ledger"


    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                os.write(ledger, message["text"].encode() + b"\\n")
                await send({"type": "websocket.send", "text": message["text"] + " done"})
        finally:
            os.close(ledger)
            with (LEDGER.parent / "codes").open("a") as file:
                file.write(f"{message.get('code')}\\n")
"""


class Crowd:
    """Clients that send one message after the other, four in flight, and connect again whenever they are closed."""

    def __init__(self, server: LiveServer) -> None:
        self.url = f"ws://127.0.0.1:{server.port}/"
        self.acknowledged: list[str] = []
        self.closes: Counter[int | str] = Counter()
        self.trouble: list[str] = []
        self.over = False
        self.enough = asyncio.Event()
        self.tasks = [asyncio.create_task(self.client(number)) for number in range(CLIENTS)]

    async def client(self, number: int) -> None:
        count = 0
        while not self.over:
            try:
                async with websockets.connect(self.url, compression=None) as socket:
                    while not self.over:
                        for at in range(count, count + 4):
                            await socket.send(f"{number}:{at}")
                        for at in range(count, count + 4):
                            answer = await socket.recv()
                            if answer != f"{number}:{at} done":
                                self.trouble.append(f"{answer!r} in place of {number}:{at}")
                            self.acknowledged.append(f"{number}:{at}")
                        count += 4
                        await asyncio.sleep(0.005)
                self.closes["by the client"] += 1
            except websockets.ConnectionClosed as closed:
                count += 4  # what was not acknowledged may or may not have been done; never the same number twice
                if closed.rcvd is None:
                    self.trouble.append(f"cut off without a Close: {closed}")
                else:
                    self.closes[closed.rcvd.code] += 1
            except (OSError, websockets.InvalidHandshake) as error:
                if not self.over:
                    self.trouble.append(repr(error))

    async def stop(self) -> None:
        self.over = True
        await asyncio.gather(*self.tasks)


async def line(server: LiveServer, pattern: str, after: int = 0) -> None:
    await asyncio.to_thread(server.wait_line, pattern, 30.0, after=after)


async def acknowledged(crowd: Crowd, more: int) -> None:
    target = len(crowd.acknowledged) + more
    async with asyncio.timeout(30):
        while len(crowd.acknowledged) < target:
            await asyncio.sleep(0.01)


def ledger(folder: Path) -> Counter[str]:
    return Counter((folder / "ledger").read_text().split())


@contextmanager
def busy(folder: Path, *options: str, trust: Path | str = "") -> Iterator[tuple[LiveServer, Traffic]]:
    """A server, and WebSockets of all kinds on it. Whatever a Close has left unanswered is sent again; so in the end every message must
    have been answered, and the app must have been given each of them once."""
    deploy(folder)
    # Without stalls: a machine that is short of CPUs is told in the log as well, and is not what is looked for here.
    with LiveServer("main:app", "--workers", "2", "--no-access-log", "--stall-warn", "0", *options, cwd=folder) as server:
        with Traffic(server.address, Mix.only(websockets=8, rest_s=REST_S), trust=trust) as traffic:
            traffic.wait_requests(200)
            yield server, traffic
        assert [note for note in traffic.report.failures if note.what != "refused" or server.process.poll() is None] == []
        given = Counter((folder / "ledger").read_text().split())
        assert [token for token, times in given.items() if times > 1] == []
        assert [token for token in traffic.report.left if token in given] == []
        assert not [line for line in server.lines if "warning" in line or "error" in line]


def reload_twice(folder: Path, server: LiveServer, traffic: Traffic) -> None:
    for number in (2, 3):
        deploy(folder, f"v{number}")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line("reloaded in", WAIT_S, after=mark)
        traffic.wait_requests(traffic.progress.requests + 200)


@pytest.mark.slow
def test_a_reload_closes_with_1012_and_every_message_is_answered_and_done_once(tmp_path: Path, loop_name: str) -> None:
    with busy(tmp_path, "--loop", loop_name) as (server, traffic):
        reload_twice(tmp_path, server, traffic)
    report = traffic.report
    assert {*report.ends} == {"1012", "by the client"}
    assert report.ends["1012"] >= 8
    assert {*report.versions} == {"v1", "v2", "v3"}
    assert {*report.kinds} == {"ws", "ws-pausing", "ws-short", "ws-large"}


@pytest.mark.slow
def test_over_tls_too(tmp_path: Path, authority: Any, loop_name: str) -> None:
    with busy(tmp_path, *authority.pair.flags, "--loop", loop_name, trust=authority.file) as (server, traffic):
        reload_twice(tmp_path, server, traffic)
    assert {*traffic.report.ends} == {"1012", "by the client"}
    assert traffic.report.ends["1012"] >= 8


@pytest.mark.slow
def test_recycling_closes_with_1012_and_every_message_is_answered_and_done_once(tmp_path: Path, loop_name: str) -> None:
    with busy(tmp_path, "--loop", loop_name, "--max-age", "1s") as (server, traffic):
        for _ in range(3):
            server.wait_line("has left", WAIT_S, after=server.mark())
        traffic.wait_requests(traffic.progress.requests + 100)
    assert {*traffic.report.ends} == {"1012", "by the client"}


@pytest.mark.slow
def test_a_stop_closes_with_1001_and_what_the_app_was_given_is_answered(tmp_path: Path, loop_name: str) -> None:
    with busy(tmp_path, "--loop", loop_name) as (server, traffic):
        server.signal(signal.SIGTERM)
        server.wait_exit(0)
    assert {*traffic.report.ends} <= {"1001", "by the client"}
    assert traffic.report.ends["1001"] >= 6


def test_a_stop_closes_every_websocket_with_1001(tmp_path: Path, run: Any) -> None:
    write_app(tmp_path, APP)

    async def main() -> None:
        with LiveServer("main:app", "--workers", "2", "--no-access-log", cwd=tmp_path) as server:
            crowd = Crowd(server)
            await acknowledged(crowd, 100)
            idle = [await websockets.connect(crowd.url) for _ in range(10)]
            crowd.over = True
            server.signal(signal.SIGTERM)
            for socket in idle:
                await asyncio.wait_for(socket.wait_closed(), 10)
                assert socket.protocol.close_rcvd is not None, "cut off without a Close"
                assert socket.close_code == 1001
            await crowd.stop()
            await asyncio.to_thread(server.wait_exit)
            assert crowd.trouble == []
            assert set(crowd.closes) <= {1001, "by the client"}
            done = ledger(tmp_path)
            assert [each for each in crowd.acknowledged if done[each] != 1] == []
            assert set((tmp_path / "codes").read_text().split()) <= {"1001", "1000"}

    run(main())


def test_max_requests_counts_websockets(tmp_path: Path, run: Any) -> None:
    write_app(tmp_path, APP)

    async def main() -> None:
        with LiveServer("main:app", "--no-access-log", "--max-requests", "5", cwd=tmp_path) as server:
            for _ in range(6):
                async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket:
                    await socket.send("x:0")
                    assert await socket.recv() == "x:0 done"
            await line(server, "max_requests")

    run(main())


@pytest.mark.slow
def test_an_idle_websocket_costs_less_than_20_kb(tmp_path: Path) -> None:
    """With compression agreed on, as with every browser."""
    write_app(tmp_path, APP)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    fields = [b"GET / HTTP/1.1", b"Host: test", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", offer]
    request = b"\r\n".join([*fields, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"", b""])
    sockets: list[socket.socket] = []

    def connect(server: LiveServer, count: int) -> None:
        for _ in range(count):
            client = socket.create_connection(server.address, timeout=30.0)
            sockets.append(client)
            client.sendall(request)
            assert b" 101 " in client.recv(4096)

    with LiveServer("main:app", "--no-access-log", cwd=tmp_path) as server:
        worker = psutil.Process(server.worker_pids[0])
        connect(server, 50)
        before = worker.memory_info().rss
        connect(server, 400)
        assert (worker.memory_info().rss - before) / 400 < 20_000
        for client in sockets:
            client.close()
