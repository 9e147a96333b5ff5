"""Request bodies as PEP 3333 has them in `wsgi.input`, and clients that are slow or leave: none of them holds an app thread."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from cavalcade import limits

GET = b"GET /other HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = random.Random(1).randbytes(limits.WSGI_BODY_BYTES + limits.BODY_BUFFER_BYTES * 8)
LINES = b"".join(b"%d %s\n" % (n, b"x" * (n % 200)) for n in range(20_000)) + b"no end"


# Its head, and so much of it that a thread is taken before it is whole.
UPLOAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(LARGE), LARGE[: limits.WSGI_BODY_BYTES + 1])


def post(body: bytes, path: bytes = b"/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


def chunked(body: bytes, size: int = 70_000) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]) for at in range(0, len(body), size))
    return b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def plain(start_response: Any, body: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def all_at_once(stream: Any) -> bytes:
    return bytes(stream.read())


def piece_by_piece(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.read(10_007), b""))


def line_by_line(stream: Any) -> bytes:
    return b"".join(iter(stream.readline, b""))


def in_lines_of_100(stream: Any) -> bytes:
    lines = list(iter(lambda: stream.readline(100), b""))
    assert all(len(line) <= 100 for line in lines)
    return b"".join(lines)


def all_lines(stream: Any) -> bytes:
    return b"".join(stream.readlines())


def iterated(stream: Any) -> bytes:
    return b"".join(stream)


@pytest.mark.parametrize("read", [all_at_once, piece_by_piece, line_by_line, in_lines_of_100, all_lines, iterated])
@pytest.mark.parametrize("make", [post, chunked])
@pytest.mark.parametrize("body", [b"", b"small\nbody", LINES], ids=["empty", "small", "lines"])
def test_every_way_to_read_gives_the_whole_body(run: Any, serve: Any, threads: int, read: Any, make: Any, body: bytes) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        got = read(environ["wsgi.input"])
        assert environ["wsgi.input"].read() == b""  # the end stays the end
        return plain(start_response, b"%d %s" % (len(got), hashlib.sha256(got).hexdigest().encode()))

    async def main() -> Any:
        async with serve(app, threads=threads) as served:
            return await served.ask(make(body))

    assert run(main()).body == b"%d %s" % (len(body), hashlib.sha256(body).hexdigest().encode())


def test_a_large_body_is_streamed_and_its_client_has_to_wait_for_the_app(run: Any, serve: Any) -> None:
    """More than all the buffers hold: the app has the first piece while most of it is still with the client."""
    began, go_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        first = environ["wsgi.input"].read(10)
        began.set()
        assert go_on.wait(10)
        return plain(start_response, hashlib.sha256(first + environ["wsgi.input"].read()).hexdigest().encode())

    async def main() -> None:
        async with serve(app, threads=1) as served:
            client = await served.connect()
            await client.send(UPLOAD)
            await served.until(began.is_set)
            go_on.set()
            await client.send(LARGE[limits.WSGI_BODY_BYTES + 1 :])
            assert (await client.response()).body == hashlib.sha256(LARGE).hexdigest().encode()

    run(main())


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_upload(run: Any, serve: Any, end: str) -> None:
    """`read` raises, what the app has opened is closed, and its one thread is there for the next."""
    raised: list[BaseException] = []
    began = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/other":
            return plain(start_response, b"other")
        environ["wsgi.input"].read(10)
        began.set()
        try:
            environ["wsgi.input"].read()
        except BaseException as error:
            raised.append(error)
            raise
        return plain(start_response, b"whole")

    async def main() -> None:
        async with serve(app, threads=1) as served:
            client = await served.connect()
            await client.send(UPLOAD)
            await served.until(began.is_set)
            client.reset() if end == "reset" else client.close()
            assert (await served.ask(GET)).body == b"other"
            await served.until(lambda: not served.server._context.serving.running)
            assert served.log() == []  # nothing went wrong on our side

    run(main())
    assert [type(error).__name__ for error in raised] == ["ClientDisconnected"]
    assert isinstance(raised[0], OSError)


def test_with_no_thread_an_upload_that_breaks_off_never_reaches_the_app(run: Any, serve: Any) -> None:
    called: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        called.append(environ["PATH_INFO"])
        return plain(start_response, b"other")

    async def main() -> None:
        async with serve(app, threads=0) as served:
            client = await served.connect()
            await client.send(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
            assert (await served.ask(GET)).body == b"other"
            client.close()
            await served.until_gone()

    run(main())
    assert called == ["/other"]


def test_slow_clients_hold_no_thread(run: Any, serve: Any) -> None:
    """One thread; a client in its head, one in its small body, one that does not take its response: another is answered meanwhile."""
    returned = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes] | list[bytes]:
        if environ["PATH_INFO"] != "/large":
            return plain(start_response, environ["wsgi.input"].read() or b"other")
        start_response("200 OK", [("Content-Length", "300000")])
        returned.set()
        return [b"x" * 300_000]

    async def main() -> None:
        async with serve(app, threads=1) as served:
            reader = await served.connect(receive_buffer=4096)
            await reader.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
            in_head, in_body = await served.connect(), await served.connect()
            await in_head.send(b"GET /other HTTP/1.1\r\nHo")
            await in_body.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
            await served.until(returned.is_set)
            for _ in range(3):
                assert (await served.ask(GET)).body == b"other"
            await in_head.send(b"st: test\r\n\r\n")
            assert (await in_head.response()).body == b"other"
            await in_body.send(b"67890")
            assert (await in_body.response()).body == b"1234567890"
            assert (await reader.response()).body == b"x" * 300_000

    run(main())


@pytest.mark.parametrize("kind", ["empty", "list", "generator", "write", "upload", "file", "head"])
def test_what_the_validator_of_the_standard_library_says(run: Any, serve: Any, threads: int, tmp_path: Path, kind: str) -> None:
    """PEP 3333's own checker between server and app: it raises for what either of them does wrong."""
    content = os.urandom(200_000)
    (tmp_path / "file").write_bytes(content)
    said: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        said.append(environ["wsgi.input"].read(100_000).decode("latin-1") if kind == "upload" else "")
        write = start_response(
            "204 No Content" if kind == "empty" else "200 OK", [] if kind == "empty" else [("Content-Type", "text/plain")]
        )
        if kind == "write":
            write(b"first ")
            return [b"second"]
        if kind == "file":
            return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))
        if kind == "generator":
            return (piece for piece in (b"first ", b"", b"second"))
        return [] if kind == "empty" else [b"first ", b"second"]

    async def main() -> Any:
        async with serve(validator(app), threads=threads) as served:
            if kind == "upload":
                return await served.ask(post(b"an upload"))
            return await served.ask(GET if kind != "head" else GET.replace(b"GET", b"HEAD"), "HEAD" if kind == "head" else "GET")

    response = run(main())
    assert response.status == (204 if kind == "empty" else 200)
    assert response.body == {"empty": b"", "head": b"", "file": content}.get(kind, b"first second")
    assert said == ["an upload" if kind == "upload" else ""]


def test_an_upload_that_nobody_reads_stays_with_the_client(run: Any, serve: Any) -> None:
    """Backpressure: the app has a thread and does not read, so the server takes no more than its buffers."""
    go_on = threading.Event()
    size = 64 * 1024 * 1024
    sent = 0

    def app(environ: Any, start_response: Any) -> Any:
        count = 0
        if environ["REQUEST_METHOD"] == "POST":
            assert go_on.wait(20)
            count = sum(map(len, iter(lambda: environ["wsgi.input"].read(65536), b"")))
        start_response("200 OK", [])
        return [b"%d" % count]

    async def upload(client: Any) -> None:
        nonlocal sent
        await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await client.send(b"x" * 65536)
            sent += 65536

    async def main() -> None:
        async with serve(app, threads=2) as served:
            client = await served.connect()
            sending = asyncio.create_task(upload(client))
            await served.until(lambda: sent)
            same, before = 0, -1
            while same < 20 and sent < size:  # others are answered again and again, and nothing more of it is taken
                assert (await served.ask(GET)).body == b"0"
                same = same + 1 if sent == before else 0
                before = sent
            held_back = sent
            go_on.set()
            await sending
            assert (await client.response("POST")).body == b"%d" % size
            assert held_back < size // 2

    run(main())


def test_a_client_that_leaves_in_the_middle_of_a_response_has_it_closed(run: Any, serve: Any, threads: int) -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return endless() if environ["PATH_INFO"] == "/" else [b"free"]

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            await client.send(GET.replace(b"/other", b"/"))
            await client.take(300_000)
            client.close()
            await served.until(closed.is_set)
            assert (await served.ask(GET)).body == b"free"

    run(main())
