"""What a peer may send: each refusal with its status and its words, and nothing that takes the server down."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from cavalcade.board.ledger_words import Sums

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"%d" % size})


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "without a Host header"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "not a host name"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS spoken to a plain HTTP port"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413, "limit_request_body"),
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "limit_request_line"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx", 417, "Expect"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10 + b"\r\n", 431, "limit_request_fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + b"\r\n\r\n", 431, "limit_request_head"),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "not an HTTP method"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2 preface"),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "HTTP version"),
    ],
)
@pytest.mark.parametrize("after", [b"", GET.replace(b"GET", b"HEAD")], ids=["first", "after a HEAD"])
def test_a_refusal_is_a_whole_response_that_says_why(run: Any, serve: Any, data: bytes, status: int, words: str, after: bytes) -> None:
    async def main() -> None:
        limits = {"limit_request_line": 200, "limit_request_fields": 10, "limit_request_head": 512, "limit_request_body": 100}
        async with serve(app, http2=False, **limits) as served:
            client = await served.connect()
            if after:
                await client.send(after)
                assert (await client.response("HEAD")).status == 200
            await client.send(data)
            response = await client.response()
            assert (response.status, response.header("connection")) == (status, "close")
            assert words in response.body.decode()
            assert await client.rest() == b""
            assert client.ended == "closed"
            (line,) = served.log()
            assert line.startswith("bad request from 127.0.0.1:")
            assert words in line
            assert f"(answered {status})" in line
            assert "it began b'" in line
            assert Sums(served.server._context.serving.ledger.words()).by_class()[f"{status // 100}xx"] == 1
            assert (await served.ask(GET)).body == b"0"

    run(main())


def test_a_flood_of_bad_requests_is_one_log_line(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            for _ in range(30):
                assert (await served.ask(b"\0\r\n\r\n")).status == 400
            assert len(served.log()) <= 2 + 30 // 10

    run(main())


def test_a_bad_request_cannot_write_into_the_log(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            await served.ask(b"\x1b[2J\nforged line \r\n\r\n")
            (line,) = served.log()
            assert "\n" not in line
            assert "\x1b" not in line

    run(main())


# -- fuzz ------------------------------------------------------------------------------------------------------------------

SEEDS = [
    GET,
    b"POST /a?b HTTP/1.1\r\nHost: test:80\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: r\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://test/ HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:1\r\nCookie: a=b; c=d\r\n\r\n",
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b";",
    b"\xff",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"/",
    b"%",
]


def mutant(rng: random.Random) -> bytes:
    """One to four requests with some bytes changed, cut, doubled or put in; now and then nothing but noise."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(1, 300))
    data = bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.randrange(1, 5))))
    for _ in range(rng.randrange(0, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(TOKENS)
            case 1:
                del data[at : at + rng.randrange(1, 10)]
            case 2:
                data[at : at + 1] = rng.randbytes(1)
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_a_peer_sends_takes_the_server_down(run: Any, serve: Any, seed: int) -> None:
    """Broken requests, in pieces, from clients that wait, close, reset or half-close. Nothing of it is an error of ours or asyncio's,
    nothing stays behind, and a good request is served as before. (`serve` asserts that nothing was logged as an error.)"""

    async def main() -> None:
        rng = random.Random(seed)

        async def attack(served: Any) -> None:
            client = await served.connect()
            data = mutant(rng)
            try:
                while data:
                    size = rng.choice((len(data), rng.randrange(1, len(data) + 1)))
                    await client.send(data[:size])
                    data = data[size:]
                    if rng.random() < 0.3:
                        await asyncio.sleep(0)
                match rng.randrange(4):
                    case 0:
                        client.reset()
                    case 1:
                        client.close()
                    case _:
                        client.half_close()
                        await client.rest()
                        client.close()
            except OSError:
                client.close()

        async with serve(app, lifespan="off", access_log=False) as served:
            for _ in range(40):
                await asyncio.gather(*(attack(served) for _ in range(20)))
                served._clients.clear()
            assert (await served.ask(GET)).body == b"0"
            await served.until_gone()
            assert not served.server._context.serving.running

    run(main())


# -- other listeners -------------------------------------------------------------------------------------------------------


def test_a_unix_socket(run: Any, serve: Any, tmp_path: Path) -> None:
    async def main() -> None:
        scopes: list[Any] = []

        async def remembering(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await app(scope, receive, send)

        path = str(tmp_path / "s")
        async with serve(remembering, lifespan="off", bind=f"unix:{path}") as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                assert (await client.response()).body == b"0"
            assert (scopes[0]["client"], scopes[0]["server"]) == (None, (path, None))
            assert served.access[0].startswith('a unix socket - "GET / HTTP/1.1" 200')
            await client.send(b"\0\r\n\r\n")
            assert (await client.response()).status == 400

    run(main())


def test_an_app_that_fails_on_a_unix_socket(run: Any, serve: Any, truncated: Any, tmp_path: Path) -> None:
    """There is no reset on such a socket, so a body in chunks is what tells the client."""

    async def main() -> None:
        async def failing(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            raise RuntimeError("boom")

        async with serve(failing, lifespan="off", bind=f"unix:{tmp_path / 's'}", errors=("the app failed",)) as served:
            client = await served.connect()
            await client.send(GET)
            with pytest.raises(truncated):
                await client.response()

    run(main())


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6(run: Any, serve: Any) -> None:
    async def main() -> None:
        scopes: list[Any] = []

        async def remembering(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await app(scope, receive, send)

        async with serve(remembering, lifespan="off", bind="[::1]:0") as served:
            port = int(served.url.rpartition(":")[2])
            with socket.socket(socket.AF_INET6) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, ("::1", port))
                await loop.sock_sendall(sock, GET)
                assert (await loop.sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200 ")
                own = sock.getsockname()[1]
            assert scopes[0]["server"] == ("::1", port)
            assert scopes[0]["client"] == ("::1", own)
            await served.until(lambda: served.log("cavalcade.access", logging.INFO))
            assert served.access[0].startswith(f"[::1]:{own} - ")

    run(main())
