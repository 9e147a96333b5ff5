"""What the printed files let through: where a request came from, long bodies, streams as they are made, WebSocket."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from cavalcade.testing import LiveServer, write_app

PROXIES = ("nginx", "haproxy", "envoy", "caddy")
WAIT_S = 20.0

APP = """
import asyncio, hashlib, json
from pathlib import Path

HERE = Path(__file__).parent


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: first\\n\\n", "more_body": True})
        while not (HERE / "go").exists():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"data: last\\n\\n"})
        return
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    said = {name.decode(): value.decode() for name, value in scope["headers"]}
    said |= {"body": digest.hexdigest(), "path": scope["raw_path"].decode()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
"""


@pytest.fixture(params=PROXIES)
def entry(request: pytest.FixtureRequest, tmp_path: Path, need: Callable[[str], str], front: Callable[..., Any]) -> Iterator[Any]:
    """A proxy in front of one server."""
    need(request.param)
    folder = tmp_path / "shop"
    folder.mkdir()
    write_app(folder, APP)
    with LiveServer("main:app", cwd=folder) as server, front(request.param, [f"127.0.0.1:{server.port}"]) as proxy:
        yield proxy


def test_origin_bodies_streams_and_websockets_pass(entry: Any, tmp_path: Path) -> None:
    with contextlib.closing(http.client.HTTPConnection(*entry.address, timeout=WAIT_S)) as client:
        client.request("GET", "/a%2Fb?c=d", headers={"Host": "shop.example:8080"})
        said = json.loads(client.getresponse().read())
        assert (said["host"], said["x-forwarded-proto"]) == ("shop.example:8080", "http")
        # Envoy writes the machine's outer address for a client on the same machine.
        assert said["x-forwarded-for"] in {each.address for found in psutil.net_if_addrs().values() for each in found}
        assert said["path"] == "/a%2Fb"

        body = bytes(range(256)) * 4096 * 8  # 8 MiB: more than nginx takes by itself
        client.request("POST", "/", body)
        response = client.getresponse()
        assert response.status == 200, response.read()
        assert json.loads(response.read())["body"] == hashlib.sha256(body).hexdigest()

        client.request("GET", "/events", headers={"Accept": "text/event-stream"})
        response = client.getresponse()
        assert response.readline() == b"data: first\n"
        (tmp_path / "shop" / "go").touch()
        assert response.read() == b"\ndata: last\n\n"

    with connect(f"ws://{entry.address[0]}:{entry.address[1]}/", open_timeout=WAIT_S, close_timeout=WAIT_S, proxy=None) as websocket:
        for word in ("one", "two"):
            websocket.send(word)
            assert websocket.recv(WAIT_S) == word.upper()
