"""The PROXY protocol on real connections: required where it was asked for, refused where not, and believed of trusted peers only."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing.certificates import Authority
from cavalcade.wire.proxy_header import V2

BIND = "127.0.0.1:0?proxy_protocol=on"
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n"
TCP6 = V2 + b"\x21\x21\x00\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(15) + b"\x01" + b"\x00\x07\x01\xbb"
LOCAL = V2 + b"\x20\x00\x00\x00"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "client", "server"),
    [
        (V1, ("203.0.113.7", 56324), ("198.51.100.1", 443)),
        (TCP6, ("2001:db8::7", 7), ("::1", 443)),
        (LOCAL, None, None),
        (b"PROXY UNKNOWN\r\n", None, None),
    ],
)
@pytest.mark.parametrize("pace", ["with the request", "before the request", "byte by byte"])
def test_the_client_is_who_the_header_says(run: Any, serve: Any, app: Any, header: bytes, client: Any, server: Any, pace: str) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off") as served:
            wire = await served.connect()
            own = wire.sock.getsockname(), wire.sock.getpeername()
            if pace == "with the request":
                await wire.send(header + GET)
            elif pace == "before the request":
                await wire.send(header)
                await served.until(lambda: served.connections == 1)
                await wire.send(GET)
            else:
                for at in range(len(header + GET)):
                    await wire.send((header + GET)[at : at + 1])
                    await asyncio.sleep(0)
            assert (await wire.response()).status == 200
            await wire.send(GET)  # it is said once for a connection
            assert (await wire.response()).status == 200
            expected = (client or own[0], server or own[1])
            assert [(scope["client"], scope["server"]) for scope in app.scopes] == [expected] * 2
            assert {scope["scheme"] for scope in app.scopes} == {"http"}
            host, port = expected[0]
            assert served.access[0].startswith(f"[{host}]:{port} " if ":" in host else f"{host}:{port} ")

    run(main())


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (GET, r"it does not begin with a PROXY protocol header; it began b'GET / HTTP/1.1"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n" + GET, "a PROXY protocol line that makes no sense"),
        (V2 + b"\x21\x11\xff\xff", "a PROXY protocol header over 4096 bytes"),
    ],
)
def test_a_connection_without_a_good_header_is_refused_with_a_line_in_the_log(
    run: Any, serve: Any, app: Any, sent: bytes, why: str
) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(sent)
            assert await wire.rest() == b""
            assert app.scopes == []
            (line,) = served.log()
            assert line.startswith(f"connection of 127.0.0.1:{wire.sock.getsockname()[1]} closed: ")
            assert why in line
            assert "has proxy_protocol=on)" in line
            assert served.server._context.load == 0

    run(main())


def test_headers_of_peers_that_are_not_trusted_are_not_believed(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off", trusted_proxies="10.0.0.0/8") as served:
            wire = await served.connect()
            await wire.send(V1 + GET)
            assert await wire.rest() == b""
            assert app.scopes == []
            (line,) = served.log()
            assert line.endswith("believes the PROXY protocol of trusted proxies only; if that is yours: --trusted-proxies 127.0.0.1")

    run(main())


def test_who_the_header_names_is_trusted_or_not_with_its_own_headers(run: Any, serve: Any, app: Any) -> None:
    """The load balancer passes on bytes: what they say is said by the client that it has named."""

    async def main() -> None:
        said = b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n"
        async with serve(app, bind=BIND, lifespan="off", trusted_proxies=["127.0.0.1", "203.0.113.7"]) as served:
            for header in (V1, TCP6):
                await served.ask(header + said)
            assert app.clients == [("192.0.2.1", 0), ("2001:db8::7", 7)]
            assert [scope["scheme"] for scope in app.scopes] == ["https", "http"]
            (line,) = served.log()
            assert "from [2001:db8::7]:7 ignored" in line

    run(main())


def test_a_header_that_does_not_come_is_waited_for_only_so_long(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off", head_timeout=0.2) as served:
            wire = await served.connect()
            await wire.send(V1[:20])
            assert await wire.rest() == b""
            (line,) = served.log()
            assert "no PROXY protocol header within 0.2 s (head_timeout)" in line

    run(main())


def test_a_health_check_that_only_connects_is_no_news(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off") as served:
            for leave in ("close", "reset"):
                wire = await served.connect()
                await served.until(lambda: served.server._context.load == 1)
                getattr(wire, leave)()
                await served.until(lambda: served.server._context.load == 0)
            assert served.log() == []

    run(main())


def test_a_stop_answers_who_is_in_the_middle_of_its_header_and_waits_for_nobody_else(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off") as served:
            quick, silent = await served.connect(), await served.connect()
            await quick.send(V1[:10])
            await silent.send(V1[:10])
            await served.until(lambda: served.server._context.load == 2)
            stopping = asyncio.get_running_loop().create_task(served.server.stop())
            await served.until(lambda: not served.server._gate._open)
            await quick.send(V1[10:] + GET)
            assert (await quick.response()).status == 200
            assert await silent.rest() == b""
            await stopping
            assert app.clients == [("203.0.113.7", 56324)]

    run(main())


def test_one_server_has_addresses_with_and_without(run: Any, serve: Any, app: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "plain.sock"
        async with serve(app, bind=[BIND, f"unix:{path}"], lifespan="off") as served:
            await served.ask(V1 + GET)
            served.url = f"unix:{path}"
            await served.ask(GET)
            refused = await served.ask(V1 + GET)
            assert refused.status == 400
            assert b"a PROXY protocol header at an address that expects none" in refused.body
            assert app.clients == [("203.0.113.7", 56324), None]
            (line,) = served.log()
            assert "bind it with ?proxy_protocol=on" in line

    run(main())


def test_a_version_2_header_where_none_is_expected_is_recognised_too(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            refused = await served.ask(TCP6 + GET)
            assert refused.status == 400
            assert b"a PROXY protocol header at an address that expects none" in refused.body

    run(main())


@pytest.mark.parametrize("pace", ["at once", "apart"])
def test_it_comes_before_tls(run: Any, serve: Any, app: Any, tmp_path: Path, pace: str) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off", **authority.pair.options) as served:
            with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                if pace == "apart":
                    await loop.sock_sendall(sock, V1[:30])
                    await asyncio.sleep(0)
                    await loop.sock_sendall(sock, V1[30:])
                else:
                    await loop.sock_sendall(sock, V1)
                reader, writer = await asyncio.open_connection(sock=sock, ssl=authority.client(), server_hostname="localhost")
                writer.write(GET)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            (scope,) = app.scopes
            assert (scope["client"], scope["scheme"]) == (("203.0.113.7", 56324), "https")

    run(main())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_says_who_it_is(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, bind=BIND, lifespan="off") as served:
            curl = await asyncio.create_subprocess_exec("curl", "-sS", "--fail", "--haproxy-protocol", served.url)
            assert await curl.wait() == 0
            assert app.clients[0][0] == "127.0.0.1"

    run(main())
