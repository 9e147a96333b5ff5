"""Starlette: `cavalcade main:app --app-dir examples/starlette_demo`."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def home(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "Starlette", "pid": os.getpid()})


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse((await request.body()).decode("utf-8", "replace"))


app = Starlette(routes=[Route("/", home), Route("/echo", echo, methods=["POST"])])
