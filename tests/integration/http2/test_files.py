"""Files as bodies over HTTP/2: they are read, only as fast as the client takes them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cavalcade.testing.http2 import GET as H2_GET

SIZES = [0, 1, 65536, 65537, 3_000_000]


def start(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers, **more}


def path(where: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(where)}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def zero(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_over_http2(run: Any, serve: Any, speak: Any, files: Any, size: int, method: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if scope["path"] == "/path":
            await send(path(files[size]))
            return
        with files[size].open("rb") as file:
            await send(zero(file, more_body=True))
        await send(body(b"end"))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await speak(served, settings={4: 5_000_000})
            before = descriptors()
            await client.send(client.peer.window(0, 20_000_000))
            data = files[size].read_bytes() if method == b"GET" else b""
            fields = [(b":method", method), *H2_GET[1:]]
            answer = await client.ask(1, [*fields[:2], (b":path", b"/path"), *fields[3:]])
            assert (answer.status, answer.body, answer.ended) == (200, data, True)
            if size:
                assert answer.field(b"content-length") == b"%d" % size
            answer = await client.ask(3, fields)
            assert (answer.status, answer.body, answer.ended) == (200, data + b"end" * (method == b"GET"), True)
            assert descriptors() == before

    run(main())


def test_a_stream_that_is_reset_in_the_middle_leaves_no_descriptor(run: Any, serve: Any, speak: Any, files: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(path(files[3_000_000]))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            before = descriptors()
            await client.send(client.peer.request(1))
            await client.until(lambda: client.peer.answer(1).body)
            await client.send(client.peer.rst(1))
            await served.until(lambda: descriptors() == before)

    run(main())
