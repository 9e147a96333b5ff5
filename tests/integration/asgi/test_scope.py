"""The scope, key by key and type by type (ASGI HTTP connection scope, spec 2.5)."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest


class Remembering:
    """An app that keeps every scope it was called with."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})


def test_every_key_has_its_exact_type_and_value(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Remembering()
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(
                b"POST /caf%C3%A9?a=%C3%A9 HTTP/1.1\r\nHost: test\r\nX-Thing: V\xe9\r\nx-thing: 2\r\nContent-Length: 0\r\n\r\n"
            )
            await client.response()
            (scope,) = app.scopes
            host, port = client.sock.getsockname()
            server = client.sock.getpeername()
            extensions = scope.pop("extensions", {})
            assert scope == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": "/café",
                "raw_path": b"/caf%C3%A9",
                "query_string": b"a=%C3%A9",
                "root_path": "",
                "headers": [(b"host", b"test"), (b"x-thing", b"V\xe9"), (b"x-thing", b"2"), (b"content-length", b"0")],
                "client": (host, port),
                "server": server,
            }
            assert type(scope["client"][1]) is int
            assert type(scope["server"][1]) is int
            # Only what works may be advertised.
            offered = {"pathsend", "zerocopysend", "trailers", "early_hint"}
            assert {name for name in extensions if not name.startswith("cavalcade.")} == {f"http.response.{name}" for name in offered}
            assert all(extensions[f"http.response.{name}"] == {} for name in offered)
            with pytest.raises(TypeError):
                extensions["http.response.pathsend"]["shared"] = True

    run(main())


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (b"GET / HTTP/1.0", {"http_version": "1.0", "path": "/", "raw_path": b"/", "query_string": b""}),
        (b"GET /a%2Fb%zz HTTP/1.1", {"path": "/a/b%zz", "raw_path": b"/a%2Fb%zz"}),
        (b"GET /%ff%fe HTTP/1.1", {"path": "/\ufffd\ufffd", "raw_path": b"/%ff%fe"}),
        (b"GET /a+b?+ HTTP/1.1", {"path": "/a+b", "query_string": b"+"}),
        (b"GET /? HTTP/1.1", {"path": "/", "query_string": b""}),
        (b"GET //a/./b/../c HTTP/1.1", {"path": "//a/./b/../c"}),
        (b"OPTIONS * HTTP/1.1", {"method": "OPTIONS", "path": "*", "raw_path": b"*"}),
        (b"GET http://other:99/p?q HTTP/1.1", {"path": "/p", "query_string": b"q", "headers": [(b"host", b"other:99")]}),
    ],
)
def test_paths_and_versions(run: Any, serve: Any, line: bytes, facts: dict[str, Any]) -> None:
    async def main() -> None:
        app = Remembering()
        async with serve(app, lifespan="off") as served:
            await served.ask(line + b"\r\nHost: test\r\n\r\n")
            for name, value in facts.items():
                assert app.scopes[0][name] == value, name

    run(main())


def test_root_path_stands_before_both_paths(run: Any, serve: Any) -> None:
    async def main() -> None:
        app = Remembering()
        async with serve(app, lifespan="off", root_path="/api") as served:
            await served.ask(b"GET /items%20 HTTP/1.1\r\nHost: test\r\n\r\n")
            scope = app.scopes[0]
            assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/items ", b"/api/items%20")

    run(main())


def test_a_scope_is_the_apps_to_change(run: Any, serve: Any) -> None:
    """Nothing of it is shared with the next request of the same connection, or with the same request again."""

    async def main() -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((dict(scope), dict(scope["asgi"]), list(scope["headers"]), dict(scope.get("extensions", {}))))
            scope["path"] = "/changed"
            scope["asgi"]["version"] = "changed"
            scope["headers"].append((b"changed", b""))
            scope.setdefault("extensions", {})["changed"] = {}
            scope["state"] = "changed"
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            for _ in range(3):
                await client.response()
            assert seen[0][1:] == seen[1][1:] == seen[2][1:]
            assert [scope["path"] for scope, *_ in seen] == ["/"] * 3
            assert all("state" not in scope for scope, *_ in seen)

    run(main())


def lifespan_app(state: dict[str, Any], on_startup: Any, on_request: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(state)
            on_startup()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        on_request(scope)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    return app


def test_lifespan_state_is_copied_for_each_request(run: Any, serve: Any) -> None:
    async def main() -> None:
        shared: list[int] = []
        seen: list[Any] = []

        def on_request(scope: Any) -> None:
            seen.append(dict(scope["state"]))
            scope["state"]["own"] = True
            scope["state"]["shared"].append(len(seen))

        async with serve(lifespan_app({"shared": shared}, lambda: None, on_request)) as served:
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            for _ in range(3):
                await client.response()
            assert all(set(state) == {"shared"} for state in seen)
            assert shared == [1, 2, 3]  # the copy is shallow (ASGI lifespan state)

    run(main())


def test_each_request_has_its_own_context_copied_from_that_of_startup(run: Any, serve: Any) -> None:
    """On one connection: pipelined, kept alive, with a large body. What one sets, the next does not see."""

    async def main() -> None:
        from_startup: contextvars.ContextVar[str] = contextvars.ContextVar("from_startup")
        of_request: contextvars.ContextVar[str] = contextvars.ContextVar("of_request")
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                from_startup.set("startup")
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            before = of_request.get(None)
            of_request.set(scope["path"])
            more = True
            while more:
                more = (await receive())["more_body"]
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "more_body": True})
            await asyncio.sleep(0)
            await send({"type": "http.response.body"})
            seen.append((from_startup.get(None), before, of_request.get()))

        of_request.set("of the program that embeds the server")
        async with serve(app) as served:
            client = await served.connect()
            await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.response()
            await client.response()
            await client.send(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.response()
            await client.send(b"POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
            await client.response()
            await client.send(b"GET /5 HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.response()
            await served.until(lambda: len(seen) == 5)
            outside = "of the program that embeds the server"  # startup ran in a copy of its context
            assert seen == [("startup", outside, f"/{number}") for number in range(1, 6)]
            assert from_startup.get(None) is None

    run(main())
