"""What is spoken over TLS beside HTTP/1.1: HTTP/2, WebSockets, WSGI."""

from __future__ import annotations

import ast
import hashlib
import shutil
import ssl
import subprocess
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 100, 3 * MIB])
def test_http2_is_spoken_where_it_was_agreed_on(size: int, run: Any, serve: Any, authority: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        facts = [scope["http_version"], scope["scheme"], scope["extensions"]["tls"]["tls_version"], hashlib.sha256(body).hexdigest()]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr(facts).encode() + b"\n" + body})

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:
            async with httpx.AsyncClient(http2=True, verify=authority.client()) as client:
                for _ in range(3):
                    body = b"x" * size
                    answer = await client.post(served.url, content=body)
                    assert answer.http_version == "HTTP/2"
                    facts, _, echo = answer.content.partition(b"\n")
                    assert ast.literal_eval(facts.decode()) == ["2", "https", 0x0304, hashlib.sha256(body).hexdigest()]
                    assert echo == body

    run(main())


def test_http2_is_not_spoken_where_it_was_not_agreed_on(
    run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any
) -> None:
    """RFC 9113 section 3.2: over TLS a client has to ask."""

    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:

            def speak() -> bytes:
                client = tls_client(served.url, authority.client())
                client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                answer = client.rest()
                client.close()
                return bytes(answer)

            assert (await in_thread(speak)).startswith(b"HTTP/1.1 505 ")

    run(main())


def test_curl_speaks_http2(run: Any, serve: Any, authority: Any, told: Any, in_thread: Any) -> None:
    curl = shutil.which("curl")
    assert curl, "this test needs curl"

    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            command = [curl, "-sS", "--fail", "--http2", "--cacert", str(authority.file), "-w", "%{http_version}", served.url]
            done = await in_thread(subprocess.run, command, capture_output=True)
            assert done.stdout.endswith(b"2"), done.stderr
            assert b"'scheme': 'https'" in done.stdout

    run(main())


def test_websockets_are_spoken_over_tls(run: Any, serve: Any, authority: Any) -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:
            async with connect(served.url.replace("https://", "wss://"), ssl=authority.client(), max_size=None) as socket:
                for message in ("hello", b"\x00" * 100, b"\x01" * (3 * MIB), "x" * 70000):
                    await socket.send(message)
                    assert await socket.recv() == message
            assert socket.close_code == 1000
            assert scopes[0]["scheme"] == "wss"
            assert scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304
            await served.until_gone()

    run(main())


def test_wsgi_is_spoken_over_tls(run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("content-type", "text/plain")])
        return [
            environ["wsgi.url_scheme"].encode(),
            b" ",
            environ.get("HTTPS", "").encode(),
            b" ",
            hashlib.sha256(body).hexdigest().encode(),
        ]

    async def main() -> None:
        async with serve(app, **authority.pair.options) as served:
            async with httpx.AsyncClient(verify=authority.client()) as client:
                body = b"x" * (2 * MIB)
                assert (await client.post(served.url, content=body)).text == f"https on {hashlib.sha256(body).hexdigest()}"

    run(main())


def test_a_file_is_sent_through_tls_and_not_around_it(run: Any, serve: Any, authority: Any, tmp_path: Any) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(content)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "application/octet-stream"), ("content-length", str(len(content)))])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    async def main() -> None:
        async with serve(app, **authority.pair.options) as served:
            async with httpx.AsyncClient(verify=authority.client()) as client:
                for _ in range(2):
                    assert (await client.get(served.url)).content == content

    run(main())


def test_old_tls_carries_them_all(run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            context = authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            async with httpx.AsyncClient(http2=True, verify=context) as client:
                answer = await client.get(served.url)
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)

    run(main())
