"""`--request-id`: one name for a request, wherever it is spoken of."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
MINE = b"GET / HTTP/1.1\r\nHost: test\r\nX-Request-ID: mine-1\r\n\r\n"
MADE = re.compile(r"[0-9a-f]{32}")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Says what it knows of its name."""
    if scope["path"] == "/fail":
        raise RuntimeError("on purpose")
    if scope["path"] == "/stuck":
        await asyncio.sleep(60)
    names = [value for name, value in scope["headers"] if name == b"x-request-id"]
    own = [(b"x-request-id", b"own")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": b" ".join([scope["cavalcade.request_id"].encode(), *names])})


def wsgi(environ: Any, start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("on purpose")
    start_response("200 OK", [("x-request-id", "own")] if environ["PATH_INFO"] == "/own" else [])
    return [f"{environ['cavalcade.request_id']} {environ['HTTP_X_REQUEST_ID']}".encode()]


APPS = {"asgi": {"app": asgi, "lifespan": "off"}, "wsgi": {"app": wsgi}, "wsgi in the loop": {"app": wsgi, "threads": 0}}


@pytest.mark.parametrize("app", APPS)
def test_one_name_everywhere(run: Any, serve: Any, app: str) -> None:
    async def main() -> None:
        async with serve(
            **APPS[app],
            request_id="accept",
            errors=(r"^GET /fail \[4bf92f3577b34da6a3ce929d0e0e4736\]: the app failed$", r"^GET /fail \[mine-1\]: the app failed$"),
        ) as served:
            client = await served.connect()
            for request, wanted in ((MINE, "mine-1"), (GET, None), (MINE.replace(b"mine-1", b'evil"name'), None)):
                await client.send(request)
                response = await client.response()
                name = response.header("x-request-id")
                assert name == wanted if wanted else MADE.fullmatch(name)
                assert response.body.decode().split() == [name, name]
                assert served.access[-1].endswith("ms")  # the record of a test has it beside the text
                assert served._caplog.records[-1].request_id == name
            trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            await client.send(GET[:-2] + f"traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n".encode())
            response = await client.response()
            assert (response.header("x-request-id"), response.body.decode()) == (trace, f"{trace} {trace}")
            assert served._caplog.records[-1].request_id == trace
            await client.send(GET[:-2].replace(b"/", b"/fail", 1) + f"traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n".encode())
            assert (await client.response()).header("x-request-id") == trace
            await client.send(MINE.replace(b"/", b"/own", 1))
            response = await client.response()
            assert (response.header("x-request-id"), response.body) == ("own", b"mine-1 mine-1")
            await client.send(MINE.replace(b"/", b"/fail", 1))
            response = await client.response()
            assert (response.status, response.header("x-request-id")) == (500, "mine-1")

    run(main())


def test_what_the_server_answers_by_itself_has_one_too(run: Any, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file")
    options = {"request_id": "accept", "request_timeout": 0.6, "limit_concurrency": 1, "static": [f"/static={tmp_path}"]}

    async def main() -> None:
        async with serve(asgi, lifespan="off", **options) as served:
            for path, status in ((b"/static/file", 200), (b"/static/none", 404), (b"/stuck", 504)):
                response = await served.ask(MINE.replace(b"/", path, 1))
                assert (response.status, response.header("x-request-id")) == (status, "mine-1")
            assert served.log()[-1].startswith("GET /stuck [mine-1]: no response")

            first = await served.connect()
            await first.send(MINE.replace(b"/", b"/stuck", 1))
            await served.until(lambda: served.server._context.serving.running)
            response = await served.ask(MINE.replace(b"mine-1", b"mine-2"))
            assert (response.status, response.header("x-request-id")) == (503, "mine-2")

            bad = await served.ask(b"GET / HTTP/1.1\r\n\r\n")
            assert bad.status == 400
            name = bad.header("x-request-id")
            assert MADE.fullmatch(name)
            assert any(f"(answered 400) [{name}]" in line for line in served.log())

    run(main())


def test_pipelined_requests_keep_their_names_apart(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(asgi, lifespan="off", request_id="accept") as served:
            client = await served.connect()
            await client.send(b"".join(MINE.replace(b"mine-1", b"mine-%d" % number) for number in range(20)))
            for number in range(20):
                response = await client.response()
                assert (response.header("x-request-id"), response.body) == (f"mine-{number}", b"mine-%d mine-%d" % (number, number))
            named = [record.request_id for record in served._caplog.records if record.name == "cavalcade.access"]
            assert named == [f"mine-{number}" for number in range(20)]

    run(main())


def test_over_http2(run: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(asgi, lifespan="off", request_id="accept", limit_concurrency=50, errors=("mine-f.*the app failed",)) as served:
            async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
                answers = await asyncio.gather(*(client.get("/", headers={"x-request-id": f"mine-{number}"}) for number in range(20)))
                for number, answer in enumerate(answers):
                    assert (answer.headers["x-request-id"], answer.text) == (f"mine-{number}", f"mine-{number} mine-{number}")
                failed = await client.get("/fail", headers={"x-request-id": "mine-f"})
                assert (failed.status_code, failed.headers["x-request-id"]) == (500, "mine-f")
                assert MADE.fullmatch((await client.get("/")).headers["x-request-id"])

    run(main())


def test_websockets_have_one(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/deny":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        raise RuntimeError(scope["cavalcade.request_id"])

    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

    async def main() -> None:
        async with serve(app, lifespan="off", request_id="accept", errors=(r"WebSocket / \[mine-1\]",)) as served:
            client = await served.connect()
            await client.send(MINE[:-2] + upgrade)
            head = await client.head()
            assert (head.status, head.header("x-request-id")) == (101, "mine-1")
            client = await served.connect()
            await client.send(MINE[:-2].replace(b"/", b"/deny", 1) + upgrade)
            head = await client.head()
            assert (head.status, head.header("x-request-id")) == (403, "mine-1")

    run(main())


@pytest.mark.parametrize("headers", [None, 5, [5], [(b"a",)], [("x", b"y")]])
def test_headers_that_are_none_are_still_the_apps_error(run: Any, serve: Any, headers: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def main() -> None:
        async with serve(app, lifespan="off", request_id="make", errors=("the app failed",)) as served:
            response = await served.ask(GET)
            assert response.status == 500
            assert MADE.fullmatch(response.header("x-request-id"))

    run(main())


def test_off_by_default(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "cavalcade.request_id" not in scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(scope["headers"]).encode()})

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            response = await served.ask(MINE)
            assert response.header("x-request-id") is None
            assert b"mine-1" in response.body

    run(main())
