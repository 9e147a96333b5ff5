"""Requests and responses over TLS: nothing is lost at the edges of records, by slow clients, or at the end of a connection."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from cavalcade import limits

MIB = 1 << 20
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The length and hash of the body; with a number as query, so many bytes; `/close`, `/stream` and `/die` as they say."""
    size, hashed = 0, hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        hashed.update(message.get("body", b""))
        more = message.get("more_body", False)
    wanted = int(scope["query_string"] or b"0")
    body = filling(wanted) if wanted else f"{size} {hashed.hexdigest()}".encode()
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200})
        for place in range(0, len(body), 1000):
            await send({"type": "http.response.body", "body": body[place : place + 1000], "more_body": True})
        await send({"type": "http.response.body"})
        return
    headers = [(b"content-length", b"%d" % len(body))]
    if scope["path"] == "/close":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/die":
        await send({"type": "http.response.body", "body": body[:10], "more_body": True})
        raise RuntimeError("on purpose")
    await send({"type": "http.response.body", "body": body})


def filling(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 65536, 5 * MIB])
def test_bodies_of_every_size_arrive_whole(
    size: int, version: Any, run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:

            def ask() -> None:
                client = tls_client(served.url, authority.client(minimum_version=version, maximum_version=version))
                body = filling(size)
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body)
                assert client.response()[2].decode() == f"{size} {hashlib.sha256(body).hexdigest()}"
                assert client.ask(f"/?{size}")[2] == body
                assert client.ask(f"/stream?{size}")[2] == body
                client.close()

            await in_thread(ask)

    run(main())


def test_a_request_may_come_in_records_of_one_byte_and_many_in_one(
    run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:

            def ask() -> None:
                client = tls_client(served.url, authority.client())
                request = b"GET /?3 HTTP/1.1\r\nHost: a\r\n\r\n"
                for byte in request:
                    client.send(bytes([byte]))
                assert client.response()[2] == b"012"
                client.send(request * 20)
                stream = client.sock.makefile("rb")
                for _ in range(20):
                    while stream.readline() != b"\r\n":
                        pass
                    assert stream.read(3) == b"012"
                client.close()

            await in_thread(ask)

    run(main())


def test_a_client_that_does_not_read_is_waited_for_and_not_buffered_for(
    run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(24):
            await send({"type": "http.response.body", "body": filling(MIB), "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:

            def begin() -> Any:
                client = tls_client(served.url, authority.client())
                client.send(b"GET / HTTP/1.0\r\n\r\n")
                return client

            client = await in_thread(begin)
            link = await served.until(lambda: next((each for each in served.server._context.connections if each.write_paused), None))
            assert sent < 12
            assert link.transport.get_write_buffer_size() < 2 * MIB
            answer = await in_thread(client.rest)
            assert len(answer.partition(b"\r\n\r\n")[2]) == 24 * MIB
            assert client.ended == "closed"
            client.close()

    run(main())


def test_an_app_that_does_not_read_pauses_the_client(run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any) -> None:
    gate = asyncio.Event()
    held: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:
            body = filling(20 * MIB)

            def upload() -> bytes:
                client = tls_client(served.url, authority.client())
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                answer = client.response()[2]
                client.close()
                return bytes(answer)

            uploading = asyncio.ensure_future(in_thread(upload))
            link = await served.until(lambda: next((each for each in served.server._context.connections if each.read_paused), None))
            held.append(link.transport.incoming.pending)
            gate.set()
            assert (await uploading).decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        assert held[0] < MIB

    run(main())


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V12, V13])
def test_a_connection_is_closed_by_the_rules_of_tls(
    version: Any, run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    """close_notify: a client can tell the end from a connection that somebody has cut."""

    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:

            def ask() -> None:
                for path in ("/close?100", f"/close?{MIB}"):
                    client = tls_client(served.url, authority.client(minimum_version=version, maximum_version=version))
                    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    assert client.rest().endswith(filling(int(path.partition("?")[2])))
                    assert client.ended == "closed"
                    client.close()

            await in_thread(ask)
            await served.until_gone()

    run(main())


def test_a_response_that_breaks_off_is_not_ended_by_the_rules(
    run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        async with serve(echo, errors=("the app failed",), lifespan="off", **authority.pair.options) as served:

            def ask() -> Any:
                client = tls_client(served.url, authority.client())
                client.send(b"GET /die?100 HTTP/1.1\r\nHost: a\r\n\r\n")
                client.rest()
                client.close()
                return client.ended

            assert await in_thread(ask) in ("cut", "reset")

    run(main())


def test_a_refusal_reaches_a_client_that_is_still_sending(run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any) -> None:
    """A plain close would make the kernel answer the rest of the body with a reset, which destroys the response."""

    async def main() -> None:
        async with serve(echo, lifespan="off", limit_request_body=1000, **authority.pair.options) as served:

            def ask() -> None:
                client = tls_client(served.url, authority.client())
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
                for _ in range(10):
                    client.send(filling(10000))
                assert client.response()[0] == 413
                client.close()

            await in_thread(ask)
            await served.until_gone()

    run(main())


def test_the_client_may_end_first(run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:

            def leave() -> None:
                client = tls_client(served.url, authority.client())
                assert client.ask("/?5")[2] == b"01234"
                client.sock.unwrap()  # waits for the server's close_notify
                client.sock.close()
                client = tls_client(served.url, authority.client())
                assert client.ask("/?5")[2] == b"01234"
                client.sock.close()  # without a word

            await in_thread(leave)
            await served.until_gone()
            assert served.log() == []

    run(main())


def test_bytes_that_are_not_tls_any_more_end_the_connection_with_a_line(
    run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        for junk, line in (
            (b"\x17\x03\x03\x00\x20" + b"j" * 32, "TLS: decryption failed or bad record mac"),
            (b"\x17\x03\x03\xff\xff" + b"j" * 70000, "TLS: packet length too long"),  # an oversized record
            (b"GET / HTTP/1.1\r\n\r\n", "TLS: wrong version number"),
        ):
            async with serve(echo, lifespan="off", **authority.pair.options) as served:

                def break_it(url: str = served.url, junk: bytes = junk) -> None:
                    client = tls_client(url, authority.client())
                    assert client.ask("/?5")[2] == b"01234"
                    bare = socket.socket(fileno=client.sock.detach())
                    bare.settimeout(10.0)
                    try:
                        bare.sendall(junk)
                        while bare.recv(65536):
                            pass
                    except ConnectionError:
                        pass
                    bare.close()

                before = len(served.log())
                await in_thread(break_it)
                assert line in (await served.until(lambda before=before: served.log()[before:]))[0]
                await served.until_gone()

    run(main())


# -- other people's clients ------------------------------------------------------------------------------------------------


def test_curl_uploads_and_downloads(run: Any, serve: Any, authority: Any, in_thread: Any, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl, "this test needs curl"
    (tmp_path / "upload").write_bytes(filling(2 * MIB))

    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:
            command = [curl, "-sS", "--fail", "--http1.1", "--cacert", str(authority.file)]
            sent = await in_thread(
                subprocess.run, [*command, "-H", "Expect: 100-continue", "-T", str(tmp_path / "upload"), served.url], capture_output=True
            )
            assert sent.stdout.decode() == f"{2 * MIB} {hashlib.sha256(filling(2 * MIB)).hexdigest()}", sent.stderr
            got = await in_thread(subprocess.run, [*command, f"{served.url}/?{MIB}"], capture_output=True)
            assert got.stdout == filling(MIB), got.stderr

    run(main())


def openssl(served: Any, authority: Any, *arguments: str, say: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(s_client(served, authority, *arguments), input=say, capture_output=True, timeout=10, check=False)


def s_client(served: Any, authority: Any, *arguments: str) -> list[str]:
    tool = shutil.which("openssl")
    assert tool, "this test needs openssl"
    return [tool, "s_client", "-connect", served.url.removeprefix("https://"), "-CAfile", str(authority.file), *arguments]


def test_nobody_renegotiates(run: Any, serve: Any, authority: Any, in_thread: Any) -> None:
    """CVE-2009-3555, CVE-2011-1473: a client that asks for it is refused, and the connection does not hang."""

    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:
            done = await in_thread(openssl, served, authority, "-tls1_2", say=b"R\nGET /close?5 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"RENEGOTIATING" in done.stdout + done.stderr
            assert b"no renegotiation" in done.stderr or b"200 OK" in done.stdout
            await served.until_gone()

    run(main())


def test_new_keys_are_agreed_on_while_a_connection_lasts(run: Any, serve: Any, authority: Any, in_thread: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:
            command = s_client(served, authority, "-tls1_3")

            def update_keys() -> None:
                with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as client:
                    assert client.stdin is not None
                    assert client.stdout is not None
                    assert client.stderr is not None
                    for line in (b"GET /?5 HTTP/1.1\r\nHost: a\r\n\r\n", b"K\n", b"GET /close?7 HTTP/1.1\r\nHost: a\r\n\r\n"):
                        client.stdin.write(line)  # a command is one only where nothing else comes with it
                        if line == b"K\n":
                            while b"KEYUPDATE" not in client.stderr.readline():
                                pass
                        else:
                            while not client.stdout.readline().startswith(b"\r\n"):
                                pass
                    assert b"0123456" in client.stdout.read()

            await in_thread(update_keys)
            await served.until_gone()
            assert served.log() == []

    run(main())


def test_a_client_that_asks_for_new_keys_for_ever_is_sent_away(
    run: Any, serve: Any, authority: Any, in_thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its few bytes would cost us a key, and as many bytes that wait to be read by it."""
    monkeypatch.setattr(limits, "TLS_UNASKED_BYTES", 20)

    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:

            def ask() -> None:
                command = s_client(served, authority, "-tls1_3")
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
                with subprocess.Popen(command, bufsize=0, **pipes) as client:  # type: ignore[call-overload]
                    while not client.stdout.readline().startswith(b"---"):
                        pass
                    for _ in range(2):  # OpenSSL sends its own new key with what it sends next
                        client.stdin.write(b"K\n")
                        while b"KEYUPDATE" not in client.stderr.readline():
                            pass
                    client.stdout.read()  # until it is over

            await in_thread(ask)
            await served.until_gone()
            assert "asked for new keys again and again" in served.log()[0]

    run(main())


def test_what_was_taken_for_granted_of_tls_is_off(run: Any, serve: Any, authority: Any, in_thread: Any) -> None:
    """Old versions (POODLE, BEAST), compression (CRIME), weak ciphers (FREAK, SWEET32, RC4) and early data (replay)."""

    async def main() -> None:
        async with serve(echo, lifespan="off", **authority.pair.options) as served:
            for refused in (["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "EXPORT:LOW:RC4:3DES:NULL:aNULL:@SECLEVEL=0"]):
                done = await in_thread(openssl, served, authority, *refused, say=b"")
                assert b"Cipher is (NONE)" in done.stdout or done.returncode, refused
            done = await in_thread(openssl, served, authority, "-tls1_2", say=b"Q\n")
            assert b"Compression: NONE" in done.stdout
            assert b"Secure Renegotiation IS supported" in done.stdout
            done = await in_thread(openssl, served, authority, "-tls1_3", say=b"Q\n")
            assert b"Max Early Data: 0" in done.stdout or b"Early data was not sent" in done.stdout

    run(main())


# -- where it is served ------------------------------------------------------------------------------------------------------


def test_a_unix_socket_speaks_tls_too(run: Any, serve: Any, authority: Any, tmp_path: Path) -> None:
    """With a certificate there is no address that speaks anything else."""

    async def main() -> None:
        path = str(tmp_path / "app.sock")
        async with serve(echo, lifespan="off", bind=f"unix:{path}", **authority.pair.options):
            transport = httpx.AsyncHTTPTransport(uds=path, verify=authority.client())
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("https://localhost/?5")).content == b"01234"

    run(main())


def test_an_idle_connection_is_answered_for_a_moment_when_the_server_leaves(run: Any, serve: Any, authority: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", graceful_timeout=5.0, **authority.pair.options) as served:
            async with httpx.AsyncClient(verify=authority.client()) as client:
                assert (await client.get(f"{served.url}/?5")).headers.get("connection") is None
                stop = asyncio.ensure_future(served.server.stop())
                await served.until(lambda: served.server._context.draining)
                answer = await client.get(f"{served.url}/?5")
                assert answer.content == b"01234"
                assert answer.headers["connection"] == "close"
                assert await asyncio.wait_for(stop, 5) == []

    run(main())


def test_a_new_certificate_is_taken_up_while_connections_last(
    run: Any, serve: Any, authority: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        pair, second = authority.pair, authority.issue("second")
        async with serve(echo, lifespan="off", **pair.options) as served:

            def connect() -> Any:
                client = tls_client(served.url, authority.client())
                return client, client.sock.getpeercert()["serialNumber"]

            old, first = await in_thread(connect)
            pair.replace_by(second)
            await served.until(lambda: any("new certificate" in line for line in served.log(level=20)))
            new, shown = await in_thread(connect)
            assert (first == shown, shown) == (False, second.serial)
            for client in (old, new):
                assert (await in_thread(client.ask, "/?5"))[2] == b"01234"
                client.close()

    run(main())
