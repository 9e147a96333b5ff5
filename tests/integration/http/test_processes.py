"""Real processes and clients that others wrote: http.client, httpx, h11 and curl."""

from __future__ import annotations

import http.client
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import httpx
import psutil
import pytest

from cavalcade.testing import LiveServer, write_app

pytestmark = pytest.mark.slow

APP = """
    import asyncio, os, time

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise TypeError(scope["type"])
        path = scope["path"]
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if path == "/echo":
            await send(start)
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        elif path == "/large":
            await send({**start, "headers": [(b"content-length", b"50000000")]})
            for number in range(500):
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": number < 499})
        elif path == "/fail":
            raise RuntimeError("boom")
        elif path == "/fail-late":
            await send(start)
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            raise RuntimeError("boom late")
        elif path == "/empty":
            await send({**start, "status": 204})
            await send({"type": "http.response.body"})
        else:
            await send(start)
            await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("app")
    write_app(folder, APP)
    with LiveServer("main:app", "--loop", request.param, "--workers", "2", cwd=folder) as live:
        yield live


def ask(server: LiveServer, data: bytes) -> bytes:
    """Everything that a server says to some bytes, until it closes or resets."""
    with socket.create_connection(server.address, timeout=20) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while block := sock.recv(65536):
                said += block
        except ConnectionResetError:
            pass
        return said


def test_http_client(server: LiveServer) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    for number in range(10):
        body = b"x" * (number * 50_000)
        connection.request("POST", "/echo", body)
        assert connection.getresponse().read() == body
        connection.request("POST", "/echo", iter([b"chunk"] * number), encode_chunked=True, headers={"transfer-encoding": "chunked"})
        assert connection.getresponse().read() == b"chunk" * number
        connection.request("HEAD", "/")
        assert connection.getresponse().read() == b""
        connection.request("GET", "/empty")
        response = connection.getresponse()
        assert (response.status, response.read()) == (204, b"")
    connection.close()


def test_httpx(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        pids = {client.get("/").text for _ in range(20)}
        assert len(pids) == 1  # one connection, one worker
        assert client.post("/echo", content=(b"x" * 1000 for _ in range(100))).content == b"x" * 100_000
        assert client.get("/fail").status_code == 500
        with pytest.raises(httpx.HTTPError):
            client.get("/fail-late")
        assert client.get("/").status_code == 200
        with client.stream("GET", "/large") as response:
            assert sum(len(block) for block in response.iter_bytes()) == 50_000_000


def test_h11(server: LiveServer) -> None:
    with socket.create_connection(server.address, timeout=20) as sock:
        client = h11.Connection(h11.CLIENT)

        def until(kind: Any) -> list[Any]:
            events: list[Any] = []
            while not events or not isinstance(events[-1], kind):
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(sock.recv(65536))
                else:
                    events.append(event)
            return events

        for _ in range(3):
            headers = [("host", "a"), ("content-length", "5"), ("expect", "100-continue")]
            sock.sendall(client.send(h11.Request(method="POST", target="/echo", headers=headers)) or b"")
            assert until(h11.InformationalResponse)[0].status_code == 100
            sock.sendall((client.send(h11.Data(data=b"hello")) or b"") + (client.send(h11.EndOfMessage()) or b""))
            assert until(h11.Response)[0].status_code == 200
            assert b"".join(event.data for event in until(h11.EndOfMessage)[:-1]) == b"hello"
            client.start_next_cycle()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: LiveServer, tmp_path: Path) -> None:
    def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, check=False)

    upload = tmp_path / "upload"
    upload.write_bytes(random.Random(1).randbytes(3_000_000))
    assert curl("-T", str(upload), f"{server.url}/echo").stdout == upload.read_bytes()
    assert curl("--http1.0", f"{server.url}/large", "-o", str(tmp_path / "large")).returncode == 0
    assert (tmp_path / "large").stat().st_size == 50_000_000
    assert curl("-I", f"{server.url}/").stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    late = curl(f"{server.url}/fail-late")
    assert (late.stdout, late.returncode) == (b"begun", 56)  # the connection was reset
    assert curl("--http1.0", f"{server.url}/fail-late").returncode == 56
    tls = curl(server.url.replace("http:", "https:"))
    assert tls.returncode == 35
    server.wait_line("TLS spoken to a plain HTTP port")


def test_an_error_is_logged_once_with_its_request_line_and_the_users_frames(server: LiveServer) -> None:
    mark = server.mark()
    assert httpx.get(f"{server.url}/fail?x=%0a").status_code == 500
    server.wait_line(r"GET /fail\?x=%0a: the app failed", after=mark)
    server.wait_line("RuntimeError: boom$", after=mark)
    server.wait_line(r'"GET /fail\?x=%0a HTTP/1.1" 500 21B', stream="stdout")
    assert sum("GET /fail?x=%0a: the app failed" in line for line in server.lines) == 1


def test_nothing_a_peer_sends_takes_a_worker_down(server: LiveServer) -> None:
    before = server.worker_pids
    mark = server.mark()
    rng = random.Random(3)
    good = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    for number in range(300):
        data = bytearray(good * rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(1, 4)] = rng.randbytes(rng.randrange(0, 3))
        if number % 10 == 0:
            data = bytearray(rng.randbytes(rng.randrange(1, 2000)))
        ask(server, bytes(data))
    assert httpx.get(server.url).status_code == 200
    assert server.worker_pids == before
    # The app here does not expect a disconnect, so it may fail of one; nothing else may.
    lines = [line for line in server.lines[mark:] if "ERROR" in line or "Traceback" in line or "error:" in line]
    assert not [line for line in lines if "the app failed" not in line and "Traceback" not in line], lines


def test_a_large_response_to_a_slow_reader_takes_no_memory(server: LiveServer) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(20)
        sock.connect(server.address)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pid = int(sock.recv(65536).rpartition(b"\r\n")[2])
        worker = psutil.Process(pid)
        before = worker.memory_info().rss
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        peak = got = 0
        while got < 50_000_000:
            got += len(sock.recv(1 << 20))
            peak = max(peak, worker.memory_info().rss)
    assert peak - before < 8_000_000
