"""Early hints, trailers and debug messages over HTTP/1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse

from cavalcade.errors import AppProtocolError

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
WANTS = b"GET / HTTP/1.1\r\nHost: test\r\nTE: gzip, Trailers\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"end"}


def hint(*links: bytes) -> dict[str, Any]:
    return {"type": "http.response.early_hint", "links": list(links)}


def trailers(*headers: Any, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": more}


def test_hints_go_before_the_head_and_not_behind_it(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint(b"</a>; rel=preload", b"</b>"))
        await send(START)
        await send(hint(b"</c>"))
        await send({**END, "more_body": True})
        await send(hint(b"</late>"))
        await send(END)

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET)
            first = await client.until(b"\r\n\r\n")
            assert first == b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>\r\n\r\n"
            response = await client.response()
            assert (response.interim, response.body) == ([103], b"endend")

    run(main())


def test_a_client_of_http10_is_spared_hints(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint(b"</a>"))
        await send(START)
        await send(END)

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            response = await served.ask(GET.replace(b"1.1", b"1.0"))
            assert (response.interim, response.body) == ([], b"end")

    run(main())


@pytest.mark.parametrize("links", [["</a>"], [b"</a>\r\nset-cookie: x"], [None], 5, None])
def test_hints_that_cannot_go_onto_the_wire(run: Any, serve: Any, links: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(AppProtocolError):
            await send({"type": "http.response.early_hint", "links": links})
        await send(START)
        await send(END)

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            assert (await served.ask(GET)).interim == []

    run(main())


@pytest.mark.parametrize(
    ("request_", "headers", "framed"),
    [
        (WANTS, [], b"\r\n3\r\nend\r\n0\r\nx-sum: 1\r\nX-More: 2\r\n\r\n"),
        (GET, [], b"\r\n3\r\nend\r\n0\r\n\r\n"),
        (WANTS, [(b"content-length", b"3")], b"\r\nend"),
        (WANTS.replace(b"1.1", b"1.0"), [], b"\r\nend"),
        (WANTS.replace(b"GET", b"HEAD"), [], b"\r\n\r\n"),
    ],
    ids=["wanted", "not wanted", "with a length", "1.0", "HEAD"],
)
def test_trailers_where_they_can_be(run: Any, serve: Any, request_: bytes, headers: Any, framed: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": headers, "trailers": True})
        await send(END)
        await send(trailers((b"x-sum", b"1"), more=True))
        await send(trailers([b"X-More", b"2"]))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(request_)
            head = await client.until(b"\r\n\r\n")
            client.half_close()
            assert (head[-2:] + await client.rest()).endswith(framed[-len(framed) + 2 :])

            client = await served.connect()
            await client.send(request_ + GET)  # the connection goes on behind them
            await client.until(b"\r\n\r\n")
            if b"1.1" in request_:
                await client.until(b"HTTP/1.1 200 OK\r\n")

    run(main())


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"set-cookie", b"x y", b":status", "x"])
def test_trailers_that_may_not_be(run: Any, serve: Any, truncated: Any, name: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send(END)
        with pytest.raises(AppProtocolError):
            await send(trailers((name, b"1")))

    async def main() -> None:
        async with serve(app, lifespan="off", errors=("without the http.response.trailers",)) as served:
            with pytest.raises(truncated):
                await served.ask(WANTS)

    run(main())


@pytest.mark.parametrize("log_level", ["debug", "info"])
def test_debug_is_offered_where_somebody_reads_it(run: Any, serve: Any, caplog: Any, log_level: str) -> None:
    offered: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append("http.response.debug" in scope["extensions"])
        if offered[0]:
            await send({"type": "http.response.debug", "info": {"template": "home.html"}})
        else:
            with pytest.raises(AppProtocolError):
                await send({"type": "http.response.debug", "info": {}})
        await send(START)
        await send(END)

    async def main() -> None:
        caplog.set_level(log_level.upper(), "cavalcade")
        async with serve(app, lifespan="off", log_level=log_level) as served:
            await served.ask(GET)
            assert offered == [log_level == "debug"]
            assert ("GET /: http.response.debug: {'template': 'home.html'}" in caplog.text) == offered[0]

    run(main())


def test_file_response_of_starlette_and_early_hints_of_fastapi(run: Any, serve: Any, files: dict[int, Path]) -> None:
    app = FastAPI()
    kinds: list[str] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            kinds.append(message["type"])
            await send(message)

        await app(scope, receive, noting)

    @app.get("/{size}")
    async def file(request: Request, size: int) -> FileResponse:
        await request.send_early_hints("</style.css>; rel=preload")
        return FileResponse(files[size])

    async def main() -> None:
        async with serve(outer) as served:
            async with httpx.AsyncClient(base_url=served.url) as client:
                for size in (0, 1, 65537, 3_000_000):
                    data = files[size].read_bytes()
                    kinds.clear()
                    response = await client.get(f"/{size}")
                    assert kinds == ["http.response.early_hint", "http.response.start", "http.response.pathsend"]
                    assert (response.content, response.headers["content-length"]) == (data, str(size))
                    etag = response.headers["etag"]
                    head = await client.request("HEAD", f"/{size}")
                    assert head.status_code == 405  # as FastAPI has it
                    if size > 1000:
                        part = await client.get(f"/{size}", headers={"range": "bytes=500-999", "if-range": etag})
                        assert (part.status_code, part.content) == (206, data[500:1000])
                        parts = await client.get(f"/{size}", headers={"range": "bytes=0-9,60000-60009"})
                        assert parts.status_code == 206
                        assert data[60000:60010] in parts.content
                        assert (await client.get(f"/{size}", headers={"range": f"bytes={size}-"})).status_code == 416

    run(main())
