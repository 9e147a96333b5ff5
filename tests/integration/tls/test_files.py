"""Files as bodies over TLS: they are read, only as fast as the client takes them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


def start(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers, **more}


def path(where: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(where)}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def zero(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


@pytest.mark.parametrize("http2", [False, True])
def test_over_tls(run: Any, serve: Any, authority: Any, files: Any, http2: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if scope["path"] == "/path":
            await send(path(files[3_000_000]))
            return
        with files[3_000_000].open("rb") as file:
            await send(zero(file, more_body=True))
            await send(zero(file, offset=0, count=70_000))

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:
            data = files[3_000_000].read_bytes()
            async with httpx.AsyncClient(verify=authority.client(), http2=http2, base_url=served.url) as client:
                for where, expected in (("/path", data), ("/", data + data[:70_000])) * 2:
                    response = await client.get(where)
                    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                    assert response.content == expected

    run(main())
