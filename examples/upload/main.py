"""Uploads of any size in little memory: `cavalcade main:app --app-dir examples/upload`.

    curl -T large.iso http://127.0.0.1:8000/

The body is hashed as it comes; a client that is faster than the hash is made to wait, over HTTP/1.1 as over HTTP/2.
"""

import hashlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def upload(request: Request) -> JSONResponse:
    digest = hashlib.sha256()
    size = 0
    async for chunk in request.stream():
        digest.update(chunk)
        size += len(chunk)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest(), "http": request.scope["http_version"]})


app = Starlette(routes=[Route("/", upload, methods=["POST", "PUT"]), Route("/{name}", upload, methods=["PUT"])])
