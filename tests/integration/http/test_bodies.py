"""Bodies in both directions: framing, lengths that lie, and the 100-continue expectation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def sending(headers: Any, *messages: tuple[bytes, bool]) -> Any:
    """An app that sends these pieces of body: (piece, more_body)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/next":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"next"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece, more in messages:
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return app


@pytest.mark.parametrize("size", [1, 1000, 70_000, 3_000_000])
def test_a_body_with_a_length_arrives(run: Any, serve: Any, size: int) -> None:
    async def main() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            body = bytes(range(256)) * (size // 256 + 1)
            body = body[:size]
            for _ in range(2):
                posting = asyncio.ensure_future(client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body))
                assert (await client.response()).body == body
                await posting

    run(main())


@pytest.mark.parametrize("chunk", [1, 1000, 70_000, 3_000_000])
def test_a_chunked_body_arrives(run: Any, serve: Any, chunk: int) -> None:
    async def main() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            body = b"x" * chunk + b"\r\n0\r\n\r\n"
            for _ in range(2):
                head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                data = b"%x;ext=1\r\n%b\r\n2\r\nok\r\n0\r\nTrailer: t\r\n\r\n" % (len(body), body)
                posting = asyncio.ensure_future(client.send(head + data))
                assert (await client.response()).body == body + b"ok"
                await posting

    run(main())


def test_a_stream_goes_out_in_chunks(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = sending([], (b"a", True), (b"", True), (b"b" * 100_000, True), (b"c", False))
        async with serve(app) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                response = await client.response()
                assert response.header("transfer-encoding") == "chunked"
                assert response.body == b"a" + b"b" * 100_000 + b"c"

    run(main())


def test_the_pieces_of_a_stream_arrive_as_they_are_sent(run: Any, serve: Any) -> None:
    async def main() -> None:
        steps = [asyncio.Event() for _ in range(3)]

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            for number, step in enumerate(steps):
                await step.wait()
                await send({"type": "http.response.body", "body": b"piece %d" % number, "more_body": True})
            await send({"type": "http.response.body"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.head()).status == 200  # before there is any body
            for number, step in enumerate(steps):
                step.set()
                await client.until(b"piece %d\r\n" % number)
            assert await client.until(b"\r\n\r\n") == b"0\r\n\r\n"

    run(main())


def test_a_head_with_a_length_goes_out_before_a_late_body(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"ok"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.head()).header("content-length") == "2"
            gate.set()
            assert await client.take(2) == b"ok"

    run(main())


def test_a_body_in_one_piece_gets_a_length(run: Any, serve: Any) -> None:
    async def main() -> None:
        for size in (0, 5, 65_536, 65_537, 1_000_000):
            async with serve(sending([], (b"x" * size, False))) as served:
                response = await served.ask(GET)
                assert response.header("content-length") == str(size)
                assert len(response.body) == size

    run(main())


# -- lengths that lie ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [((b"four", False),), ((b"fo", True), (b"ur", False)), ((b"four", True), (b"", False)), ((b"", False),)],
    ids=["at once", "in pieces", "with an empty end", "nothing at all"],
)
@pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
def test_a_body_shorter_than_its_length_resets_the_connection(run: Any, serve: Any, truncated: Any, messages: Any, request_: bytes) -> None:
    """And is never completed by the response to the next request."""

    async def main() -> None:
        app = sending([(b"content-length", b"10")], *messages)
        sent = sum(len(piece) for piece, _ in messages)
        error = rf"^GET /: the response body is shorter than its Content-Length: {sent} bytes instead of 10$"
        async with serve(app, errors=(error,)) as served:
            client = await served.connect()
            await client.send(request_ + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(truncated):
                await client.response()
            assert b"next" not in await client.rest()
            assert client.ended == "reset"

    run(main())


def test_a_body_longer_than_its_length_in_one_piece_is_a_500(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = sending([(b"content-length", b"3")], (b"longer", False))
        async with serve(app, errors=("^GET /: the app failed$",)) as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.response()).status == 500
            assert "longer than its Content-Length: 6 bytes instead of 3" in served._caplog.text
            await client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.response()).body == b"next"

    run(main())


def test_a_body_that_grows_longer_than_its_length_resets_the_connection(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = sending([(b"content-length", b"3")], (b"ab", True), (b"cd", False))
        async with serve(app, errors=("^GET /: the app failed$",)) as served:
            client = await served.connect()
            await client.send(GET + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            data = await client.rest()
            assert b"cd" not in data
            assert b"next" not in data
            assert client.ended == "reset"
            assert "longer than its Content-Length: 4 bytes instead of 3" in served._caplog.text

    run(main())


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([(b"content-length", b"9223372036854775808")], "is not a number of bytes"),
        ([(b"content-length", b"18446744073709551617")], "is not a number of bytes"),
        ([(b"content-length", b"-1")], "is not a number of bytes"),
        ([(b"content-length", b"1,1")], "is not a number of bytes"),
        ([(b"content-length", b"")], "is not a number of bytes"),
        ([(b"content-length", b"1"), (b"content-length", b"2")], "two content-length headers that differ: 1 and 2"),
    ],
)
def test_a_length_of_an_app_that_is_none(run: Any, serve: Any, headers: Any, says: str) -> None:
    async def main() -> None:
        async with serve(sending(headers, (b"x", False)), errors=("^GET /: the app failed$",)) as served:
            assert (await served.ask(GET)).status == 500
            assert says in served._caplog.text

    run(main())


def test_the_same_length_twice_goes_out_once(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(sending([(b"content-length", b"1"), (b"Content-Length", b"1")], (b"x", False))) as served:
            assert (await served.ask(GET)).header("content-length") == "1"

    run(main())


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        (b"Content-Length: 9223372036854775807", 413),
        (b"Content-Length: 9223372036854775808", 413),
        (b"Content-Length: 18446744073709551616", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n8000000000000000", 413),
        (b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n10000000000000000", 413),
    ],
)
def test_absurd_lengths_of_a_request_are_refused(run: Any, serve: Any, framing: bytes, status: int) -> None:
    async def main() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            response = await client.response()
            assert (response.status, response.header("connection")) == (status, "close")
            assert await client.rest() == b""

    run(main())


# -- a body that goes wrong ------------------------------------------------------------------------------------------------


def test_junk_in_the_middle_of_a_body_is_refused_and_the_app_is_told(run: Any, serve: Any) -> None:
    async def main() -> None:
        got: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            got.append(await receive())
            got.append(await receive())
            with pytest.raises(OSError, match="gone"):
                await send({"type": "http.response.start", "status": 200})
            got.append("done")

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            await served.until(lambda: got)
            await client.send(b"zz\r\n")
            assert (await client.response()).status == 400
            await served.until(lambda: len(got) == 3)
            assert [message["type"] for message in got[:2]] == ["http.request", "http.disconnect"]
            assert served.access[-1].startswith("127.0.0.1:")
            assert '"POST / HTTP/1.1" 400' in served.access[-1]

    run(main())


def test_junk_in_the_middle_of_a_body_resets_a_response_that_has_begun(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            await client.until(b"begun\r\n")
            await client.send(b"zz\r\n")
            assert await client.rest() == b""
            assert client.ended == "reset"

    run(main())


def test_junk_in_a_body_that_nobody_reads_gets_no_second_answer(run: Any, serve: Any) -> None:
    """The request it belongs to has been answered; another response would be taken for that to the next request."""

    async def main() -> None:
        async with serve(sending([], (b"answer", False))) as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            assert (await client.response()).body == b"answer"
            await client.send(b"zz\r\n" + GET)
            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("junk", [b"\0\1\2", b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_junk_behind_a_good_request_does_not_harm_its_answer(run: Any, serve: Any, junk: bytes) -> None:
    async def main() -> None:
        async with serve(sending([], (b"good", False))) as served:
            client = await served.connect()
            await client.send(GET + junk)
            assert (await client.response()).body == b"good"
            assert (await client.response()).status in (400, 501)
            assert await client.rest() == b""

    run(main())


def test_an_early_answer_to_a_large_upload_reaches_a_client_that_sends_it_all_first(run: Any, serve: Any) -> None:
    """Closing at once would reset the connection under the bytes that still come, and destroy the answer."""

    async def main() -> None:
        async with serve(echo, limit_request_body=1000) as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
            response = await client.response()
            assert (response.status, response.header("connection")) == (413, "close")

    run(main())


def test_a_small_body_that_is_not_read_keeps_the_connection_a_large_one_ends_it(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(sending([], (b"no thanks", False))) as served:
            client = await served.connect()
            for _ in range(3):
                await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
                assert (await client.response()).body == b"no thanks"
                await client.send(b"x" * 100_000)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
            assert (await client.response()).body == b"no thanks"
            sending_all = asyncio.ensure_future(client.send(b"x" * 10_000_000))
            assert await client.rest() == b""
            await asyncio.wait({sending_all})
            assert isinstance(sending_all.exception(), OSError | None)

    run(main())


# -- Expect: 100-continue --------------------------------------------------------------------------------------------------

EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_100_continue_is_sent_when_the_app_asks_for_the_body_and_not_before(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        entered = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            entered.set()
            await gate.wait()
            await echo(scope, receive, send)

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(EXPECTING)
                await entered.wait()
                await asyncio.sleep(0)
                assert client.waiting() == b""
                gate.set()
                assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                await client.send(b"hello")
                response = await client.response()
                assert (response.body, response.header("connection")) == (b"hello", None)
                gate.clear()
                entered.clear()

    run(main())


def test_no_100_continue_for_an_app_that_never_asks(run: Any, serve: Any) -> None:
    """Such a client may now send its body or not. What follows cannot be told apart, so the response says that it is the last."""

    async def main() -> None:
        async with serve(sending([], (b"no", False))) as served:
            client = await served.connect()
            await client.send(EXPECTING)
            response = await client.response()
            assert (response.interim, response.body, response.header("connection")) == ([], b"no", "close")
            await client.send(b"GET /smuggled")
            assert await client.rest() == b""

    run(main())


def test_no_100_continue_after_the_response_has_begun(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            message = await receive()
            await send({"type": "http.response.body", "body": message["body"]})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(EXPECTING)
            assert (await client.head()).header("connection") == "close"
            await client.until(b"begun\r\n")
            await client.send(b"hello")
            assert b"100" not in await client.until(b"hello\r\n")
            assert await client.rest() == b"0\r\n\r\n"

    run(main())


def test_a_client_that_does_not_wait_for_100_continue_keeps_its_connection(run: Any, serve: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(EXPECTING + b"hello")
            await served.until(lambda: served.server._context.serving.running)
            gate.set()
            for _ in range(2):
                response = await client.response()
                assert (response.interim, response.body, response.header("connection")) == ([], b"hello", None)
                await client.send(EXPECTING + b"hello")

    run(main())


def test_no_100_continue_without_a_body_or_in_1_0(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n")
            assert (await client.response()).interim == []
            await client.send(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
            response = await client.response()
            assert (response.interim, response.body) == ([], b"hello")

    run(main())


def test_another_expectation_is_refused(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(echo) as served:
            assert (await served.ask(EXPECTING.replace(b"100-continue", b"coffee"))).status == 417

    run(main())
