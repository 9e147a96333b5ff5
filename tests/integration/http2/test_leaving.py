"""A server that stops, a worker that drains: two GOAWAYs, and every stream up to the last one named is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cavalcade.testing.http2 import GET, Peer

ALL_STREAMS = 2**31 - 1


def make_app(go: asyncio.Event) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go.wait()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    return app


def get(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, path if name == b":path" else value) for name, value in GET]


def test_an_idle_connection_is_told_twice_and_ends(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(make_app(asyncio.Event()), lifespan="off") as served:
            client = await speak(served)
            assert (await client.ask(1)).status == 200
            stopping = asyncio.ensure_future(served.server.stop(5.0))
            await client.rest()
            assert client.peer.goaways == [(ALL_STREAMS, 0, b""), (1, 0, b"")]
            assert client.ended == "closed"
            client.wire.close()
            assert await stopping == []
            assert served.log() == []

    run(main())


def test_what_comes_before_the_client_knows_is_answered(run: Any, serve: Any, speak: Any) -> None:
    """Its request and our GOAWAY cross on the wire; it does not answer the PING before."""

    async def main() -> None:
        async with serve(make_app(asyncio.Event()), lifespan="off") as served:
            client = await speak(served, pings=False)
            stopping = asyncio.ensure_future(served.server.stop(5.0))
            await client.until(lambda: client.peer.goaways)
            assert (await client.ask(1, get(b"/late"))).body == b"/late"
            assert client.peer.goaways == [(ALL_STREAMS, 0, b"")]
            await client.rest()
            assert client.peer.goaways == [(ALL_STREAMS, 0, b""), (1, 0, b"")]
            client.wire.close()
            assert await stopping == []

    run(main())


def test_what_is_in_flight_ends_and_what_comes_later_is_left_to_others(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with serve(make_app(go), lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            await client.send(peer.request(1, get(b"/slow")) + peer.request(3, get(b"/slow")))
            await served.until(lambda: len(served.server._context.serving.running) == 2)
            stopping = asyncio.ensure_future(served.server.stop(5.0))
            await client.until(lambda: len(peer.goaways) == 2)
            assert peer.goaways[1] == (3, 0, b"")
            await client.send(peer.request(5, get(b"/never")))
            go.set()
            await client.rest()
            assert {number: answer.body for number, answer in peer.answers.items()} == {1: b"/slow", 3: b"/slow"}
            client.wire.close()
            assert await stopping == []

    run(main())


def test_a_response_that_is_not_done_in_time_is_a_503_or_a_reset(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/stream":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"first ", "more_body": True})
                await receive()
                await receive()
                await send({"type": "http.response.body", "body": b"last", "more_body": True})
                return
            await asyncio.Event().wait()

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            await client.send(peer.request(1, get(b"/never")) + peer.request(3, get(b"/stream")))
            await client.until(lambda: peer.answer(3).body)
            left = asyncio.ensure_future(served.server.stop(1.0))
            await client.rest()
            assert (peer.answers[1].status, dict(peer.answers[1].fields)[b"cavalcade-reason"]) == (503, b"draining")
            assert (peer.answers[3].body, peer.answers[3].reset) == (b"first last", 8)
            client.wire.close()
            assert await left == ["GET /never"]

    run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_announced_a_stop_is_goaway_on_the_next_request(run: Any, serve: Any, speak: Any, begun: bool) -> None:
    """Where responses of HTTP/1.1 would say `Connection: close`."""

    async def main() -> None:
        async with serve(make_app(asyncio.Event()), lifespan="off") as served:
            client = await speak(served)
            if begun:
                await client.ask(1)
            served.server.announce_stop()
            assert (await client.ask(3)).status == 200
            await client.rest()
            assert client.peer.goaways == [(ALL_STREAMS, 0, b""), (3, 0, b"")]

    run(main())


def test_a_connection_that_begins_while_the_server_leaves_is_served_and_ended(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(make_app(asyncio.Event()), lifespan="off") as served:
            wire = await served.connect()
            await served.until(lambda: served.connections)
            stopping = asyncio.ensure_future(served.server.stop(10.0))
            await asyncio.sleep(0.05)
            peer = Peer()
            await wire.send(peer.start() + peer.request(1, get(b"/late")))
            while await wire.fill():
                peer.take(wire.buffer)
                wire.buffer = b""
                await wire.send(peer.take_reply())
            assert peer.answers[1].body == b"/late"
            assert peer.goaways == [(ALL_STREAMS, 0, b""), (1, 0, b"")]
            wire.close()
            assert await stopping == []

    run(main())


def test_out_of_descriptors_idle_connections_make_room(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(make_app(asyncio.Event()), lifespan="off") as served:
            client = await speak(served)
            await client.ask(1)
            (link,) = served.server._context.connections
            assert link.is_idle()
            link.close_idle()
            await client.rest()
            assert client.peer.goaways == [(1, 0, b"")]

    run(main())
