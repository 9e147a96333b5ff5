"""What the access log knows of a request, over every protocol and both interfaces, and where its lines go."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from cavalcade.testing import LiveServer, write_app

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"

FASTAPI = """\
import asyncio
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()
router = APIRouter(prefix="/shop")


@router.get("/items/{number}")
async def item(number: int):
    await asyncio.sleep(0.05)
    return number


app.include_router(router)


@app.post("/upload")
async def upload(request: Request):
    return len(await request.body())


@app.get("/stream")
async def stream(request: Request):
    async def pieces():
        yield b"begun"
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces())


@app.websocket("/ws/{room}")
async def room(socket: WebSocket, room: str):
    await socket.accept()
    await socket.close()
"""
FLASK = """\
from flask import Flask, request

app = Flask(__name__)


@app.post("/items/<name>")
def item(name):
    return request.get_data()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """It writes JSON, and names its requests."""
    folder = tmp_path_factory.mktemp("access")
    write_app(folder, FASTAPI)
    with LiveServer("main:app", "--log-format", "json", "--request-id", "trusted", cwd=folder) as server:
        yield server


def line_of(server: LiveServer, mark: int, target: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.wait_line(f'"target":"{re.escape(target)}"', after=mark, stream="stdout").string)
    return found


@pytest.fixture(params=["1.1", "2"])
def client(server: LiveServer, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    two = request.param == "2"
    with httpx.Client(base_url=server.url, http1=not two, http2=two) as client:
        yield client


def test_a_request_has_its_route_its_names_and_its_times(server: LiveServer, client: httpx.Client) -> None:
    mark = server.mark()
    start = time.time() - 2.0
    headers = {"traceparent": TRACEPARENT, "x-request-start": f"t={start:.3f}"}
    assert client.get("/shop/items/3?q=1", headers=headers).headers["x-request-id"] == TRACE
    line = line_of(server, mark, "/shop/items/3?q=1")
    assert (line["route"], line["trace_id"], line["request_id"]) == ("/shop/items/{number}", TRACE, TRACE)
    assert (line["worker"], line["status"], line["bytes"], line["received_bytes"]) == (1, 200, 1, 0)
    assert 0.05 <= line["ttfb_s"] <= line["duration_s"]
    assert 2.0 <= line["queue_s"] < 30.0
    assert "client_left" not in line


def test_the_bytes_of_an_upload_are_counted(server: LiveServer, client: httpx.Client) -> None:
    mark = server.mark()
    assert client.post("/upload", content=b"x" * 100_000).text == "100000"
    line = line_of(server, mark, "/upload")
    assert (line["received_bytes"], line["bytes"]) == (100_000, 6)


def test_a_client_that_leaves_in_the_middle_is_marked(server: LiveServer, client: httpx.Client) -> None:
    mark = server.mark()
    with client.stream("GET", "/stream") as response:
        next(response.iter_raw())
    client.close()
    line = line_of(server, mark, "/stream")
    assert (line["status"], line["client_left"]) == (200, True)
    assert line["ttfb_s"] < line["duration_s"]


def test_a_client_that_leaves_before_the_answer_is_499(server: LiveServer) -> None:
    mark = server.mark()
    with socket.create_connection(server.address) as peer:
        peer.sendall(b"GET /shop/items/4 HTTP/1.1\r\nhost: x\r\n\r\n")
    line = line_of(server, mark, "/shop/items/4")
    assert (line["status"], line["client_left"], line["bytes"]) == (499, True, 0)


def test_a_websocket_has_its_line(server: LiveServer) -> None:
    mark = server.mark()
    with connect(f"{server.url.replace('http', 'ws')}/ws/one"):
        pass
    line = line_of(server, mark, "/ws/one")
    assert (line["status"], line["route"]) == (101, "/ws/{room}")


def test_wsgi_lines_of_a_format_in_a_file_that_is_opened_anew(tmp_path: Path) -> None:
    write_app(tmp_path, FLASK)
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    options = ("--access-logfile", "access.log", "--access-logformat", '%(m)s %({path_info}e)s %({content-type}o)s %(s)s %(B)s "%(f)s"')
    with LiveServer("main:app", "--workers", "2", *options, cwd=tmp_path) as server:
        httpx.post(f"{server.url}/items/a?q=1", content=b"hello", headers={"referer": '"\\'})
        _wait_lines(log, 1)
        assert log.read_text() == 'POST /items/a text/html; charset=utf-8 200 5 "\\"\\\\"\n'
        log.rename(moved)
        server.signal(signal.SIGUSR1)
        server.wait_line("SIGUSR1: log files that have been moved away are opened anew")
        for _ in range(2000):  # each worker opens it in its own time, at its next line at the latest
            httpx.post(f"{server.url}/items/b", content=b"hello")
            if log.exists() and log.read_text().count("/items/b") > 20:
                break
        assert server.access_lines == []
    assert log.read_text().count("\n") + moved.read_text().count("\n") > 20


def test_a_sample_leaves_out_what_went_well_only(tmp_path: Path) -> None:
    write_app(tmp_path, FLASK)
    options = ("--access-log-format", "{status} {received_bytes} {ttfb_ms}", "--access-log-sample", "1000")
    with LiveServer("main:app", *options, cwd=tmp_path) as server:
        connection = http.client.HTTPConnection(*server.address)
        for path in ["/items/a"] * 5 + ["/nowhere"]:
            connection.request("POST", path, b"hello")
            connection.getresponse().read()
        connection.close()
        server.wait_line("404 ", stream="stdout")
        first, last = server.access_lines
    assert re.fullmatch(r"200 5 \d+\.\d", first)
    assert re.fullmatch(r"404 \d \d+\.\d", last)


def _wait_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline, f"{path} has no {count} lines"
        time.sleep(0.01)
