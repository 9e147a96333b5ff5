"""Forwarded headers on real connections: what the app sees of each request, and what the log says."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from cavalcade.config.trusted import HEADERS

ALL = {"forwarded_headers": [name for name in HEADERS if name != "forwarded"]}
OPTIONS: dict[str, Any] = {"lifespan": "off", "trusted_proxies": "127.0.0.1"}


def request(*lines: str, path: str = "/", host: str = "test") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def test_each_request_of_a_connection_has_its_own_client(run: Any, serve: Any, app: Any) -> None:
    """One after the other, pipelined, and with none at all in between: what was believed of one is not of the next."""

    async def main() -> None:
        async with serve(app, **OPTIONS) as served:
            client = await served.connect()
            own = client.sock.getsockname()
            said = [
                request("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"),
                request(),
                request("X-Forwarded-For: 6.6.6.6, 203.0.113.8:99"),
                request("X-Forwarded-Proto: https"),
                request("X-FORWARDED-FOR: 2001:db8::1"),
                request("X-Real-IP: 6.6.6.6"),
            ]
            for each in said:
                await client.send(each)
                assert (await client.response()).status == 200
            await client.send(b"".join(said))
            for _ in said:
                assert (await client.response()).status == 200
            expected = [("203.0.113.7", 0), own, ("203.0.113.8", 99), own, ("2001:db8::1", 0), own]
            assert app.clients == expected * 2
            assert [scope["scheme"] for scope in app.scopes] == ["https", "http", "http", "https", "http", "http"] * 2
            assert {type(scope["client"][1]) for scope in app.scopes} == {int}
            assert {scope["server"] for scope in app.scopes} == {client.sock.getpeername()}
            # Nothing is taken away: who looks for the headers finds them.
            assert (b"x-forwarded-for", b"6.6.6.6, 203.0.113.8:99") in app.scopes[2]["headers"]
            named = ["203.0.113.7", "127.0.0.1:", "203.0.113.8:99", "127.0.0.1:", "2001:db8::1", "127.0.0.1:"] * 2
            assert len(served.access) == len(named)
            for line, name in zip(served.access, named, strict=True):
                assert line.startswith(f'{name} - "GET' if not name.endswith(":") else name), line

    run(main())


def test_a_body_does_not_change_who_has_sent_it(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, **OPTIONS) as served:
            client = await served.connect()
            head = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
            # A trailer is no header: nothing of it is believed, in this request or the next.
            await client.send(head + b"1\r\nx\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n" + request())
            for _ in range(2):
                assert (await client.response()).status == 200
            assert app.clients == [("203.0.113.7", 0), client.sock.getsockname()]

    run(main())


def test_host_port_and_prefix_become_what_frameworks_look_at(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, **OPTIONS, **ALL) as served:
            lines = ["X-Forwarded-Host: example.com", "X-Forwarded-Proto: https", "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /a%20b/"]
            await served.ask(request(*lines, path="/c%2F?d", host="inner:8000"))
            (scope,) = app.scopes
            assert [value for name, value in scope["headers"] if name == b"host"] == [b"example.com:8443"]
            assert (scope["scheme"], scope["root_path"]) == ("https", "/a b")
            assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/c/", b"/a%20b/c%2F", b"d")

    run(main())


def test_a_prefix_in_a_header_takes_the_place_of_the_root_path(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, root_path="/static", **OPTIONS, **ALL) as served:
            for lines in (["X-Forwarded-Prefix: /api"], [], ["X-Forwarded-Prefix: //evil.example"], ["X-Forwarded-Prefix: /"]):
                await served.ask(request(*lines, path="/x"))
            seen = [(scope["root_path"], scope["path"], scope["raw_path"]) for scope in app.scopes]
            static = ("/static", "/static/x", b"/static/x")
            assert seen == [("/api", "/api/x", b"/api/x"), static, static, ("", "/x", b"/x")]

    run(main())


def test_a_websocket_has_the_client_and_scheme_of_its_handshake(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, **OPTIONS) as served:
            upgrade = [
                "Connection: upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
            answer = await served.ask(request(*upgrade, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"))
            assert answer.status == 403
            (scope,) = app.scopes
            assert (scope["type"], scope["scheme"], scope["client"]) == ("websocket", "wss", ("203.0.113.7", 0))
            assert served.access[0].startswith("203.0.113.7 ")

    run(main())


@pytest.mark.parametrize("threads", [0, 1])
def test_a_wsgi_app_has_them_in_its_environ(run: Any, serve: Any, threads: int) -> None:
    environs: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environs.append(dict(environ))
        start_response("200 OK", [])
        return [b""]

    async def main() -> None:
        options = {name: value for name, value in OPTIONS.items() if name != "lifespan"}
        async with serve(app, threads=threads, root_path="/static", **options, **ALL) as served:
            client = await served.connect()
            lines = [
                "X-Forwarded-For: 203.0.113.7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: example.com",
                "X-Forwarded-Prefix: /%C3%A9",
            ]
            for each in (lines, [], ["X-Forwarded-For: 203.0.113.8:9"]):
                await client.send(request(*each, path="/x"))
                await client.response()
            names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTPS", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO")
            own = ("127.0.0.1", "http", None, "test", "/static", "/x")
            assert [tuple(environ.get(name) for name in names) for environ in environs] == [
                ("203.0.113.7", "https", "on", "example.com", "/\xc3\xa9", "/x"),
                own,
                ("203.0.113.8", *own[1:]),
            ]
            ports = [environ.get("REMOTE_PORT") for environ in environs]
            assert ports == [None, str(client.sock.getsockname()[1]), "9"]

    run(main())


def test_streams_of_one_http2_connection_have_each_their_own_client(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, **OPTIONS, **ALL) as served:
            async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
                said: list[dict[str, str]] = [
                    {"x-forwarded-for": "6.6.6.6, 203.0.113.7", "x-forwarded-proto": "https", "x-forwarded-host": "example.com"},
                    {},
                    {"x-forwarded-for": "203.0.113.8", "x-forwarded-prefix": "/api"},
                    {"x-forwarded-for": "6.6.6.6, 203.0.113.7", "x-forwarded-proto": "https", "x-forwarded-host": "example.com"},
                ]
                for fields in said:
                    answer = await client.get("/x", headers=fields)
                    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
            hosts = [dict(scope["headers"])[b"host"] for scope in app.scopes]
            own = served.url.removeprefix("http://").encode()
            assert hosts == [b"example.com", own, own, b"example.com"]
            seen = [(scope["client"][0], scope["scheme"], scope["path"]) for scope in app.scopes]
            first = ("203.0.113.7", "https", "/x")
            assert seen == [first, ("127.0.0.1", "http", "/x"), ("203.0.113.8", "http", "/api/x"), first]
            assert [line.partition(" ")[0].partition(":")[0] for line in served.access] == [client for client, *_ in seen]

    run(main())


def test_clients_of_a_unix_socket_are_trusted_unless_told_otherwise(run: Any, serve: Any, app: Any, tmp_path: Path) -> None:
    async def main() -> None:
        said = request("X-Forwarded-For: 203.0.113.7")
        async with serve(app, bind=f"unix:{tmp_path}/a", lifespan="off") as served:
            await served.ask(said)
        async with serve(app, bind=f"unix:{tmp_path}/b", lifespan="off", trusted_proxies="loopback") as served:
            await served.ask(said)
        assert app.clients == [("203.0.113.7", 0), None]

    run(main())


def test_an_ipv4_client_of_an_inherited_socket_for_both_families_has_its_ipv4_address(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        try:
            both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        except (OSError, ValueError):
            pytest.skip("this machine has no IPv6, or no sockets for both families")
        port = both.getsockname()[1]
        async with serve(app, bind=f"fd://{both.detach()}", **OPTIONS) as served:
            served.url = f"http://127.0.0.1:{port}"
            await served.ask(request())
            await served.ask(request("X-Forwarded-For: 203.0.113.7"))
            assert [client[0] for client in app.clients] == ["127.0.0.1", "203.0.113.7"]
            assert app.scopes[0]["server"] == ("127.0.0.1", port)

    run(main())


def test_what_a_stranger_says_is_ignored_and_told_of_once(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        options = {**OPTIONS, "trusted_proxies": ["10.0.0.0/8", "unix"]}
        async with serve(app, **options, **ALL) as served:
            client = await served.connect()
            for _ in range(3):
                await client.send(request("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /api"))
                await client.response()
            assert set(app.clients) == {client.sock.getsockname()}
            assert {(scope["scheme"], scope["root_path"], scope["path"]) for scope in app.scopes} == {("http", "", "/")}
            (line,) = served.log()
            assert "X-Forwarded-For, X-Forwarded-Prefix, X-Forwarded-Proto from 127.0.0.1:" in line
            assert line.endswith("is not trusted (trusted_proxies: 10.0.0.0/8, unix); if that is your proxy: --trusted-proxies 127.0.0.1")

    run(main())


def test_trust_in_nobody_is_trust_in_nobody(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, lifespan="off", trusted_proxies="none") as served:
            await served.ask(request("X-Forwarded-For: 203.0.113.7"))
            assert app.clients[0][0] == "127.0.0.1"
            assert served.log() == []

    run(main())


def test_a_head_that_trickles_in_is_read_the_same(run: Any, serve: Any, app: Any) -> None:
    async def main() -> None:
        async with serve(app, **OPTIONS) as served:
            client = await served.connect()
            said = request("X-Forwarded-For: 6.6.6.6", "Accept: x", "X-Forwarded-For: 203.0.113.7")
            for at in range(len(said)):
                await client.send(said[at : at + 1])
            await client.response()
            assert app.clients == [("203.0.113.7", 0)]

    run(main())
