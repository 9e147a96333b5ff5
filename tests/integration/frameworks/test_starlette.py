"""Starlette, without FastAPI on top: the parts that lean on the server most."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cavalcade.testing import LiveServer

SOURCE = """
    import asyncio
    from contextlib import asynccontextmanager
    from pathlib import Path
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    Path("files").mkdir(exist_ok=True)
    Path("files/big.bin").write_bytes(bytes(range(256)) * 8192)
    gone = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app):
        yield {"answer": 42}

    async def state(request):
        return JSONResponse({"answer": request.state.answer})

    async def echo(request):
        return Response(await request.body(), media_type="application/octet-stream")

    async def headers(request):
        response = JSONResponse(sorted(request.headers.items()))
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def empty(request):
        return Response(status_code=204)

    async def fail(request):
        raise RuntimeError("starlette endpoint")

    async def endless(request):
        async def parts():
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0)
            finally:
                gone.set()
        return StreamingResponse(parts())

    async def wait_gone(request):
        await gone.wait()
        return PlainTextResponse("gone")

    class Stamp(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-stamp"] = "middleware"
            return response

    app = Starlette(
        lifespan=lifespan,
        middleware=[Middleware(GZipMiddleware, minimum_size=100), Middleware(Stamp)],
        routes=[
            Route("/state", state),
            Route("/echo", echo, methods=["POST", "PUT"]),
            Route("/headers", headers),
            Route("/empty", empty),
            Route("/fail", fail),
            Route("/endless", endless),
            Route("/gone", wait_gone),
            Route("/file", lambda request: FileResponse("files/big.bin")),
            Route("/moved", lambda request: RedirectResponse("/state")),
            Mount("/static", StaticFiles(directory="files")),
        ],
    )
"""

BIG = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def server(serve: Any) -> LiveServer:
    started: LiveServer = serve(SOURCE)
    return started


def test_lifespan_state(client: httpx.Client) -> None:
    answer = client.get("/state")
    assert answer.json() == {"answer": 42}
    assert answer.headers["x-stamp"] == "middleware"


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 3_000_000])
def test_a_body_comes_back_as_it_was_sent(client: httpx.Client, size: int) -> None:
    body = (BIG * 2)[:size]
    assert client.post("/echo", content=body).content == body


def test_a_chunked_body_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    assert client.put("/echo", content=(BIG[start : start + 7919] for start in range(0, 100_000, 7919))).content == BIG[: 7919 * 13]


def test_repeated_response_headers_stay_apart(client: httpx.Client) -> None:
    answer = client.get("/headers", headers=[("X-Twice", "1"), ("X-Twice", "2")])
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]
    assert [pair for pair in answer.json() if pair[0] == "x-twice"] == [["x-twice", "1"], ["x-twice", "2"]]


def test_204_has_no_body_and_keeps_the_connection(client: httpx.Client) -> None:
    answer = client.get("/empty")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "transfer-encoding" not in answer.headers
    assert client.get("/state").status_code == 200


def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client) -> None:
    answer = client.head("/file")
    assert (answer.headers["content-length"], answer.content) == (str(len(BIG)), b"")


def test_a_file_and_its_ranges(client: httpx.Client) -> None:
    assert client.get("/file").content == BIG
    assert client.get("/static/big.bin").content == BIG
    part = client.get("/file", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, BIG[100:200])
    assert client.get("/static/big.bin", headers={"if-none-match": client.head("/static/big.bin").headers["etag"]}).status_code == 304


def test_a_redirect_is_followed(client: httpx.Client) -> None:
    assert client.get("/moved", follow_redirects=True).json() == {"answer": 42}


def test_an_error_is_a_500_with_the_traceback_in_the_log(client: httpx.Client, server: LiveServer) -> None:
    mark = server.mark()
    assert client.get("/fail").status_code == 500
    server.wait_line("RuntimeError: starlette endpoint", after=mark)
    assert client.get("/state").status_code == 200


def test_a_client_that_leaves_ends_the_stream_it_was_reading(client: httpx.Client) -> None:
    with client.stream("GET", "/endless", headers={"accept-encoding": "identity"}) as answer:
        assert next(answer.iter_bytes())
    assert client.get("/gone").text == "gone"


def test_every_request_has_its_access_line(client: httpx.Client, server: LiveServer) -> None:
    mark = server.mark()
    client.get("/state?marked=1")
    line = server.wait_line(r'"GET /state\?marked=1 HTTP/1\.1" 200 (\d+)B [\d.]+ms', after=mark, stream="stdout")
    assert int(line[1]) > 0
