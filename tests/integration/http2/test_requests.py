"""An app behind HTTP/2, as clients see it and as it sees them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from cavalcade import limits
from cavalcade.board.ledger_words import BYTES_SENT, REQUESTS, SHED, Sums
from cavalcade.testing.http2 import GET, POST, make

HEAD = [(b":method", b"HEAD"), *GET[1:]]


def at(path: bytes, method: bytes = b"GET", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"test"), *more]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/scope":
        body = json.dumps({key: repr(value) for key, value in scope.items()}).encode()
    elif path == "/boom":
        raise RuntimeError("boom")
    elif path == "/half":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("boom")
    elif path == "/short":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half"})
        return
    elif path == "/empty":
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        return
    elif path == "/echo":
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        return
    elif path == "/big":
        await send({"type": "http.response.start", "status": 200})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        body = b"end"
        await send({"type": "http.response.body", "body": body})
        return
    else:
        body = f"hello from {path}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def test_a_request_its_scope_its_response_and_its_log_line(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            answer = await client.ask(1, at(b"/scope?a=b%20c", b"GET", (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d")))
            scope = json.loads(answer.body)
            address = client.wire.sock.getsockname()
            assert {
                key: scope[key]
                for key in ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client")
            } == {
                "type": "'http'",
                "http_version": "'2'",
                "method": "'GET'",
                "scheme": "'http'",
                "path": "'/scope'",
                "raw_path": "b'/scope'",
                "query_string": "b'a=b%20c'",
                "headers": repr([(b"host", b"test"), (b"x", b"y"), (b"cookie", b"a=b; c=d")]),
                "client": repr(address),
            }
            assert answer.status == 200
            names = [name for name, _ in answer.fields]
            assert names == [b":status", b"content-type", b"date", b"server", b"content-length"]
            await served.until(lambda: served.access)
            (line,) = served.access
            assert line.startswith(f'{address[0]}:{address[1]} - "GET /scope?a=b%20c HTTP/2" 200 {len(answer.body)}B ')
            sums = Sums(served.server._context.serving.ledger.words())
            assert (sums.get(REQUESTS), sums.by_class()["2xx"], sums.get(BYTES_SENT)) == (1, 1, len(answer.body))
            assert served.log() == []

    run(main())


def test_many_requests_at_once_are_each_answered(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            numbers = range(1, 200, 2)
            await client.send(b"".join(client.peer.request(number, at(b"/%d" % number)) for number in numbers))
            for number in numbers:
                assert (await client.over(number)).body == b"hello from /%d" % number

    run(main())


@pytest.mark.parametrize("size", [0, 1, 16384, 65536, 3_000_000])
def test_a_body_goes_in_and_comes_out(run: Any, serve: Any, speak: Any, size: int) -> None:
    """Within the windows of both sides, both in motion at once."""

    async def main() -> None:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        async with serve(app) as served:
            client = await speak(served, settings={4: 2**31 - 1})
            peer = client.peer
            await client.send(peer.window(0, 2**31 - 1 - 65535) + peer.request(1, at(b"/echo", b"POST"), end=False))
            answer = peer.answer(1)
            sent = 0
            while sent < size:
                room = min(65536 + peer.windows.get(1, 0), 65535 + peer.windows.get(0, 0)) - sent
                if room <= 0:
                    assert await client.fill()
                    continue
                piece = body[sent : sent + min(room, 16384)]
                sent += len(piece)
                await client.send(peer.data(1, piece))
            await client.send(peer.data(1, b"", end=True))
            await client.over(1)
            assert answer.body == body
            assert answer.reset is None

    run(main())


@pytest.mark.parametrize(
    ("fields", "status", "body", "length"),
    [
        (HEAD, 200, b"", b"12"),
        (at(b"/empty"), 204, b"", None),
        (at(b"/", b"BREW"), 200, b"hello from /", b"12"),
        (at(b"/big", b"HEAD"), 200, b"", None),
    ],
)
def test_responses_with_and_without_a_body(
    run: Any, serve: Any, speak: Any, fields: Any, status: int, body: bytes, length: bytes | None
) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            answer = await client.ask(1, fields)
            assert (answer.status, answer.body, answer.field(b"content-length")) == (status, body, length)

    run(main())


@pytest.mark.parametrize(
    ("path", "status", "reset", "error"),
    [
        (b"/boom", 500, None, "GET /boom: the app failed"),
        (b"/half", 200, 2, "GET /half: the app failed"),
        (b"/short", 200, 2, "4 bytes instead of 9"),
    ],
)
def test_an_app_that_fails_is_a_500_or_a_reset_and_its_connection_goes_on(
    run: Any, serve: Any, speak: Any, path: bytes, status: int, reset: int | None, error: str
) -> None:
    async def main() -> None:
        async with serve(app, errors=(error,)) as served:
            client = await speak(served)
            answer = await client.ask(1, at(path))
            assert (answer.status, answer.reset) == (status, reset)
            assert (await client.ask(3)).status == 200

    run(main())


def test_what_is_refused_is_answered_and_logged_and_the_connection_goes_on(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app, limit_request_fields=5) as served:
            client = await speak(served)
            answer = await client.ask(1, [*GET, *[(b"x", b"y")] * 9])
            assert (answer.status, answer.ended) == (431, True)
            assert b"limit_request_fields" in answer.body
            head = await client.ask(3, [*HEAD, *[(b"x", b"y")] * 9])
            assert (head.status, head.body) == (431, b"")
            assert (await client.ask(5)).status == 200
            (line,) = served.log()
            assert line.startswith("bad request from 127.0.0.1:")
            assert line.endswith("(answered 431)")
            assert Sums(served.server._context.serving.ledger.words()).by_class()["4xx"] == 2

    run(main())


def test_what_is_malformed_is_reset_and_logged_and_the_connection_goes_on(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            assert (await client.ask(1, [*GET, (b"x", b"a\x01b")])).reset == 1
            assert (await client.ask(3)).status == 200
            (line,) = served.log()
            assert line.startswith("bad request from 127.0.0.1:")
            assert line.endswith("a control character, or white space at an end, in the value of x (stream reset: PROTOCOL_ERROR)")

    run(main())


def test_a_client_that_cancels_is_a_disconnect_for_the_app(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        seen: list[str] = []
        waiting = asyncio.Event()

        async def wait(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            if scope["path"] == "/stream":
                await send({"type": "http.response.start", "status": 200})
            waiting.set()
            seen.append((await receive())["type"])
            late = {"type": "http.response.body"} if scope["path"] == "/stream" else {"type": "http.response.start", "status": 200}
            with pytest.raises(OSError, match="gone"):
                await send(late)

        async with serve(wait, lifespan="off") as served:
            client = await speak(served)
            for number, path, status in ((1, b"/", 499), (3, b"/stream", 200)):
                waiting.clear()
                await client.send(client.peer.request(number, at(path)))
                await waiting.wait()
                if status == 200:
                    await client.until(lambda: client.peer.answers)
                await client.send(client.peer.rst(number))
                await served.until(lambda wanted=number // 2 + 1: len(served.access) == wanted)
                assert f" {status} 0B" in served.access[-1]
            await client.send(client.peer.request(5))
            waiting.clear()
            await waiting.wait()
            client.wire.close()
            await served.until(lambda: len(seen) == 3)
            assert set(seen) == {"http.disconnect"}
            await served.until_gone()

    run(main())


def test_too_many_at_once_are_answered_503(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def wait(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await app(scope, receive, send)

        async with serve(wait, lifespan="off", limit_concurrency=2) as served:
            client = await speak(served)
            await client.send(b"".join(client.peer.request(number) for number in (1, 3, 5, 7)))
            refused = [await client.over(number) for number in (5, 7)]
            assert [(answer.status, answer.field(b"cavalcade-reason"), answer.field(b"retry-after")) for answer in refused] == [
                (503, b"overloaded", b"1")
            ] * 2
            go.set()
            assert [(await client.over(number)).status for number in (1, 3)] == [200, 200]
            assert served.server._context.serving.ledger.get(SHED) == 2
            assert any("limit_concurrency" in line for line in served.log())

    run(main())


def test_a_body_that_nobody_reads_is_let_in_or_declined(run: Any, serve: Any, speak: Any) -> None:
    """RFC 9113 section 8.1: NO_ERROR says that the rest is not wanted, and the response stands."""

    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            peer = client.peer
            await client.send(peer.request(1, [*POST, (b"content-length", b"10000000")], end=False))
            answer = await client.over(1)
            assert (answer.status, answer.ended) == (200, True)
            await client.until(lambda: answer.reset is not None)
            assert answer.reset == 0
            await client.send(peer.request(3, POST, end=False))
            assert (await client.over(3)).ended
            await client.send(b"".join(peer.data(3, b"x" * 16384) for _ in range(4)) + peer.data(3, b"", end=True))
            assert (await client.ask(5)).status == 200
            assert peer.answers[3].reset is None

    run(main())


@pytest.mark.parametrize("reads", [True, False])
def test_100_continue_is_sent_when_the_app_asks_for_the_body(run: Any, serve: Any, speak: Any, reads: bool) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            peer = client.peer
            fields = at(b"/echo" if reads else b"/", b"POST", (b"expect", b"100-continue"), (b"content-length", b"3"))
            await client.send(peer.request(1, fields, end=False))
            answer = peer.answer(1)
            if reads:
                await client.until(lambda: answer.interim or answer.fields)
                await client.send(peer.data(1, b"abc", end=True))
            await client.over(1)
            assert [head[b":status"] for head in answer.interim] == ([b"100"] if reads else [])
            assert answer.body == (b"abc" if reads else b"hello from /")

    run(main())


def test_a_client_that_says_goodbye_still_gets_what_it_asked_for(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            await client.send(
                client.peer.request(1, at(b"/big")) + make(7, 0, 0, b"\0" * 8) + client.peer.window(0, 2**30) + client.peer.window(1, 2**30)
            )
            answer = await client.over(1)
            assert len(answer.body) == 10_000_003

    run(main())


def test_a_client_that_complains_is_logged(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await speak(served)
            await client.send(make(7, 0, 0, b"\0" * 7 + b"\x01bad\n") + make(7, 0, 0, b"\0" * 6 + b"\x77\x77"))
            assert (await client.ask(1)).status == 200
            (line,) = served.log()
            assert line.endswith("ends its connection with PROTOCOL_ERROR, b'bad\\n'")

    run(main())


def test_apps_that_work_on_for_nobody_are_bounded(run: Any, serve: Any, speak: Any) -> None:
    """Rapid reset, a hundred at a time: what was cancelled is still being worked on."""

    async def main() -> None:
        go = asyncio.Event()

        async def deaf(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()

        async with serve(deaf, lifespan="off") as served:
            client = await speak(served)
            peer = client.peer
            running = served.server._context.serving.running
            for number in range(1, 2 * limits.H2_STREAMS, 2):
                await client.send(peer.request(number))
            await served.until(lambda: len(running) == limits.H2_STREAMS)
            await client.send(b"".join(peer.rst(number) for number in range(1, 2 * limits.H2_STREAMS, 2)))
            assert (await client.ask(2 * limits.H2_STREAMS + 1)).reset == 7  # REFUSED_STREAM: it may be tried again
            assert len(running) == limits.H2_STREAMS
            assert [line for line in served.log() if "requests that it has cancelled are still being worked on" in line]
            go.set()
            await served.until(lambda: not running)

    run(main())


# -- where HTTP/2 begins -----------------------------------------------------------------------------------------------------


def test_switched_off_it_is_refused_with_the_hint(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app, http2=False) as served:
            response = await served.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert response.status == 505
            assert "pip install 'cavalcade[http2]'" in served.log()[0]

    run(main())


def test_upgrade_to_h2c_is_not_done_and_the_request_is_answered(run: Any, serve: Any) -> None:
    """RFC 9113 has taken it away."""

    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(
                b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
            )
            response = await client.response()
            assert (response.status, response.body) == (200, b"hello from /")

    run(main())


def test_a_preface_behind_a_request_of_http1_is_refused(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await client.response()).status == 200
            await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert (await client.response()).status == 505

    run(main())


# -- real clients --------------------------------------------------------------------------------------------------------------


def test_curl(run: Any, serve: Any, command: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            curl = ("curl", "--silent", "--http2-prior-knowledge", "--max-time", "20")
            # One at a time: curl 7.88 cannot use such a connection a second time.
            assert await command(*curl, f"{served.url}/a", "--write-out", "|%{http_version}|") == b"hello from /a|2|"
            body = b"0123456789abcdef" * 200_000
            assert await command(*curl, "--data-binary", "@-", f"{served.url}/echo", stdin=body) == body
            assert len(await command(*curl, f"{served.url}/big")) == 10_000_003
            head = await command(*curl, "--head", served.url)
            assert head.startswith(b"HTTP/2 200")
            upgraded = await command("curl", "--silent", "--http2", served.url, "--write-out", "|%{http_version}|")
            assert upgraded == b"hello from /|1.1|"

    run(main())


def test_nghttp(run: Any, serve: Any, command: Any) -> None:
    async def main() -> None:
        async with serve(app) as served:
            urls = [f"{served.url}/{number}" for number in range(20)]
            out = await command("nghttp", "-v", "-m", "5", *urls)
            assert out.count(b":status: 200") == 100
            out = await command("h2load", "-n", "2000", "-c", "4", "-m", "32", f"{served.url}/a")
            assert b"2000 succeeded, 0 failed, 0 errored" in out
            out = await command("h2load", "-n", "20", "-c", "2", "-m", "10", f"{served.url}/big")
            assert b"20 succeeded, 0 failed, 0 errored" in out

    run(main())


def test_httpx(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(app) as served, httpx.AsyncClient(http1=False, http2=True, base_url=served.url, timeout=20) as client:
            answers = await asyncio.gather(*[client.get(f"/{number}") for number in range(50)])
            assert [answer.text for answer in answers] == [f"hello from /{number}" for number in range(50)]
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            body = b"x" * 1_000_000
            assert (await client.post("/echo", content=body)).content == body
            async with client.stream("GET", "/big") as response:
                assert (await response.aiter_bytes().__anext__())[:1] == b"x"
            assert (await client.get("/after")).text == "hello from /after"
            assert served.connections == 1

    run(main())
