"""WebSocket endpoints of FastAPI and Starlette, and the examples, with a client by another author."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.sync.client import connect

from cavalcade.testing import LiveServer

EXAMPLES = Path(__file__).parents[3] / "examples"

SOURCE = """
    import asyncio
    from contextlib import asynccontextmanager
    from fastapi import Depends, FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException, status
    from starlette.endpoints import WebSocketEndpoint
    from starlette.responses import JSONResponse
    from starlette.routing import WebSocketRoute

    @asynccontextmanager
    async def lifespan(app):
        yield {"answer": 42}

    class Upper(WebSocketEndpoint):
        encoding = "text"

        async def on_receive(self, websocket, data):
            await websocket.send_text(data.upper())

    app = FastAPI(lifespan=lifespan, routes=[WebSocketRoute("/upper", Upper)])
    left = []

    @app.websocket("/json")
    async def json(websocket: WebSocket):
        await websocket.accept(subprotocol="v2.json", headers=[(b"x-room", b"7")])
        async for item in websocket.iter_json():
            await websocket.send_json({"got": item, "answer": websocket.state.answer, "room": websocket.query_params["room"]})

    @app.websocket("/bytes")
    async def data(websocket: WebSocket):
        await websocket.accept()
        async for item in websocket.iter_bytes():
            await websocket.send_bytes(item[::-1])

    async def token(token: str = Query("")):
        if token != "secret":
            raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)

    @app.websocket("/guarded", dependencies=[Depends(token)])
    async def guarded(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text("welcome")
        await websocket.close(4000, "that was all")

    @app.websocket("/denied")
    async def denied(websocket: WebSocket):
        await websocket.send_denial_response(JSONResponse({"detail": "no"}, status_code=401))

    @app.websocket("/uncaught")
    async def uncaught(websocket: WebSocket):
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        finally:
            left.append("uncaught")

    @app.websocket("/push")
    async def push(websocket: WebSocket):
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect as error:
            left.append(f"push {error.code}")

    @app.websocket("/fails")
    async def fails(websocket: WebSocket):
        await websocket.accept()
        raise RuntimeError("endpoint failed")

    @app.get("/left")
    async def who_left():
        return left
"""


@pytest.fixture(scope="module")
def server(serve: Any) -> LiveServer:
    server: LiveServer = serve(SOURCE)
    return server


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.url.replace("http", "ws")


def test_json_subprotocol_headers_and_state(url: str) -> None:
    with connect(url + "/json?room=7", subprotocols=["v1.json", "v2.json"]) as socket:
        assert socket.subprotocol == "v2.json"
        assert socket.response.headers["x-room"] == "7"
        socket.send('{"a": "é"}')
        assert socket.recv() == '{"got":{"a":"é"},"answer":42,"room":"7"}'


def test_bytes(url: str) -> None:
    with connect(url + "/bytes") as socket:
        for size in (0, 3, 100_000):
            socket.send(b"ab" * size)
            assert socket.recv() == b"ba" * size


def test_a_class_based_endpoint(url: str) -> None:
    with connect(url + "/upper") as socket:
        socket.send("loud")
        assert socket.recv() == "LOUD"


def test_a_dependency_that_refuses_is_a_403(url: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(url + "/guarded")
    assert refused.value.response.status_code == 403


def test_a_close_of_the_app(url: str) -> None:
    with connect(url + "/guarded?token=secret") as socket:
        assert socket.recv() == "welcome"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            socket.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "that was all")


def test_a_denial_response(url: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(url + "/denied")
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b'{"detail":"no"}'


def test_an_unknown_path_is_refused(url: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(url + "/nowhere")
    assert refused.value.response.status_code == 403


def test_clients_that_leave_are_no_errors(server: LiveServer, url: str, client: Any) -> None:
    with connect(url + "/uncaught") as socket:
        socket.send("x")
    with connect(url + "/push") as socket:
        assert socket.recv() == "tick"
        socket.socket.close()
    for _ in range(1000):
        left = client.get("/left").json()
        if len(left) == 2:
            break
    assert left == ["uncaught", "push 1006"]
    assert not any("uncaught" in line or "push" in line for line in server.lines)


def test_an_endpoint_that_fails_closes_with_1011_and_is_logged(server: LiveServer, url: str) -> None:
    with connect(url + "/fails") as socket, pytest.raises(websockets.ConnectionClosed) as closed:
        socket.recv()
    assert closed.value.rcvd.code == 1011
    server.wait_line(r"WebSocket /fails: the app failed")
    server.wait_line("endpoint failed")


def test_the_echo_example(loop_name: str) -> None:
    with LiveServer("main:app", "--loop", loop_name, cwd=EXAMPLES / "websocket_echo") as server:
        with connect(server.url.replace("http", "ws"), subprotocols=["one", "two"]) as socket:
            assert socket.subprotocol == "one"
            for message in ("text", b"bytes"):
                socket.send(message)
                assert socket.recv() == message


def test_the_chat_example(loop_name: str) -> None:
    async def talk(url: str) -> None:
        async with websockets.connect(url + "/chat?name=ann") as ann:
            assert await ann.recv() == "ann is here"
            async with websockets.connect(url + "/chat?name=bob") as bob:
                assert await ann.recv() == await bob.recv() == "bob is here"
                await bob.send("hello")
                assert await ann.recv() == await bob.recv() == "bob: hello"
            assert await ann.recv() == "bob has left"

    with LiveServer("main:app", "--loop", loop_name, cwd=EXAMPLES / "websocket_chat") as server:
        asyncio.run(talk(server.url.replace("http", "ws")))
