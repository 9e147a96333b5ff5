"""Which of its own paths an app names: those that can be asked for without knowing more."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from cavalcade.doctor import outline
from cavalcade.doctor.client import Request


async def asynchronous() -> str:
    return ""


def plain() -> str:
    return ""


def test_fastapi() -> None:
    router = APIRouter(prefix="/reports")
    router.get("/all")(plain)
    app = FastAPI(debug=True)
    app.include_router(router)
    app.get("/slow")(asynchronous)
    app.get("/")(asynchronous)
    app.get("/items/{number}")(asynchronous)
    app.post("/made")(asynchronous)

    @app.get("/search")
    async def search(q: str, page: int = 1) -> str:
        return q

    @app.get("/pages")
    async def pages(page: int = 1) -> str:
        return str(page)

    seen = outline.of(app, "FastAPI", "asgi")
    assert seen.paths == ["/", "/reports/all", "/slow", "/pages"]
    assert seen.threaded == ["/reports/all"]
    assert seen.debug


def test_starlette_with_mounts_under_middleware() -> None:
    async def answer(request: object) -> PlainTextResponse:
        return PlainTextResponse("")

    inner = Starlette(routes=[Route("/a", answer), Mount("/sub", routes=[Route("/b", answer), Route("/{c}", answer)])])
    assert outline.of(GZipMiddleware(inner), "GZipMiddleware", "asgi").paths == ["/a", "/sub/b"]


def test_flask() -> None:
    app = Flask("x", static_folder=None)
    app.add_url_rule("/b", "b", plain)
    app.add_url_rule("/u/<name>", "u", plain)
    app.add_url_rule("/made", "made", plain, methods=["POST"])
    assert outline.of(app, "Flask", "wsgi").paths == ["/b"]


def test_an_app_that_does_not_tell() -> None:
    assert outline.of(asynchronous, "function", "asgi").paths == []


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("/a b?q=ü", headers=(("Host", "shop.example"),)), b"GET /a%20b?q=%C3%BC HTTP/1.1\r\nhost: shop.example\r\n"),
        (Request("/", "POST", body=b"{}"), b"content-length: 2\r\ncontent-type: application/json\r\n\r\n{}"),
    ],
)
def test_requests_as_they_are_sent(request_: Request, expected: bytes) -> None:
    assert expected in request_.encode("http://127.0.0.1:8000")
