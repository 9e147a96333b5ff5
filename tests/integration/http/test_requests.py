"""What one connection carries: keep-alive, pipelining, versions, methods, targets, and responses without a body."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


def get(path: str = "/", fields: str = "", version: str = "1.1", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: test\r\n{fields}\r\n".encode()


async def echo_path(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def answering(status: int = 200, headers: Any = (), *pieces: bytes) -> Any:
    """An app that answers with these pieces of body, one message for each."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def test_a_connection_is_used_again_and_again(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            for number in range(20):
                await client.send(get(f"/{number}"))
                response = await client.response()
                assert (response.status, response.body) == (200, b"/%d" % number)
                assert response.header("connection") is None
            assert served.connections == 1

    run(main())


def test_connection_close_ends_the_connection_after_the_response(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            await client.send(get("/a", "Connection: close\r\n") + get("/b"))
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"/a", "close")
            assert await client.rest() == b""
            assert client.ended == "closed"

    run(main())


def test_an_app_may_close_the_connection(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = answering(200, [(b"Connection", b"Close"), (b"Transfer-Encoding", b"identity")], b"x")
        async with serve(app) as served:
            client = await served.connect()
            await client.send(get())
            response = await client.response()
            assert (response.body, response.header("connection"), response.header("transfer-encoding")) == (b"x", "close", "chunked")
            assert await client.rest() == b""

    run(main())


def test_pipelined_requests_are_answered_in_order_also_behind_a_slow_one(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        running: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            running.append(scope["path"])
            if scope["path"] == "/0":
                await gate.wait()
            await echo_path(scope, receive, send)

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"".join(get(f"/{number}") for number in range(10)))
            await served.until(lambda: running)
            other = await served.ask(get("/other"))
            assert other.body == b"/other"
            assert client.waiting() == b""
            assert running == ["/0", "/other"]  # the second does not even start before the first is answered
            gate.set()
            assert [(await client.response()).body for _ in range(10)] == [b"/%d" % number for number in range(10)]

    run(main())


def test_pipelined_requests_with_bodies(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nf"
            )
            assert [(await client.response()).body for _ in range(4)] == [b"abc", b"de", b"", b"f"]

    run(main())


def test_an_app_that_does_not_read_bodies_does_not_disturb_what_follows(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            for number in range(5):
                await client.send(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (number, len(body)) + body)
            assert [(await client.response()).body for _ in range(5)] == [b"/%d" % number for number in range(5)]

    run(main())


def test_thousands_of_pipelined_requests(run: Any, serve: Any) -> None:
    """More than the engine holds unparsed, more than a stack is deep, and on both sides of what one read brings."""

    async def main() -> None:
        async with serve(echo_path, access_log=False) as served:
            client = await served.connect()
            count = 5000
            sending = asyncio.ensure_future(client.send(b"".join(get(f"/{number}") for number in range(count))))
            for number in range(count):
                response = await client.response()
                assert response.body == b"/%d" % number
            await sending
            assert served.connections == 1

    run(main())


def test_a_client_that_pipelines_thousands_does_not_hold_up_another(run: Any, serve: Any) -> None:
    async def main() -> None:
        answered = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal answered
            answered += 1
            await echo_path(scope, receive, send)

        async with serve(app, lifespan="off", access_log=False) as served:
            greedy, other = await served.connect(), await served.connect()
            pushing = asyncio.ensure_future(greedy.send(get("/greedy") * 3000))
            await served.until(lambda: answered)
            await other.send(get("/other"))
            before = answered
            assert (await other.response()).body == b"/other"
            assert answered - before < 500
            for _ in range(3000):
                await greedy.response()
            await pushing

    run(main())


def test_what_is_pipelined_behind_a_running_request_is_bounded(run: Any, serve: Any) -> None:
    """A client that pipelines without end while its first request runs is stopped, and its memory here does not grow with every
    request that is answered either."""

    async def main() -> None:
        gate = asyncio.Event()
        seen: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await gate.wait()
            context = served.server._context
            seen.append(max(len(connection.engine.rest) for connection in context.connections))
            await echo_path(scope, receive, send)

        async with serve(app, lifespan="off", access_log=False) as served:
            client = await served.connect()
            request = get("/" + "x" * 1000)
            sending = asyncio.ensure_future(client.send(request * 4000))  # 4 MB
            await served.until(lambda: any(connection.read_paused for connection in served.server._context.connections))
            gate.set()
            for _ in range(4000):
                await client.response()
            await sending
            assert max(seen) < 64 * 1024 + 256 * 1024 + 2000  # what is held, and one read more

    run(main())


def test_a_half_head_behind_a_request_does_not_hold_up_its_answer(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            await client.send(get("/a") + get("/b")[:-3])
            assert (await client.response()).body == b"/a"
            await client.send(get("/b")[-3:])
            assert (await client.response()).body == b"/b"

    run(main())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 31])
def test_a_head_in_pieces(run: Any, serve: Any, size: int) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            request = get("/pieces")
            for at in range(0, len(request), size):
                await client.send(request[at : at + size])
                await asyncio.sleep(0)
            assert (await client.response()).body == b"/pieces"

    run(main())


# -- HTTP/1.0 --------------------------------------------------------------------------------------------------------------


def test_http_1_0_closes(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            await client.send(b"GET /old HTTP/1.0\r\n\r\n")
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"/old", "close")
            assert await client.rest() == b""

    run(main())


def test_http_1_0_keep_alive(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            client = await served.connect()
            for path in ("/a", "/b"):
                await client.send(get(path, "Connection: keep-alive\r\n", version="1.0"))
                response = await client.response()
                assert (response.body, response.header("connection")) == (path.encode(), "keep-alive")

    run(main())


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"])
def test_a_stream_to_http_1_0_ends_with_the_connection(run: Any, serve: Any, fields: str) -> None:
    async def main() -> None:
        async with serve(answering(200, [], b"a", b"b")) as served:
            client = await served.connect()
            await client.send(get("/", fields, version="1.0"))
            response = await client.response()
            assert response.header("transfer-encoding") is None
            assert response.header("connection") == "close"
            assert (response.body, client.ended) == (b"ab", "closed")

    run(main())


# -- methods, targets, statuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "length", "coding"),
    [
        (answering(200, [(b"content-length", b"5")]), "5", None),
        (answering(200, [(b"content-length", b"5")], b"hello"), "5", None),
        (answering(200, [], b"he", b"llo"), None, None),
        (answering(200, []), None, None),
    ],
    ids=["length and no body", "length and body", "stream", "nothing"],
)
def test_head_gets_no_body(run: Any, serve: Any, app: Any, length: str | None, coding: str | None) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(get(method="HEAD"))
                response = await client.response("HEAD")
                assert (response.status, response.header("content-length"), response.header("transfer-encoding")) == (200, length, coding)
            client.half_close()
            assert await client.rest() == b""

    run(main())


def test_head_with_a_whole_body_tells_its_length(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(get(method="HEAD"))
            assert (await client.response("HEAD")).header("content-length") == "5"
            client.half_close()
            assert await client.rest() == b""

    run(main())


def test_a_head_whose_body_comes_later_stays_without_one(run: Any, serve: Any) -> None:
    """The head goes out on its own when the body is late; then, too, nothing may follow it."""

    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"hello"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(get(method="HEAD"))
            assert (await client.response("HEAD")).header("transfer-encoding") is None
            gate.set()
            await client.send(get(method="HEAD"))
            assert (await client.response("HEAD")).status == 200
            client.half_close()
            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"4")]], ids=["no length", "length"])
@pytest.mark.parametrize("pieces", [(), (b"body",)], ids=["no body", "body"])
def test_204_and_304_have_no_body(run: Any, serve: Any, status: int, headers: Any, pieces: tuple[bytes, ...]) -> None:
    async def main() -> None:
        async with serve(answering(status, headers, *pieces)) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(get())
                response = await client.response()
                assert response.status == status
                assert response.header("transfer-encoding") is None
                # RFC 9110 section 8.6: never in a 204; in a 304 it is that of the body that is not sent
                assert response.header("content-length") == ("4" if headers and status == 304 else None)
            client.half_close()
            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"GET http://elsewhere:81/a%20b?c HTTP/1.1", b"/a b"),
        (b"GET http://elsewhere HTTP/1.1", b"/"),
        (b"OPTIONS * HTTP/1.1", b"*"),
    ],
)
def test_other_forms_of_a_target(run: Any, serve: Any, line: bytes, path: bytes) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            assert (await served.ask(line + b"\r\nHost: test\r\n\r\n")).body == path

    run(main())


@pytest.mark.parametrize("status", [200, 201, 299, 418, 451, 599, 777, 999])
def test_any_final_status_goes_out(run: Any, serve: Any, status: int) -> None:
    async def main() -> None:
        async with serve(answering(status, [])) as served:
            assert (await served.ask(get())).status == status

    run(main())


# -- what every response carries -------------------------------------------------------------------------------------------


def test_server_and_date(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo_path) as served:
            response = await served.ask(get())
            assert response.header("server") == "cavalcade"
            assert (response.header("date") or "").endswith(" GMT")
        async with serve(echo_path, server_header=False, date_header=False) as served:
            response = await served.ask(get())
            assert response.header("server") is None
            assert response.header("date") is None
        own = answering(200, [(b"Server", b"mine"), (b"DATE", b"now")])
        async with serve(own) as served:
            response = await served.ask(get())
            assert (response.header("server"), response.header("date")) == ("mine", "now")

    run(main())


def test_headers_of_an_app_keep_their_order_and_their_doubles(run: Any, serve: Any) -> None:
    async def main() -> None:
        headers = [(b"set-cookie", b"a"), (b"X-One", b"1"), (b"set-cookie", b"b"), (b"x-empty", b""), (b"x-obs", b"\xff")]
        async with serve(answering(200, headers)) as served:
            response = await served.ask(get())
            assert response.headers[:5] == [("set-cookie", "a"), ("x-one", "1"), ("set-cookie", "b"), ("x-empty", ""), ("x-obs", "\xff")]

    run(main())
