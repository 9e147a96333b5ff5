"""The opening handshake: the scope that an app gets, the 101, denials, and requests that are no proper handshake."""

from __future__ import annotations

from typing import Any

import pytest
import websockets

ACCEPT = {"type": "websocket.accept"}


def fields(*lines: bytes) -> bytes:
    return b"GET /ws HTTP/1.1\r\nHost: test\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


UPGRADE = (b"Upgrade: websocket", b"Connection: Upgrade")
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"

BAD = {
    "no key": (fields(*UPGRADE, VERSION), 400, "without Sec-WebSocket-Key"),
    "two keys": (fields(*UPGRADE, KEY, KEY, VERSION), 400, "more than one Sec-WebSocket-Key"),
    "a key that is no base64": (fields(*UPGRADE, b"Sec-WebSocket-Key: !!!!", VERSION), 400, "not 16 bytes in base64"),
    "a key that is too short": (fields(*UPGRADE, b"Sec-WebSocket-Key: c2hvcnQ=", VERSION), 400, "not 16 bytes in base64"),
    "a key that is too long": (fields(*UPGRADE, b"Sec-WebSocket-Key: " + b"QUFB" * 8, VERSION), 400, "not 16 bytes in base64"),
    "no version": (fields(*UPGRADE, KEY), 426, "Sec-WebSocket-Version is not given, not 13"),
    "an old version": (fields(*UPGRADE, KEY, b"Sec-WebSocket-Version: 8"), 426, "Sec-WebSocket-Version is 8, not 13"),
    "two versions": (fields(*UPGRADE, KEY, VERSION, VERSION), 426, "Sec-WebSocket-Version is 13, 13, not 13"),
    "bad subprotocols": (fields(*UPGRADE, KEY, VERSION, b"Sec-WebSocket-Protocol: a,,b"), 400, "not a list of names"),
    "bad extensions": (fields(*UPGRADE, KEY, VERSION, b"Sec-WebSocket-Extensions: ;;="), 400, "cannot be understood"),
    "a body": (fields(*UPGRADE, KEY, VERSION, b"Content-Length: 4")[:-2] + b"\r\nbody", 400, "with a body"),
    "a chunked body": (fields(*UPGRADE, KEY, VERSION, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "with a body"),
    "post": (fields(*UPGRADE, KEY, VERSION).replace(b"GET", b"POST", 1), 405, "by POST instead of GET"),
    "head": (fields(*UPGRADE, KEY, VERSION).replace(b"GET", b"HEAD", 1), 405, "by HEAD instead of GET"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_handshake_is_answered_and_logged_and_never_reaches_the_app(run: Any, serve: Any, case: str) -> None:
    request, status, why = BAD[case]

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("called")

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(request)
            response = await wire.response("HEAD" if case == "head" else "GET")
            assert response.status == status
            assert response.header("connection") == "close"
            if status == 426:
                assert (response.header("upgrade"), response.header("sec-websocket-version")) == ("websocket", "13")
            if status == 405:
                assert response.header("allow") == "GET"
            assert case == "head" or why in response.body.decode()
            assert await wire.rest() == b""
            assert wire.ended == "closed"
            (line,) = served.log()
            assert why in line
            assert f"(answered {status})" in line
            assert "127.0.0.1" in line

    run(main())


ORDINARY = {
    "http/1.0": b"GET /ws HTTP/1.0\r\nHost: test\r\n" + b"\r\n".join((*UPGRADE, KEY, VERSION)) + b"\r\n\r\n",  # RFC 9110 section 7.8
    "another protocol": fields(b"Upgrade: h2c", b"Connection: Upgrade"),
    "no Connection: Upgrade": fields(b"Upgrade: websocket", KEY, VERSION),  # then it is not for us, RFC 9110 section 7.8
    "no Upgrade": fields(b"Connection: Upgrade", KEY, VERSION),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_does_not_ask_for_a_websocket_is_a_plain_request(run: Any, serve: Any, case: str) -> None:
    async def main() -> None:
        async with serve(http_only, lifespan="off") as served:
            response = await served.ask(ORDINARY[case])
            assert (response.status, response.body) == (200, b"http")

    run(main())


async def http_only(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": scope["type"].encode()})


def test_ws_none_makes_every_request_a_plain_one(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(http_only, lifespan="off", ws="none") as served:
            assert (await served.ask(raw.handshake())).body == b"http"

    run(main())


@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket", b"h2c, websocket"])
@pytest.mark.parametrize("connection", [b"Upgrade", b"keep-alive, Upgrade"])
def test_the_ways_to_ask_for_it(run: Any, serve: Any, echo: Any, raw: Any, upgrade: bytes, connection: bytes) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(fields(b"Upgrade: " + upgrade, b"Connection: " + connection, KEY, VERSION))
            response = await wire.head()
            assert response.status == 101
            assert response.header("upgrade") == "websocket"
            assert response.header("connection") == "upgrade"
            assert response.header("sec-websocket-accept") == raw.ACCEPT
            assert response.header("content-length") is None
            assert response.header("transfer-encoding") is None
            assert response.header("sec-websocket-protocol") is None
            assert response.header("sec-websocket-extensions") is None
            assert response.header("server") == "cavalcade"

    run(main())


def test_the_scope_is_that_of_the_specification(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                scope["state"]["db"] = "pool"
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            scopes.append(scope)
            await send({"type": "websocket.close"})

        async with serve(app, root_path="/api") as served:
            wire = await served.connect()
            await wire.send(raw.handshake("/caf%C3%A9?a=b", b"Sec-WebSocket-Protocol: one, two", b"Sec-WebSocket-Protocol: three"))
            assert (await wire.response()).status == 403
            (scope,) = scopes
            assert scope["type"] == "websocket"
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
            assert scope["http_version"] == "1.1"
            assert scope["scheme"] == "ws"
            assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/api/café", b"/api/caf%C3%A9", b"a=b")
            assert scope["root_path"] == "/api"
            assert scope["subprotocols"] == ["one", "two", "three"]
            assert scope["headers"][:2] == [(b"host", b"test"), (b"upgrade", b"websocket")]
            assert scope["client"] == ("127.0.0.1", wire.sock.getsockname()[1])
            assert scope["server"] == wire.sock.getpeername()
            assert scope["state"] == {"db": "pool"}
            assert scope["extensions"]["websocket.http.response"] == {}
            assert not scope["extensions"]["cavalcade.draining"].is_set()
            assert "method" not in scope

    run(main())


def test_the_101_carries_the_headers_and_the_subprotocol_of_the_app(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [
                (b"x-one", b"1"),
                (b"set-cookie", b"a=b"),
                (b"set-cookie", b"c=d"),
                (b"connection", b"close"),
                (b"content-length", b"9"),
            ]
            await send({**ACCEPT, "subprotocol": "two", "headers": headers})

        async with serve(app, lifespan="off") as served:
            url = served.url.replace("http", "ws")
            async with websockets.connect(url, subprotocols=["one", "two"], compression=None) as client:
                headers = client.response.headers
                assert client.subprotocol == "two"
                assert headers["X-One"] == "1"
                assert headers.get_all("Set-Cookie") == ["a=b", "c=d"]
                assert headers.get_all("Connection") == ["upgrade"]
                assert "Content-Length" not in headers

    run(main())


def test_the_access_log_has_a_line_for_the_handshake(run: Any, serve: Any, peer: Any, echo: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            await peer(served, "/room?x=1")
            await served.until(lambda: served.access)
            assert '"GET /room?x=1 HTTP/1.1" 101' in served.access[0]

    run(main())


# -- denial ----------------------------------------------------------------------------------------------------------------


def test_closing_before_accepting_is_a_403_and_the_connection_goes_on(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive()) == {"type": "websocket.connect"}
            await send({"type": "websocket.close", "code": 4003, "reason": "no"})
            assert (await receive())["type"] == "websocket.disconnect"

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            for _ in range(3):
                await wire.send(raw.handshake())
                response = await wire.response()
                assert (response.status, response.body) == (403, b"")
                assert response.header("connection") is None

    run(main())


@pytest.mark.parametrize("length", [True, False])
def test_a_denial_response_goes_out_as_the_app_made_it(run: Any, serve: Any, raw: Any, length: bool) -> None:
    body = b"\xff\xfe not UTF-8 \x00" * 1000

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert "websocket.http.response" in scope["extensions"]
            headers = [(b"x-why", b"because"), *([(b"content-length", b"%d" % len(body))] if length else [])]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body[:10], "more_body": True})
            await send({"type": "websocket.http.response.body", "body": body[10:]})

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            for _ in range(2):
                await wire.send(raw.handshake())
                response = await wire.response()
                assert (response.status, response.body) == (401, body)
                assert response.header("x-why") == "because"

    run(main())


def test_a_client_that_leaves_before_it_is_accepted_is_told_to_the_app(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        told: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            told.append(await receive())
            told.append(await receive())
            with pytest.raises(OSError, match="gone"):
                await send(ACCEPT)
            told.append("over")

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake())
            await served.until(lambda: told)
            wire.close()
            await served.until(lambda: told[-1] == "over")
            assert told[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    run(main())


def test_an_open_websocket_counts_as_a_request_in_flight(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", limit_concurrency=1) as served:
            first = await peer(served)
            response = await served.ask(raw.handshake())
            assert (response.status, response.header("cavalcade-reason")) == (503, "overloaded")
            await first.send(raw.CLOSE)
            await served.until(lambda: not served.server._context.serving.running)
            await peer(served)

    run(main())
