"""What an app may return and send, and what becomes of it on the wire: PEP 3333, "Specification Details"."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: test\r\n\r\n"


class Closing:
    """An iterable with a `close`, as middleware makes them."""

    def __init__(self, pieces: Any, closed: list[str]) -> None:
        self.pieces = iter(pieces)
        self.closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed.append("closed")


def ask(run: Any, serve: Any, threads: int, app: Any, request: bytes = GET, method: str = "GET", **options: Any) -> Any:
    async def main() -> Any:
        async with serve(app, threads=threads, **options) as served:
            return await served.ask(request, method)

    return run(main())


@pytest.mark.parametrize(
    ("pieces", "body"),
    [([b"one"], b"one"), ([b"one", b"two"], b"onetwo"), ((b"one",), b"one"), ([], b""), ([b""], b""), ([b"x" * 300_000], b"x" * 300_000)],
)
def test_a_list_has_a_length_of_its_own(run: Any, serve: Any, threads: int, pieces: Any, body: bytes) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces

    response = ask(run, serve, threads, app)
    assert response.body == body
    assert response.header("content-length") == str(len(body))


def test_a_generator_is_streamed_in_chunks(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        yield b""
        yield b"b" * 100_000
        yield b"c"

    assert ask(run, serve, threads, app).body == b"a" + b"b" * 100_000 + b"c"


def test_a_piece_is_sent_before_the_next_is_made(run: Any, serve: Any) -> None:
    """PEP 3333, "Buffering and Streaming": a server must not delay a piece."""
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        assert go_on.wait(10)
        yield b"second"

    async def main() -> None:
        async with serve(app, threads=1) as served:
            client = await served.connect()
            await client.send(GET)
            await client.until(b"5\r\nfirst\r\n")
            go_on.set()
            await client.until(b"6\r\nsecond\r\n0\r\n\r\n")

    run(main())


def test_with_no_thread_each_piece_is_sent_while_others_are_served(run: Any, serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return (b"x" * 10_000 for _ in range(10_000)) if environ["PATH_INFO"] == "/long" else [b"short"]

    async def main() -> None:
        async with serve(app, threads=0) as served:
            slow = await served.connect(receive_buffer=4096)
            await slow.send(b"GET /long HTTP/1.1\r\nHost: test\r\n\r\n")
            await slow.head()
            assert (await served.ask(GET)).body == b"short"

    run(main())


def test_the_head_waits_for_the_first_piece_that_is_not_empty(run: Any, serve: Any, threads: int) -> None:
    """So an app may still say that it has failed."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("X-First", "1")])
        yield b""
        try:
            raise ValueError("late")
        except ValueError:
            import sys

            start_response("500 Oops", [("X-Second", "1")], sys.exc_info())
        yield b"sorry"

    response = ask(run, serve, threads, app)
    assert (response.status, response.body) == (500, b"sorry")
    assert response.header("x-first") is None
    assert response.header("x-second") == "1"


def test_start_response_may_come_with_the_first_piece(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"made"

    assert ask(run, serve, threads, app).status == 201


def test_write_comes_before_what_is_returned(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        write(b"")
        write(b"two")
        return [b"three"]

    assert ask(run, serve, threads, app).body == b"onetwothree"


def test_a_reason_of_the_apps_own_goes_onto_the_wire(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(environ["QUERY_STRING"].replace("+", " "), [])
        return [b"x"]

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            for asked, line in [
                (b"200+OK", b"HTTP/1.1 200 OK\r\n"),
                (b"200+Fine+by+me", b"HTTP/1.1 200 Fine by me\r\n"),
                (b"404", b"HTTP/1.1 404 Not Found\r\n"),
                (b"299+Odd", b"HTTP/1.1 299 Odd\r\n"),
                (b"599", b"HTTP/1.1 599 \r\n"),
            ]:
                client = await served.connect()
                await client.send(b"GET /?" + asked + b" HTTP/1.1\r\nHost: test\r\n\r\n")
                assert (await client.until(b"\r\n")) == line
                client.close()

    run(main())


def test_head_is_answered_without_a_body_and_with_its_length(run: Any, serve: Any, threads: int) -> None:
    asked: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/list":
            start_response("200 OK", [])
            return [b"hello"]
        start_response("200 OK", [("Content-Length", "10000000")] if environ["PATH_INFO"] == "/given" else [])

        def pieces() -> Iterator[bytes]:
            for number in range(1000):
                asked.append(number)
                yield b"x" * 10_000

        return pieces()

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            for path, length in ((b"/list", "5"), (b"/given", "10000000"), (b"/unknown", None)):
                await client.send(b"HEAD " + path + b" HTTP/1.1\r\nHost: test\r\n\r\n")
                response = await client.response("HEAD")
                assert response.header("content-length") == length
            assert client.waiting() == b""
            assert len(asked) == 2  # nobody would see what else is made

    run(main())


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_a_body_has_none(run: Any, serve: Any, threads: int, status: str) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                response = await client.response()
                assert response.header("content-length") is None
                assert response.header("transfer-encoding") is None

    run(main())


def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    response = ask(run, serve, threads, app, OLD)
    assert response.body == b"onetwo"
    assert response.header("transfer-encoding") is None


@pytest.mark.parametrize("end", ["whole", "error", "not iterated"])
def test_close_is_called_whatever_happens(run: Any, serve: Any, threads: int, end: str) -> None:
    closed: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        if end != "not iterated":
            start_response("200 OK", [])

        def pieces() -> Iterator[bytes]:
            yield b"one"
            if end == "error":
                raise ValueError("in the middle")

        return Closing(pieces(), closed)

    async def main() -> None:
        errors = {"whole": (), "error": ("GET /: the app failed",), "not iterated": ("GET /: the app failed",)}[end]
        async with serve(app, errors, threads=threads) as served:
            client = await served.connect()
            await client.send(GET)
            await client.fill()
            await served.until(lambda: closed)

    run(main())
    assert closed == ["closed"]


def test_a_close_that_fails_is_logged_and_the_response_stands(run: Any, serve: Any, threads: int) -> None:
    class Failing(Closing):
        def close(self) -> None:
            raise ValueError("close")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Failing([b"one", b"two"], [])

    response = ask(run, serve, threads, app, errors=("GET /: the app failed after its response was complete",))
    assert response.body == b"onetwo"


def test_what_close_does_the_client_has_not_to_wait_for(run: Any, serve: Any) -> None:
    go_on = threading.Event()

    class Slow(Closing):
        def close(self) -> None:
            assert go_on.wait(10)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Slow([b"one"], [])

    async def main() -> None:
        async with serve(app, threads=1) as served:
            assert (await served.ask(GET)).body == b"one"
            assert len(served.server._context.serving.running) == 1
            go_on.set()
            await served.until(lambda: not served.server._context.serving.running)

    run(main())


FORGED = "x\r\nSet-Cookie: a=1"


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        ("200 OK", [("Connection", "close")], "hop-by-hop"),
        ("200 OK", [("transfer-encoding", "chunked")], "hop-by-hop"),
        ("200 OK", [("Keep-Alive", "1")], "hop-by-hop"),
        ("200 OK", [("Upgrade", "h2c")], "hop-by-hop"),
        ("200 OK", [("X-A", FORGED)], "forge"),
        ("200 OK", [("X-A", "a\0b")], "forge"),
        ("200 OK", [("X-A: 1\r\nX-B", "1")], "not allowed"),
        ("200 OK", [("X A", "1")], "not allowed"),
        ("200 OK", [("", "1")], "not allowed"),
        ("200 OK", [("X-A", "\u20ac")], "beyond latin-1"),
        ("200 OK", [("X-\u20ac", "1")], "not allowed"),
        ("200 OK", [(b"X-A", "1")], "is bytes, not str"),
        ("200 OK", [("X-A", b"1")], "is bytes, not str"),
        ("200 OK", [("X-A", 1)], "is int, not str"),
        ("200 OK", [("X-A",)], "not a pair"),
        ("200 OK", None, "NoneType"),
        ("200 OK", [("Content-Length", "x")], "not a number"),
        ("200 OK", [("Content-Length", "-1")], "not a number"),
        ("200 OK" + FORGED, [], "control character"),
        ("200\tOK", [], "three digits"),
        ("OK", [], "three digits"),
        ("2000 OK", [], "three digits"),
        ("", [], "three digits"),
        ("100 Continue", [], "not a final"),
        (200, [], "is int, not str"),
        (b"200 OK", [], "is bytes, not str"),
    ],
)
def test_what_cannot_go_onto_the_wire_is_told_to_the_app_at_once(
    run: Any, serve: Any, threads: int, status: Any, headers: Any, said: str
) -> None:
    told: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            start_response(status, headers)
        except Exception as error:
            told.append(str(error))
        start_response("200 OK", [])
        return [b"ok"]

    assert ask(run, serve, threads, app).body == b"ok"
    assert len(told) == 1
    assert said in told[0]


def test_start_response_twice_is_an_error(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b"ok"]

    assert ask(run, serve, threads, app, errors=("GET /: the app failed",)).status == 500


def test_exc_info_after_the_head_is_sent_raises_the_apps_own_error(run: Any, serve: Any, threads: int) -> None:
    raised: list[BaseException] = []
    seen = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        assert not threads or seen.wait(10)  # before that a thread's failure can still become a 500
        try:
            raise ValueError("late")
        except ValueError:
            import sys

            try:
                start_response("500 Oops", [], sys.exc_info())
            except ValueError as error:
                raised.append(error)
                raise

    async def main() -> None:
        async with serve(app, ("GET /: the app failed",), threads=threads) as served:
            client = await served.connect()
            await client.send(GET)
            await client.fill()
            seen.set()
            await client.rest()
            assert client.ended == "reset"

    run(main())
    assert str(raised[0]) == "late"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("text", "the app returned str"),
        (b"bytes", "the app returned bytes"),
        (None, "the app returned NoneType"),
        (["text"], "made of str"),
        ([1], "made of int"),
        ([b"x", None], "NoneType found"),
    ],
)
def test_a_result_that_is_no_body_is_a_500(run: Any, serve: Any, threads: int, caplog: Any, result: Any, said: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return result

    assert ask(run, serve, threads, app, errors=("GET /: the app failed",)).status == 500
    assert said in "".join(str(record.exc_info[1]) for record in caplog.records if record.exc_info)


@pytest.mark.parametrize("how", ["list", "generator", "empty", "write"])
def test_an_app_that_never_calls_start_response_is_a_500(run: Any, serve: Any, threads: int, how: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        return {"list": [b"x"], "generator": (x for x in [b"x"]), "empty": [], "write": iter(())}[how]

    assert ask(run, serve, threads, app, errors=("GET /: the app failed",)).status == 500


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_an_app_raises_is_a_500_and_the_server_lives(run: Any, serve: Any, threads: int, kind: Any, when: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/ok":
            start_response("200 OK", [])
            return [b"ok"]
        if when == "after":
            start_response("200 OK", [("X-A", "1")])
        raise kind("boom")

    async def main() -> None:
        async with serve(app, ("GET /: the app failed",), threads=threads) as served:
            client = await served.connect()
            await client.send(GET)
            response = await client.response()
            assert response.status == 500
            assert response.header("x-a") is None
            await client.send(b"GET /ok HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await client.response()).body == b"ok"

    run(main())


def test_a_failure_in_the_middle_of_the_body_is_a_reset(run: Any, serve: Any, threads: int) -> None:
    seen = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        assert not threads or seen.wait(10)  # before that a thread's failure can still become a 500
        raise ValueError("boom")

    async def main() -> None:
        async with serve(app, ("GET /: the app failed",), threads=threads) as served:
            client = await served.connect()
            await client.send(GET)
            await client.fill()
            seen.set()
            await client.rest()
            assert client.ended == "reset"

    run(main())


@pytest.mark.parametrize("how", ["list", "generator", "write"])
def test_a_body_longer_than_its_length_is_a_500_where_it_still_can_be(run: Any, serve: Any, threads: int, how: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", "3")])
        if how == "write":
            write(b"four")
            return []
        return [b"fo", b"ur"] if how == "list" else (piece for piece in [b"four"])

    assert ask(run, serve, threads, app, errors=("GET /: the app failed",)).status == 500


@pytest.mark.parametrize("how", ["list", "generator"])
def test_a_body_shorter_than_its_length_is_a_reset(run: Any, serve: Any, threads: int, how: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "30")])
        return [b"three"] if how == "list" else (piece for piece in [b"three"])

    async def main() -> None:
        async with serve(app, ("shorter than its Content-Length: 5 bytes instead of 30",), threads=threads) as served:
            client = await served.connect()
            await client.send(GET)
            await client.rest()
            assert client.ended == "reset"

    run(main())


def test_pipelined_requests_are_answered_in_order(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(40)))
            for number in range(40):
                assert (await client.response()).body == b"/%d" % number
            await served.until(lambda: len(served.access) == 40)  # lines are written in batches, after the answers

    run(main())


def test_the_servers_own_fields_can_be_set_by_the_app(run: Any, serve: Any, threads: int) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Server", "mine"), ("Date", "today"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=\xe9")])
        return [b"x"]

    response = ask(run, serve, threads, app)
    assert (response.header("server"), response.header("date")) == ("mine", "today")
    assert [value for name, value in response.headers if name == "set-cookie"] == ["a=1", "b=\xe9"]


def test_a_file_is_sent_by_the_kernel(run: Any, serve: Any, threads: int, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    sendfile = os.sendfile

    def watched(*arguments: Any) -> int:
        sent.append(sendfile(*arguments))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", watched)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](files[3_000_000].open("rb"))

    response = ask(run, serve, threads, app)
    assert response.body == files[3_000_000].read_bytes()
    assert response.header("content-length") == "3000000"
    assert sum(sent) == 3_000_000


class Anything:
    """A WSGI app of which nothing tells that it is one."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def __call__(self, *arguments: Any) -> Any:
        if self.strict:
            assert len(arguments) == 2
        arguments[1]("200 OK", [])
        return [b"hello"]


@pytest.mark.parametrize("strict", [True, False])
def test_an_app_that_is_not_known_for_wsgi_is_served_when_told_and_else_the_log_says_how(
    run: Any, serve: Any, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    async def main() -> None:
        async with serve(Anything(strict), interface="wsgi") as served:
            assert (await served.ask(GET)).body == b"hello"
        async with serve(Anything(strict), lifespan="off", errors=("the app failed",)) as served:
            assert (await served.ask(GET)).status == 500
            assert "say so: --interface wsgi" in caplog.text

    run(main())
