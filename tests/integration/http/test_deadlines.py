"""Every deadline: what a client sees, that it comes in time and never early, and what the log says.

Deadlines are looked at twice a second, so each of these takes about one second; those of one kind run side by side.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"

pytestmark = pytest.mark.slow

LATE_S = 1.0 + 4.0  # two turns of the sweep, and a busy machine


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/half":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    if scope["method"] == "POST":
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not message["more_body"]:
                break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


class Stopwatch:
    def __init__(self) -> None:
        self.began = time.monotonic()

    def check(self, seconds: float) -> None:
        took = time.monotonic() - self.began
        assert seconds <= took <= seconds + LATE_S, took


def test_a_head_must_come_in_time(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app, head_timeout=0.4, keep_alive=30) as served:

            async def silent() -> None:
                """A connection that is never used is closed without a word: browsers keep such in reserve."""
                watch = Stopwatch()
                client = await served.connect()
                assert await client.rest() == b""
                assert client.ended == "closed"
                watch.check(0.4)

            async def dripping(before: bytes) -> None:
                """One byte now and then does not move the deadline."""
                client = await served.connect()
                if before:
                    await client.send(before)
                    await client.response()
                watch = Stopwatch()
                for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 1000:
                    await asyncio.sleep(0.05)
                    if client.waiting():
                        break
                    await client.send(bytes([byte]))
                watch.check(0.4)
                response = await client.response()
                assert (response.status, response.header("connection")) == (408, "close")
                assert b"head_timeout" in response.body

            async def half_behind_a_request() -> None:
                """Half a head that came in one piece with the request before it."""
                client = await served.connect()
                watch = Stopwatch()
                await client.send(GET + b"GET / HTTP/1.1\r\n")
                assert (await client.response()).status == 200
                assert (await client.response()).status == 408
                watch.check(0.4)

            await asyncio.gather(silent(), dripping(b""), dripping(GET), half_behind_a_request())
            assert any("longer than 0.4 s (head_timeout) (answered 408)" in line for line in served.log())

    run(main())


def test_a_body_must_make_progress(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app, body_timeout=0.4) as served:

            async def stuck(request: bytes) -> None:
                client = await served.connect()
                await client.send(request)
                watch = Stopwatch()
                response = await client.response()
                assert (response.status, response.header("connection")) == (408, "close")
                assert b"body_timeout" in response.body
                watch.check(0.4)

            async def behind_the_head_of_its_answer() -> None:
                client = await served.connect()
                await client.send(POST.replace(b"POST / ", b"POST /half "))
                assert (await client.head()).status == 200
                await client.rest()
                assert client.ended == "reset"

            async def in_a_trailer_that_drips() -> None:
                """Framing is no progress."""
                client = await served.connect()
                await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ")
                watch = Stopwatch()
                while not client.waiting():
                    await client.send(b"y")
                    await asyncio.sleep(0.05)
                assert (await client.response()).status == 408
                watch.check(0.4)

            async def steady() -> None:
                """A slow body that moves is fine, however long it takes."""
                client = await served.connect()
                await client.send(POST)
                for _ in range(10):
                    await asyncio.sleep(0.15)
                    await client.send(b"x")
                assert (await client.response()).status == 200

            await asyncio.gather(stuck(POST + b"abc"), stuck(POST), in_a_trailer_that_drips(), steady())
            await behind_the_head_of_its_answer()
            said = "no byte of the request body for 0.4 s (body_timeout) (its answer had begun: cut off)"
            await served.until(lambda: any(said in line for line in served.log()))

    run(main())


def test_a_body_that_is_not_asked_for_has_no_deadline(run: Any, serve: Any) -> None:
    """While the client waits for 100 Continue, or the app is slow to read, it is not the client that is late."""

    async def main() -> None:
        gate = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await gate.wait()
            await app(scope, receive, send)

        async with serve(slow, lifespan="off", body_timeout=0.2) as served:
            waiting = await served.connect()
            await waiting.send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            stopped = await served.connect()
            size = 20_000_000
            await stopped.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            pushing = asyncio.ensure_future(stopped.send(b"x" * size))
            await asyncio.sleep(1.3)
            gate.set()
            assert await waiting.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await waiting.send(b"0123456789")
            assert (await waiting.response()).status == 200
            assert (await stopped.response()).status == 200
            await pushing

    run(main())


def test_an_idle_connection_is_closed(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app, keep_alive=0.4) as served:

            async def idle(extra: bytes) -> None:
                client = await served.connect()
                await client.send(GET)
                await client.response()
                watch = Stopwatch()
                await client.send(extra)
                assert await client.rest() == b""
                assert client.ended == "closed"
                watch.check(0.4)

            async def busy() -> None:
                client = await served.connect()
                for _ in range(8):
                    await client.send(GET)
                    await client.response()
                    await asyncio.sleep(0.2)

            await asyncio.gather(idle(b""), idle(b"\r\n"), busy())
            assert served.log() == []  # nothing went wrong

    run(main())


def test_what_comes_in_time_while_the_loop_is_blocked_is_answered(run: Any, serve: Any) -> None:
    late: list[tuple[Any, bytes]] = []

    def blocking(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/block":
            for client, data in late:
                os.write(client.sock.fileno(), data)  # they are clients of their own, and would have sent it by themselves
            time.sleep(1.8)  # the subject of the test; every deadline is over by then
        start_response("200 OK", [])
        return [b"ok"]

    async def main() -> None:
        async with serve(blocking, threads=0, head_timeout=0.5, keep_alive=0.5, body_timeout=0.5) as served:
            kept, new, begun, sending, blocks = [await served.connect() for _ in range(5)]
            await kept.send(GET)
            assert (await kept.response()).status == 200
            await begun.send(GET[:20])
            await sending.send(POST + b"01234")
            late.extend([(kept, GET), (new, GET), (begun, GET[20:]), (sending, b"56789")])
            await served.until(lambda: served.connections == 5)
            await blocks.send(GET.replace(b"/", b"/block", 1))
            for client in (kept, new, begun, sending, blocks):
                assert (await client.response()).body == b"ok"
            assert served.log() == []

    run(main())


def test_a_client_that_takes_nothing_is_cut_off(run: Any, serve: Any) -> None:
    async def main() -> None:
        failed: list[BaseException] = []

        async def streaming(scope: Any, receive: Any, send: Any) -> None:
            if scope["method"] == "POST":  # closes: all of it waits for the client when the app has returned
                await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
                await send({"type": "http.response.body", "body": b"x" * 8_000_000})
                return
            await send({"type": "http.response.start", "status": 200})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            except OSError as error:
                failed.append(error)
                raise

        async with serve(streaming, lifespan="off", write_timeout=0.4) as served:

            async def stuck(request: bytes) -> None:
                client = await served.connect(receive_buffer=4096)
                watch = Stopwatch()
                await client.send(request)
                await client.head()
                await served.until_gone()
                watch.check(0.4)
                await client.rest()
                assert client.ended == "reset"

            await asyncio.gather(stuck(GET), stuck(GET.replace(b"GET", b"POST")))
            assert len(failed) == 1
            (line,) = served.log()
            assert "it took no byte of its response for 0.4 s (write_timeout)" in line

    run(main())


def test_a_small_rest_of_a_response_does_not_keep_a_connection_for_ever(run: Any, serve: Any) -> None:
    """Less than the mark at which `send` waits, but more than the kernel takes: the client reads nothing, and is idle."""

    async def main() -> None:
        async def filling(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            (connection,) = served.server._context.connections
            while connection.transport.get_write_buffer_size() == 0:
                await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
            await send({"type": "http.response.body"})

        async with serve(filling, lifespan="off", write_timeout=0.3, keep_alive=0.3) as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            await client.head()
            await served.until_gone()

    run(main())
