"""Too much at once: who is turned away, how they can tell, and what it costs the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cavalcade.board.ledger_words import SHED

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n"


class Gated:
    """An app whose /held waits until `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self.most = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if scope["path"] == "/held":
                await self.go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
        finally:
            self.running -= 1


def check_turned_away(response: Any) -> None:
    assert response.status == 503
    assert response.header("retry-after") == "1"
    assert response.header("cavalcade-reason") == "overloaded"
    assert response.body == b"Service Unavailable: too many requests at once"


def test_beyond_the_limit_a_request_is_turned_away_at_once_and_its_connection_stays(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        async with serve(app, limit_concurrency=2) as served:
            held = [await served.connect() for _ in range(2)]
            for client in held:
                await client.send(HELD)
            await served.until(lambda: app.running == 2)
            other = await served.connect()
            for _ in range(3):
                await other.send(GET)
                check_turned_away(await other.response())
            await other.send(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n")
            head = await other.response("HEAD")
            assert (head.status, head.header("cavalcade-reason")) == (503, "overloaded")
            app.go.set()
            for client in held:
                assert (await client.response()).status == 200
            await other.send(GET)
            assert (await other.response()).body == b"ok"
            assert app.most == 2
            assert served.server._context.serving.ledger.get(SHED) == 4
            assert served.log() == ["overloaded: 2 requests in flight (limit_concurrency); one of " + peer(other) + " was answered 503"]

    run(main())


def peer(client: Any) -> str:
    host, port = client.sock.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("more", [b"", GET], ids=["alone", "pipelined"])
def test_the_body_of_a_request_that_is_turned_away_is_read_and_thrown_away(run: Any, serve: Any, more: bytes) -> None:
    async def main() -> None:
        app = Gated()
        async with serve(app, limit_concurrency=1) as served:
            held = await served.connect()
            await held.send(HELD)
            await served.until(lambda: app.running == 1)
            other = await served.connect()
            await other.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhe")
            check_turned_away(await other.response())
            await other.send(b"llo" + more)
            if more:
                check_turned_away(await other.response())
            app.go.set()
            assert (await held.response()).status == 200
            await other.send(GET)
            assert (await other.response()).status == 200

    run(main())


def test_a_client_that_asks_before_it_sends_its_body_need_not_send_it(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        async with serve(app, limit_concurrency=1) as served:
            held = await served.connect()
            await held.send(HELD)
            await served.until(lambda: app.running == 1)
            other = await served.connect()
            await other.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            response = await other.response()
            check_turned_away(response)
            assert response.interim == []
            assert response.header("connection") == "close"
            app.go.set()
            await held.response()

    run(main())


def test_idle_connections_are_no_load(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(Gated(), limit_concurrency=1) as served:
            idle = [await served.connect() for _ in range(30)]
            for client in idle:
                await client.send(GET)
                assert (await client.response()).status == 200
            assert served.connections == 30
            assert (await served.ask(GET)).status == 200
            assert served.log() == []

    run(main())


def test_a_request_that_is_cancelled_because_the_server_leaves_is_told_so(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Gated()
        async with serve(app) as served:
            client = await served.connect()
            await client.send(HELD)
            await served.until(lambda: app.running == 1)
            await served.server.stop(0.1)
            response = await client.response()
            assert (response.status, response.header("cavalcade-reason"), response.header("retry-after")) == (503, "draining", "1")

    run(main())
