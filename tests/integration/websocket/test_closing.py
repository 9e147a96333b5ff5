"""Close codes both ways, and ends without one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets

ACCEPT = {"type": "websocket.accept"}


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        ((1000).to_bytes(2, "big"), 1000, ""),
        ((1001).to_bytes(2, "big") + b"tab closed", 1001, "tab closed"),
        ((3000).to_bytes(2, "big"), 3000, ""),
        ((4999).to_bytes(2, "big") + "é".encode() * 61, 4999, "é" * 61),
    ],
)
def test_the_code_and_reason_of_the_client_reach_the_app(
    run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any, payload: bytes, code: int, reason: str
) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            await client.send(raw.CLOSE, payload)
            assert (await client.frame()).payload == payload  # the same back
            assert await client.wire.rest() == b""  # the server ends the connection, RFC 6455 section 7.1.1
            assert client.wire.ended == "closed"
            assert await told.disconnected() == {"type": "websocket.disconnect", "code": code, "reason": reason}
            await served.until_gone()
            assert served.log() == []

    run(main())


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 1008}, 1008, ""),
        ({"code": 4000, "reason": "é" * 61}, 4000, "é" * 61),
        ({"code": None, "reason": None}, 1000, ""),
    ],
)
def test_the_code_and_reason_of_the_app_reach_the_client(run: Any, serve: Any, message: Any, code: int, reason: str) -> None:
    async def main() -> None:
        told: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await send({"type": "websocket.close", **message})
            await receive()
            told.append(await receive())

        async with serve(app, lifespan="off") as served:
            async with websockets.connect(served.url.replace("http", "ws")) as client:
                with pytest.raises(websockets.ConnectionClosed):
                    await client.recv()
            assert (client.close_code, client.close_reason) == (code, reason)
            await served.until(lambda: told == [{"type": "websocket.disconnect", "code": code, "reason": reason}])
            await served.until_gone()

    run(main())


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
@pytest.mark.parametrize("after", ["nothing", "half a frame", "half a message"])
def test_an_end_without_a_close_is_1006(run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any, how: str, after: str) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            await client.send(raw.TEXT, b"before")
            assert await client.text() == "before"
            if after == "half a frame":
                await client.wire.send(raw.frame(raw.TEXT, b"x" * 100)[:50])
            elif after == "half a message":
                await client.send(raw.TEXT, b"x", fin=False)
            getattr(client.wire, how)()
            assert await told.disconnected() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
            await served.until_gone()

    run(main())


def test_messages_before_an_abrupt_end_are_all_received(run: Any, serve: Any, told: Any, peer: Any, raw: Any) -> None:
    """Those that were not read ahead yet too, with the Close that is behind them."""

    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await go.wait()
            while not told or told[-1]["type"] != "websocket.disconnect":
                told.append(await receive())

        for ending, code in ((b"", 1006), (raw.frame(raw.CLOSE, (4321).to_bytes(2, "big")), 4321)):
            go.clear()
            told.clear()
            async with serve(app, lifespan="off", ws_max_queue=2) as served:
                client = await peer(served)
                await client.wire.send(b"".join(raw.frame(raw.TEXT, b"%d" % number) for number in range(20)) + ending)
                (call,) = served.server._context.serving.websockets
                await served.until(lambda call=call: call.starved)
                client.wire.half_close()
                go.set()
                assert (await told.disconnected())["code"] == code
                assert [message["text"] for message in told[1:-1]] == [str(number) for number in range(20)]

    run(main())


def test_both_close_at_the_same_time(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await go.wait()
            await send({"type": "websocket.close", "code": 4001})

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            loop = asyncio.get_running_loop()
            loop.call_soon(go.set)
            await client.send(raw.CLOSE, (4002).to_bytes(2, "big"))
            assert (await client.closed())[0] in (4001, 4002)
            assert await client.wire.rest() == b""
            assert client.wire.ended == "closed"

    run(main())


def test_what_a_client_sends_before_it_sees_our_close_is_thrown_away(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await send({"type": "websocket.close", "code": 4001})
            assert (await receive())["type"] == "websocket.disconnect" or (await receive())["type"] == "websocket.disconnect"

        async with serve(app, lifespan="off", ws_max_queue=2) as served:
            client = await peer(served)
            await client.wire.send(b"".join(raw.frame(raw.TEXT, b"x" * 1000) for _ in range(500)))
            assert await client.end() == (4001, "")

    run(main())


def test_the_close_is_seen_though_the_app_had_not_read_what_came_before(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    """The app closes, and goes on with something else, while the socket was paused for it: the client's Close is still found."""

    async def main() -> None:
        go, over = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await go.wait()
            await send({"type": "websocket.close", "code": 4001})
            await over.wait()

        async with serve(app, lifespan="off", ws_max_queue=2) as served:
            client = await peer(served)
            await client.wire.send(b"".join(raw.frame(raw.TEXT, b"x" * 100_000) for _ in range(10)))
            (call,) = served.server._context.serving.websockets
            await served.until(lambda: call.starved)
            go.set()
            assert await client.end() == (4001, "")
            over.set()

    run(main())


@pytest.mark.slow
def test_a_client_that_does_not_answer_our_close_is_cut_off(
    run: Any, serve: Any, peer: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavalcade.limits.WS_CLOSE_TIMEOUT_S", 0.5)

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert await client.closed() == (1000, "")
            assert await client.wire.rest() == b""
            assert client.wire.ended == "closed"
            await served.until_gone()
            (line,) = served.log()
            assert "did not answer our Close within 0.5 s" in line

    run(main())


def test_nothing_is_left_of_a_websocket_however_it_ends(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"]
            if path == "/deny":
                await send({"type": "websocket.close"})
            elif path == "/fail":
                raise RuntimeError("on purpose")
            elif path == "/fail-later":
                await send(ACCEPT)
                raise RuntimeError("on purpose")
            elif path == "/wait":
                await receive()
                await receive()
            else:
                await echo(scope, receive, send)

        async with serve(app, lifespan="off", errors=("the app failed",) * 2) as served:
            serving = served.server._context.serving
            for path, status in (("/deny", 403), ("/fail", 500)):
                assert (await served.ask(raw.handshake(path))).status == status
            leaving = await served.connect()
            await leaving.send(raw.handshake("/wait"))
            await served.until(lambda: serving.running)
            leaving.reset()
            assert (await (await peer(served, "/fail-later")).end())[0] == 1011
            for data in (raw.frame(raw.CLOSE), raw.frame(raw.TEXT, b"x", mask=None)):
                client = await peer(served)
                await client.wire.send(data)
                await client.closed()
                client.wire.half_close()
                assert await client.wire.rest() == b""
            (await peer(served)).wire.reset()
            await served.until_gone()
            await served.until(lambda: not serving.running)
            assert serving.websockets == set()

    run(main())
