"""Deadlines of a connection and of each stream on it: one stream that stands still is ended without the others."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from cavalcade import limits
from cavalcade.board.ledger_words import REQUESTS
from cavalcade.testing.http2 import GET, POST, make

pytestmark = pytest.mark.slow

LATE_S = 1.0 + 4.0  # two turns of the sweep, and a busy machine
INITIAL_WINDOW = 4


def get(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, path if name == b":path" else value) for name, value in GET]


async def app(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    if scope["path"] == "/half":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    else:
        return
    body = b"x" * 1_000_000 if scope["path"] == "/big" else b"%d" % size
    if scope["path"] != "/half":
        await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


class Stopwatch:
    def __init__(self) -> None:
        self.began = time.monotonic()

    def check(self, seconds: float) -> None:
        took = time.monotonic() - self.began
        assert seconds <= took <= seconds + LATE_S, took


def test_an_idle_connection_is_ended_by_goaway_and_pings_do_not_keep_it(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app, keep_alive=0.6, lifespan="off") as served:
            client = await speak(served)
            assert (await client.ask(1)).status == 200
            watch = Stopwatch()
            await client.send(make(6, 0, 0, b"12345678"))
            await client.rest()
            watch.check(0.6)
            assert client.peer.goaways == [(1, 0, b"")]
            assert client.peer.pongs == [b"12345678"]
            assert client.ended == "closed"
            assert served.log() == []

    run(main())


def test_what_comes_in_time_while_the_loop_is_blocked_is_answered(run: Any, serve: Any, speak: Any) -> None:
    late: list[tuple[Any, bytes]] = []

    def blocking(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/block":
            for client, data in late:
                os.write(client.wire.sock.fileno(), data)  # they are clients of their own, and would have sent it by themselves
            time.sleep(1.8)  # the subject of the test; every deadline is over by then
        start_response("200 OK", [])
        return [b"ok"]

    async def main() -> None:
        async with serve(blocking, threads=0, head_timeout=0.5, keep_alive=0.5) as served:
            idle, begun = await speak(served), await speak(served)
            for client in (idle, begun):
                assert (await client.ask(1)).body == b"ok"
            request = begun.peer.request(3)
            await begun.send(request[:12])
            late.extend([(idle, idle.peer.request(3)), (begun, request[12:])])
            assert (await served.ask(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")).body == b"ok"
            for client in (idle, begun):
                assert (await client.over(3)).body == b"ok"
            assert served.log() == []

    run(main())


@pytest.mark.parametrize(
    "begun",
    [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ids=["nothing", "half of SETTINGS", "no SETTINGS"],
)
def test_a_connection_must_begin(run: Any, serve: Any, begun: bytes) -> None:
    async def main() -> None:
        async with serve(app, head_timeout=0.4, lifespan="off") as served:
            client = await served.connect()
            watch = Stopwatch()
            await client.send(begun)
            await client.rest()
            watch.check(0.4)
            assert client.ended == "closed"
            assert [("head_timeout" in line, "GOAWAY NO_ERROR" in line) for line in served.log()] == [(True, True)] * bool(begun)

    run(main())


@pytest.mark.parametrize("part", ["half of a frame", "half of a head"])
def test_what_has_begun_must_end_whatever_else_comes(run: Any, serve: Any, speak: Any, part: str) -> None:
    async def main() -> None:
        async with serve(app, head_timeout=0.6, lifespan="off") as served:
            client = await speak(served)
            await client.send(client.peer.request(1, POST, end=False))
            watch = Stopwatch()
            block = client.peer.block(GET)
            await client.send(make(1, 0, 3, block[:5]) if part == "half of a head" else client.peer.data(1, b"x" * 100)[:50])
            await client.rest()
            watch.check(0.6)
            ((last, code, why),) = client.peer.goaways
            assert (last, code) == (1, 0)
            assert b"head_timeout" in why
            assert len(served.log()) == 1

    run(main())


def test_a_request_body_must_make_progress_and_other_streams_go_on(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app, body_timeout=0.6, lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            watch = Stopwatch()
            await client.send(peer.request(1, POST, end=False) + peer.request(3, get(b"/half"), end=False))

            async def drip() -> None:
                await client.send(peer.request(5, POST, end=False))
                for _ in range(6):
                    await client.send(peer.data(5, b"x"))
                    await asyncio.sleep(0.25)
                await client.send(peer.data(5, b"", end=True))

            dripping = asyncio.ensure_future(drip())
            answer = await client.over(1)
            watch.check(0.6)
            assert (answer.status, answer.ended) == (408, True)
            assert (await client.over(3)).reset == 8  # CANCEL: its answer had begun
            await dripping
            assert (await client.over(5)).body == b"6"
            assert any("body_timeout" in line and "(answered 408)" in line for line in served.log())

    run(main())


def test_a_body_that_its_app_does_not_read_is_not_late(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        read = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await read.wait()
            await app(scope, receive, send)

        async with serve(slow, body_timeout=0.3, lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            size = limits.H2_STREAM_WINDOW_BYTES
            await client.send(peer.request(1, POST, end=False) + b"".join(peer.data(1, b"x" * 16384) for _ in range(size // 16384)))
            await asyncio.sleep(1.6)
            assert not peer.answers
            read.set()
            await client.until(lambda: peer.windows.get(1))
            await client.send(peer.data(1, b"end", end=True))
            assert (await client.over(1)).body == b"%d" % (size + 3)

    run(main())


def test_a_client_that_opens_no_window_loses_its_stream_and_no_other(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app, write_timeout=0.6, lifespan="off") as served:
            client = await speak(served, settings={INITIAL_WINDOW: 1000})
            peer = client.peer
            watch = Stopwatch()
            await client.send(peer.request(1, get(b"/big")) + peer.request(3, get(b"/big")))

            async def read_on() -> None:
                for _ in range(6):
                    await asyncio.sleep(0.25)
                    await client.send(peer.window(3, 100))
                await client.send(peer.window(3, 1_000_000) + peer.window(0, 1_000_000))

            reading = asyncio.ensure_future(read_on())
            answer = await client.over(1)
            watch.check(0.6)
            assert (answer.reset, len(answer.body)) == (8, 1000)
            await reading
            assert len((await client.over(3)).body) == 1_000_000
            assert [line for line in served.log() if "opened no window" in line and "write_timeout" in line]
            await served.until(lambda: len(served.access) == 2)

    run(main())


def test_a_client_that_takes_nothing_at_all_loses_its_connection(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app, write_timeout=0.6, lifespan="off") as served:
            client = await speak(served, settings={INITIAL_WINDOW: 2**31 - 1}, receive_buffer=4096)
            peer = client.peer
            await client.send(peer.window(0, 2**30) + b"".join(peer.request(number, get(b"/big")) for number in range(1, 40, 2)))
            await served.until_gone()
            assert [line for line in served.log() if "took no byte of its response" in line]

    run(main())


def test_answers_that_nobody_takes_are_held_in_bounded_memory(run: Any, serve: Any, speak: Any) -> None:
    """CVE-2019-9517: windows wide open, and the socket not read."""

    async def main() -> None:
        async def large(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": [(b"x", b"y" * 8000)]})
            await send({"type": "http.response.body"})

        async with serve(large, lifespan="off") as served:
            client = await speak(served, settings={INITIAL_WINDOW: 2**31 - 1}, receive_buffer=4096)
            (link,) = served.server._context.connections
            number = 1

            def caught_up() -> bool:
                return bool(served.server._context.serving.ledger.get(REQUESTS) == number // 2)

            async def ask() -> None:
                nonlocal number
                while True:
                    await served.until(caught_up)
                    await client.send(b"".join(client.peer.request(number + more) for more in range(0, 100, 2)))
                    number += 100

            asking = asyncio.ensure_future(ask())
            await served.until(lambda: link.read_paused, "reading is paused")
            await asyncio.sleep(0.3)
            assert link.transport.get_write_buffer_size() < limits.H2_HELD_OUTPUT_BYTES + 1_000_000
            asking.cancel()
            await client.until(lambda: sum(answer.ended for answer in client.peer.answers.values()) == (number - 1) // 2)
            assert not link.read_paused

    run(main())
