"""An app under a path prefix: the table of who takes the prefix away and who is told of it, for real frameworks.

What must be right in each case: the route is found, the URLs and redirects that the framework makes lead back to where the client came
from, and with FastAPI the docs find their schema.
"""

from __future__ import annotations

import json
from typing import Any

import django
import fastapi
import flask
import pytest
import starlette.applications
import starlette.requests
import starlette.responses
import starlette.routing
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path as django_path
from django.urls import reverse

# Where the client sees the app; what the server is told; the prefix and headers that a request has when it comes through the proxy.
SETUPS: dict[str, tuple[str, dict[str, Any], str, list[str]]] = {
    "the proxy strips, --root-path": ("/api", {"root_path": "/api"}, "", []),
    "the proxy strips, --root-path with slashes": ("/api", {"root_path": "//api/"}, "", []),
    "the proxy strips and says so": ("/api", {"forwarded_headers": "x-forwarded-prefix"}, "", ["X-Forwarded-Prefix: /api/"]),
    "the proxy keeps, --mount-path": ("/api", {"mount_path": "/api"}, "/api", []),
    "one strips, the next keeps": ("/a/b", {"root_path": "/a", "mount_path": "/b"}, "/b", []),
}


@pytest.fixture
def loop_name() -> str:
    """What is tested here is the same on each."""
    return "asyncio"


def make_starlette() -> Any:
    async def hello(request: starlette.requests.Request) -> starlette.responses.JSONResponse:
        return starlette.responses.JSONResponse({"url": str(request.url_for("hello")), "here": str(request.url)})

    routes = [starlette.routing.Route("/hello", hello), starlette.routing.Route("/slash/", hello, name="slash")]
    return starlette.applications.Starlette(routes=routes)


def make_fastapi() -> Any:
    app = fastapi.FastAPI()

    @app.get("/hello")
    def hello(request: fastapi.Request) -> dict[str, str]:
        return {"url": str(request.url_for("hello")), "here": str(request.url)}

    @app.get("/slash/")
    def slash() -> None:
        pass

    return app


def make_flask() -> Any:
    app = flask.Flask(__name__)

    @app.get("/hello")
    def hello() -> dict[str, str]:
        return {"url": flask.url_for("hello", _external=True), "here": flask.request.url}

    @app.get("/slash/")
    def slash() -> str:
        return ""

    return app


def django_hello(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"url": request.build_absolute_uri(reverse("hello")), "here": request.build_absolute_uri()})


urlpatterns = [django_path("hello", django_hello, name="hello"), django_path("slash/", django_hello)]


def set_up_django() -> None:
    if not settings.configured:
        settings.configure(
            SECRET_KEY="x",
            ALLOWED_HOSTS=["example.com"],
            ROOT_URLCONF=__name__,
            MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        )
        django.setup()


def make_django_asgi() -> Any:
    set_up_django()
    return get_asgi_application()


def make_django_wsgi() -> Any:
    set_up_django()
    return get_wsgi_application()


MAKERS = {
    "Starlette": make_starlette,
    "FastAPI": make_fastapi,
    "Django over ASGI": make_django_asgi,
    "Django over WSGI": make_django_wsgi,
    "Flask": make_flask,
}


def request(target: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: example.com", *lines, "", ""]).encode()


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("framework", MAKERS)
def test_routes_urls_and_redirects_are_right_under_a_prefix(run: Any, serve: Any, framework: str, setup: str) -> None:
    prefix, options, kept, lines = SETUPS[setup]

    async def main() -> None:
        async with serve(MAKERS[framework](), **options) as served:
            hello = await served.ask(request(f"{kept}/hello?q", *lines))
            assert hello.status == 200, hello
            assert json.loads(hello.body) == {"url": f"http://example.com{prefix}/hello", "here": f"http://example.com{prefix}/hello?q"}
            moved = await served.ask(request(f"{kept}/slash", *lines))
            assert moved.status in (301, 307, 308)
            location = moved.header("location") or ""
            assert location.removeprefix("http://example.com") == f"{prefix}/slash/"
            missing = await served.ask(request(f"{kept}/nothing", *lines))
            assert missing.status == 404
            assert missing.header("cavalcade-reason") is None  # it is the framework's

    run(main())


@pytest.mark.parametrize("framework", MAKERS)
def test_without_a_prefix_nothing_is_added(run: Any, serve: Any, framework: str) -> None:
    async def main() -> None:
        async with serve(MAKERS[framework]()) as served:
            hello = await served.ask(request("/hello"))
            assert json.loads(hello.body)["url"] == "http://example.com/hello"

    run(main())


@pytest.mark.parametrize("framework", MAKERS)
def test_outside_of_the_mount_path_the_server_answers_and_says_why(run: Any, serve: Any, framework: str) -> None:
    async def main() -> None:
        async with serve(MAKERS[framework](), mount_path="/api", root_path="/x") as served:
            for target in ("/hello", "/", "/apis/hello", "/ap", "/x/api/hello"):
                answer = await served.ask(request(target))
                assert (answer.status, answer.header("cavalcade-reason")) == (404, "outside-mount-path"), target
                assert answer.body == b"Not Found: what is served here is below /api/\n"
            assert (await served.ask(request("/api/hello"))).status == 200
            await served.until(lambda: len(served.access) == 6)

    run(main())


# FastAPI(root_path=...) says the same as --root-path, but only to the app: it is no cure for a server that does not know, because the
# path that the server gives does not have the prefix then, and redirects lead nowhere.
@pytest.mark.parametrize("in_app", ["", "/api"])
@pytest.mark.parametrize(
    ("options", "target", "right"),
    [
        ({}, "/hello", False),  # the proxy strips
        ({}, "/api/hello", False),  # the proxy keeps
        ({"root_path": "/api"}, "/hello", True),
        ({"root_path": "/api"}, "/api/hello", False),
        ({"mount_path": "/api"}, "/api/hello", True),
        ({"mount_path": "/api"}, "/hello", False),
    ],
)
def test_the_table_of_fastapis_own_root_path(run: Any, serve: Any, options: Any, target: str, in_app: str, right: bool) -> None:
    async def main() -> None:
        app = make_fastapi()
        app.root_path = in_app  # the argument of that name is deprecated
        async with serve(app, **options) as served:
            hello = await served.ask(request(target))
            moved = await served.ask(request(target.replace("hello", "slash")))
            schema = await served.ask(request(target.replace("hello", "openapi.json")))
            docs = await served.ask(request(target.replace("hello", "docs")))
            there = "http://example.com/api/hello"
            found = hello.status == 200 and json.loads(hello.body) == {"url": there, "here": there}
            leads_back = moved.header("location") == "http://example.com/api/slash/"
            documented = schema.status == 200 and json.loads(schema.body).get("servers") == [{"url": "/api"}]
            shown = docs.status == 200 and b"'/api/openapi.json'" in docs.body
            if in_app and not options and target == "/api/hello":
                # The one case that needs no option of ours: the app knows, and the path has the prefix.
                assert (found, leads_back, documented, shown) == (True, True, True, True)
            else:
                assert (found and leads_back and documented and shown) is right, (hello, moved, schema)

    run(main())


@pytest.mark.parametrize("kind", ["root_path", "mount_path"])
def test_a_websocket_route_is_found_under_a_prefix(run: Any, serve: Any, kind: str) -> None:
    async def main() -> None:
        app = fastapi.FastAPI()

        @app.websocket("/ws")
        async def ws(socket: fastapi.WebSocket) -> None:
            await socket.accept(headers=[(b"x-url", str(socket.url).encode())])
            await socket.close()

        async with serve(app, **{kind: "/api"}) as served:
            upgrade = ["Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            wire = await served.connect()
            await wire.send(request("/ws" if kind == "root_path" else "/api/ws", *upgrade, key))
            answer = await wire.head()
            assert (answer.status, answer.header("x-url")) == (101, "ws://example.com/api/ws")
            if kind == "mount_path":
                outside = await served.ask(request("/ws", *upgrade, key))
                assert outside.status == 403

    run(main())
