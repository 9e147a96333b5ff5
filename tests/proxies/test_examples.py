"""The FastAPI example as its users meet it: behind nginx and HAProxy, which reach it over TCP and over a unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_demo"
WAIT_S = 20.0


@pytest.fixture(params=["tcp", "unix"])
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the example is reached."""
    with LiveServer("main:app", "--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/shop.sock", "--workers", "2", cwd=EXAMPLE) as server:
        yield f"unix:{tmp_path}/shop.sock" if request.param == "unix" else f"127.0.0.1:{server.port}"


@pytest.fixture(params=["nginx", "haproxy"])
def client(
    request: pytest.FixtureRequest, upstream: str, need: Callable[[str], str], front: Callable[..., Any]
) -> Iterator[http.client.HTTPConnection]:
    """One kept connection to the proxy."""
    need(request.param)
    with (
        front(request.param, [upstream], first="/") as entry,
        contextlib.closing(http.client.HTTPConnection(*entry.address, timeout=WAIT_S)) as kept,
    ):
        yield kept


def test_requests_bodies_errors_and_streams_pass(client: http.client.HTTPConnection) -> None:
    def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        client.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = client.getresponse()
        return response.status, json.loads(response.read() or b"null")

    status, said = ask("GET", "/")
    assert (status, said["message"]) == (200, "Hello from Cavalcade")
    assert ask("GET", "/slow?seconds=0.1")[1]["waited_s"] == 0.1
    status, said = ask("POST", "/notes", json.dumps({"text": "a" * 1000}).encode())
    assert (status, said["notes"]) == (201, 1)
    assert ask("POST", "/notes", b'{"text": ""}')[0] == 422
    assert ask("GET", "/nothing")[0] == 404
    client.request("GET", "/fail")
    response = client.getresponse()
    assert (response.status, response.read()) == (500, b"Internal Server Error")

    # Each line is here before the next is made: the answer is chunked all the way, and nothing holds it back.
    client.request("GET", "/count?upto=3")
    response = client.getresponse()
    assert response.getheader("transfer-encoding") == "chunked"
    assert [response.readline() for _ in range(4)] == [b"1\n", b"2\n", b"3\n", b""]
