"""Backpressure in both directions, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tracemalloc
from typing import Any

import pytest
from starlette import applications, middleware, requests, responses, routing
from starlette.middleware.base import BaseHTTPMiddleware

from cavalcade import limits

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
MB = 1_000_000

# What the kernel holds of a connection on the loopback, both ends together, is a few megabytes; this is well above.
KERNEL_BYTES = 16 * MB


class Streaming:
    """An app that streams until its client leaves, or `total` bytes are out; it remembers what went wrong."""

    def __init__(self, total: int = 1 << 40, piece: int = 65_536) -> None:
        self.sent = 0
        self.total = total
        self.piece = b"x" * piece
        self.error: BaseException | None = None
        self.returned = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"alive"})
            return
        try:
            await send({"type": "http.response.start", "status": 200})
            while self.sent < self.total:
                await send({"type": "http.response.body", "body": self.piece, "more_body": True})
                self.sent += len(self.piece)
            await send({"type": "http.response.body"})
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.returned.set()


async def until_still(number: Any) -> int:
    """Wait until a number that grows has stopped growing for a while."""
    last, since = -1, 0
    while since < 10:
        await asyncio.sleep(0.01)
        since = since + 1 if number() == last else 0
        last = number()
    return last


def test_a_client_that_does_not_read_stops_the_app_at_send(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Streaming()
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            await served.until(lambda: app.sent)
            first = await until_still(lambda: app.sent)
            assert first < KERNEL_BYTES
            assert (await served.ask(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"alive"
            (busy,) = [connection for connection in served.server._context.connections if connection.exchange is not None]
            assert busy.transport.get_write_buffer_size() <= 64 * 1024 + len(app.piece) + 100
            while app.sent == first:  # the client reads on, and so the app goes on
                await client.fill()
            client.close()
            await asyncio.wait_for(app.returned.wait(), 10)

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_comes_with_its_head_is_there_when_the_app_is_called(run: Any, serve: Any, chunked: bool) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            receive().send(None)
        except StopIteration as done:  # it did not wait
            seen.append(done.value)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"read"})

    def request(size: int) -> bytes:
        framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n%b"
        return b"POST / HTTP/1.1\r\nHost: test\r\n" + framed % (size, b"x" * size)

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(request(5) + request(9_000) + GET)
            for _ in range(3):
                assert (await client.response()).body == b"read"
            assert [(len(message["body"]), message["more_body"]) for message in seen] == [(5, False), (9_000, False), (0, False)]

    run(main())


def test_an_app_that_does_not_read_stops_the_client(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        read = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal read
            await gate.wait()
            more = True
            while more:
                message = await receive()
                read += len(message["body"])
                more = message["more_body"]
                # what is held for the app is what one turn of reading brings above the mark
                assert len(message["body"]) <= 64 * 1024 + 256 * 1024
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"%d" % read})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            total = 50 * MB
            pushed = 0

            async def push() -> None:
                nonlocal pushed
                block = b"x" * 50_000
                while pushed < total:
                    await asyncio.get_running_loop().sock_sendall(client.sock, block)
                    pushed += len(block)

            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
            pushing = asyncio.ensure_future(push())
            await served.until(lambda: pushed)
            assert await until_still(lambda: pushed) < KERNEL_BYTES
            gate.set()
            assert (await client.response()).body == b"%d" % total
            await pushing

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 800], ids=["one piece", "800 pieces"])
def test_fifty_megabytes_to_a_slow_client(run: Any, serve: Any, pieces: int) -> None:
    async def main() -> None:
        total = 800 * 65_536
        app = Streaming(total, total // pieces)
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=65_536)
            tracemalloc.start()
            try:
                await client.send(GET)
                assert (await client.head()).status == 200
                got = 0
                while not client.buffer.endswith(b"\r\n0\r\n\r\n"):
                    got += client.buffer.count(b"x")
                    client.buffer = client.buffer[-7:].replace(b"x", b"")
                    assert await client.fill(1 << 18)
                assert got + client.buffer.count(b"x") == total
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # One piece is not copied more than the loop itself does; many pieces take no more than a few of them.
            assert peak < (2.2 * total if pieces == 1 else 4 * MB)

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 10], ids=["no body", "a body that nobody reads"])
def test_a_slow_client_gets_all_of_a_response_that_ends_the_connection(
    run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """However long that takes: a client that takes a little now and then is slow, not stuck."""
    monkeypatch.setattr(limits, "LINGER_S", 0.1)

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            (connection,) = served.server._context.connections
            with socket.socket(fileno=os.dup(connection.fd)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)  # so that the server sees each bit that is taken
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (3 * MB))]})
            await send({"type": "http.response.body", "body": b"x" * 3 * MB})

        async with serve(app, lifespan="off", write_timeout=0.3) as served:
            client = await served.connect(receive_buffer=32_768)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length)
            await client.head()
            while await client.fill(32_768):
                await asyncio.sleep(0.02)
            assert (len(client.buffer), client.ended) == (3 * MB, "closed")

    run(main())


@pytest.mark.parametrize("body", [b"", b"abc"], ids=["no body", "body"])
def test_a_client_that_pipelines_and_does_not_read_is_stopped(run: Any, serve: Any, body: bytes) -> None:
    """Its answers pile up here only to the mark; then its next request waits."""

    async def main() -> None:
        answered = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal answered
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x" * 60_000})
            answered += 1

        async with serve(app, lifespan="off", access_log=False) as served:
            client = await served.connect(receive_buffer=65_536)
            await client.send((b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body) * 400)
            await served.until(lambda: answered)
            assert await until_still(lambda: answered) * 60_000 < KERNEL_BYTES
            (connection,) = served.server._context.connections
            assert connection.transport.get_write_buffer_size() < 64 * 1024 + 2 * 61_000
            for _ in range(400):
                await client.response()

    run(main())


# -- clients that leave ----------------------------------------------------------------------------------------------------


LEAVE = {
    "closes": lambda client: client.close(),
    "resets": lambda client: client.reset(),
    "half-closes": lambda client: client.half_close(),
}


@pytest.mark.parametrize("how", LEAVE)
def test_a_client_that_leaves_wakes_receive_and_send_then_fails(run: Any, serve: Any, how: str) -> None:
    async def main() -> None:
        got: list[Any] = []
        entered = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            got.append(await receive())
            entered.set()
            got.append(await receive())
            got.append(await receive())
            try:
                await send({"type": "http.response.start", "status": 200})
            except OSError as error:
                got.append(error)
                raise

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await entered.wait()
            LEAVE[how](client)
            await served.until(lambda: len(got) == 4)
            assert [message["type"] for message in got[:3]] == ["http.request", "http.disconnect", "http.disconnect"]
            assert isinstance(got[3], OSError)
            await served.until_gone()
            assert '"GET / HTTP/1.1" 499 0B' in served.access[-1]
            assert served.log() == []

    run(main())


@pytest.mark.parametrize("how", LEAVE)
def test_a_client_that_leaves_in_the_middle_of_its_body(run: Any, serve: Any, how: str) -> None:
    async def main() -> None:
        got: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while not got or got[-1]["type"] != "http.disconnect":
                got.append(await receive())

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            await served.until(lambda: got)
            LEAVE[how](client)
            await served.until(lambda: len(got) == 2)
            assert got == [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]
            await served.until_gone()
            assert served.log() == []

    run(main())


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_in_the_middle_of_a_response_ends_the_stream(run: Any, serve: Any, how: str) -> None:
    """Also one that waits in `send`. A client that leaves is no failure of the app: nothing is logged but its access line."""

    async def main() -> None:
        app = Streaming()
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            await served.until(lambda: app.sent)
            await until_still(lambda: app.sent)
            LEAVE[how](client)
            await asyncio.wait_for(app.returned.wait(), 10)
            assert isinstance(app.error, OSError)
            await served.until_gone()
            assert served.log() == []
            assert '"GET / HTTP/1.1" 200' in served.access[-1]
            assert not served.server._context.serving.running

    run(main())


def test_a_client_that_half_closes_behind_its_request_still_gets_what_was_written(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Streaming(0)

        async def large(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"y" * 5 * MB})
            app.returned.set()

        async with serve(large, lifespan="off") as served:
            client = await served.connect(receive_buffer=65_536)
            await client.send(GET)
            await app.returned.wait()
            client.half_close()
            assert (await client.response()).body == b"y" * 5 * MB
            assert await client.rest() == b""

    run(main())


def test_an_app_that_goes_on_sending_after_its_client_left_hears_it_every_time(run: Any, serve: Any) -> None:
    async def main() -> None:
        failed = 0
        app_left = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal failed
            await send({"type": "http.response.start", "status": 200})
            await receive()
            await receive()
            for _ in range(20):
                try:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                except OSError:
                    failed += 1
            app_left.set()

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await client.head()
            client.close()
            await asyncio.wait_for(app_left.wait(), 10)
            assert failed == 20

    run(main())


def test_fifty_clients_that_vanish_leave_nothing_behind(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Streaming()
        async with serve(app, lifespan="off", access_log=False) as served:
            tasks = len(asyncio.all_tasks())
            clients = [await served.connect(receive_buffer=4096) for _ in range(50)]
            for client in clients:
                await client.send(GET)
            for number, client in enumerate(clients):
                await client.head()
                LEAVE["closes" if number % 2 else "resets"](client)
            await served.until_gone()
            await served.until(lambda: len(asyncio.all_tasks()) == tasks, "all tasks have ended")
            assert served.log() == []

    run(main())


# -- what an app does with receive and send --------------------------------------------------------------------------------


def test_receive_and_send_in_tasks_with_time_limits_and_in_parallel(run: Any, serve: Any) -> None:
    async def main() -> None:
        said: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            said.append((await asyncio.create_task(receive()))["body"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
                said.append("there was nothing")
            first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
            await asyncio.sleep(0)
            await asyncio.create_task(send({"type": "http.response.start", "status": 200}))
            await asyncio.wait_for(send({"type": "http.response.body", "body": b"begun", "more_body": True}), 1)
            await asyncio.gather(send({"type": "http.response.body", "body": b"1", "more_body": True}))
            said.extend(message["type"] for message in await asyncio.gather(first, second))

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"1\r\n1\r\n")
            client.close()
            await served.until(lambda: len(said) == 3)
            assert said == [b"", "http.disconnect", "http.disconnect"]

    run(main())


def test_one_of_two_receives_may_be_cancelled(run: Any, serve: Any) -> None:
    """As frameworks do that poll for a disconnect while another task listens for one."""

    async def main() -> None:
        ends: list[str] = []
        waiting = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            kept = asyncio.create_task(receive())
            await asyncio.sleep(0)
            for _ in range(100):
                polled = asyncio.create_task(receive())
                await asyncio.sleep(0)
                polled.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await polled
            waiting.set()
            ends.append((await kept)["type"])

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            await waiting.wait()
            (connection,) = served.server._context.connections
            assert len(connection.exchange.news) <= 2
            client.close()
            await served.until(lambda: ends)
            assert ends == ["http.disconnect"]

    run(main())


def test_a_receive_that_is_cancelled_before_its_first_step_loses_nothing(run: Any, serve: Any) -> None:
    async def main() -> None:
        got: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            task = asyncio.create_task(receive())
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            got.append(await receive())
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        async with serve(app, lifespan="off") as served:
            await served.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert got[0]["body"] == b"abc"

    run(main())


def test_a_send_that_runs_out_of_time_can_be_followed_by_another(run: Any, serve: Any) -> None:
    async def main() -> None:
        ended: list[BaseException] = []
        timed_out = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            piece = {"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True}
            try:
                while True:
                    try:
                        await asyncio.wait_for(send(piece), 0.05)
                    except TimeoutError:
                        timed_out.set()
                        break
                await send(piece)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except BaseException as error:
                ended.append(error)
                raise

        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            await asyncio.wait_for(timed_out.wait(), 10)
            assert (await client.response()).body.strip(b"x") == b""
            assert ended == []

    run(main())


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "behind a BaseHTTPMiddleware"])
def test_starlette_streams_whose_clients_leave_log_nothing(run: Any, serve: Any, wrapped: bool) -> None:
    async def main() -> None:
        left = 0

        async def numbers() -> Any:
            nonlocal left
            try:
                while True:
                    yield b"n" * 100_000
                    await asyncio.sleep(0)
            finally:
                left += 1

        async def stream(request: requests.Request) -> responses.Response:
            return responses.StreamingResponse(numbers())

        async def upload(request: requests.Request) -> responses.Response:
            nonlocal left
            try:
                await request.body()
            finally:
                left += 1
            return responses.Response()

        async def passing(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app = applications.Starlette(
            routes=[routing.Route("/", stream), routing.Route("/upload", upload, methods=["POST"])],
            middleware=[middleware.Middleware(BaseHTTPMiddleware, dispatch=passing)] if wrapped else [],
        )
        async with serve(app) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"nnnn")
            client.close()
            other = await served.connect()
            await other.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            await served.until(lambda: any("POST" in each.request_line() for each in served.server._context.serving.running))
            other.close()
            await served.until(lambda: left == 2, "both endpoints have ended")
            await served.until_gone()
            await served.until(lambda: not served.server._context.serving.running)
            assert served.log() == []

    run(main())


def test_an_app_that_only_sends_lets_others_have_their_turn(run: Any, serve: Any) -> None:
    """The client takes all at once, so no `send` has to wait for it; the loop has to turn all the same."""

    async def main() -> None:
        turned: list[int] = []

        async def chatty(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            asyncio.get_running_loop().call_soon(turned.append, 1)
            for _ in range(4000):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            assert turned
            await send({"type": "http.response.body"})

        async with serve(chatty, lifespan="off") as served:
            assert (await served.ask(GET)).body == b"x" * 4000

    run(main())


@pytest.mark.parametrize("size", [1000, 65_000, 70_000, 300_000])
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_stream_of_any_pieces_arrives_whole(run: Any, serve: Any, tmp_path: Any, where: str, size: int) -> None:
    """Whatever makes `send` wait, a turn or the client, it ends."""
    pieces = 8_000_000 // size

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            for _ in range(pieces):
                await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
            await send({"type": "http.response.body"})

        async with serve(app, lifespan="off", bind=f"unix:{tmp_path}/s" if where == "unix" else "127.0.0.1:0") as served:
            assert len((await served.ask(GET)).body) == pieces * size

    run(main())
