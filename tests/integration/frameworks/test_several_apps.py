"""Several apps in one server: FastAPI, Flask and plain ASGI, asked over HTTP/1.1, HTTP/2 and WebSocket by clients of other authors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from wsproto.events import TextMessage

from cavalcade.apps.wsgi import environ
from cavalcade.config.sources import resolve
from cavalcade.errors import AppLoadError, LifespanFailed
from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.certificates import Authority
from cavalcade.testing.websocket_http2 import H2WebSocket
from cavalcade.worker.server import Server

EXAMPLE = Path(__file__).parents[3] / "examples" / "several_apps"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The example, and files beside its apps."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "a.txt").write_text("a file")
    believed = ("--forwarded-headers", "x-forwarded-for,x-forwarded-proto,x-forwarded-host,x-forwarded-prefix")
    options = ("--preload", "--request-id", "make", f"--static=/files={folder}", *believed)
    with LiveServer("", *options, cwd=EXAMPLE) as server:
        yield server


@pytest.fixture(scope="module", params=["1.1", "2"])
def client(request: pytest.FixtureRequest, site: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, http1=request.param == "1.1", http2=request.param == "2") as client:
        yield client


def test_the_longest_prefix_wins_and_each_app_sees_its_own_part_of_the_path(site: LiveServer, client: httpx.Client) -> None:
    api = {"app": "api", "root_path": "/api", "path": "/api/hello", "owner": "api", "url": f"{site.url}/api/hello"}
    assert client.get("/api/hello").json() == api
    shop = {"app": "shop", "script_name": "", "path": "/hello", "url": f"{site.url}/hello"}
    assert client.get("/hello").json() == shop
    assert client.get("/apixyz").headers["content-type"].startswith("text/html")  # Flask's 404, not FastAPI's
    assert client.post("/echo", content=b"x" * 300_000).content == b"x" * 300_000
    assert client.get("/files/a.txt").text == "a file"


def test_the_host_chooses_before_the_path_does(client: httpx.Client) -> None:
    for host in ("events.localhost", "EVENTS.localhost.:80", "a.b.events.localhost"):
        assert client.get("/api/hello", headers={"host": host}).text == "events /api/hello\n"
    assert client.get("/hello", headers={"host": "xevents.localhost"}).json()["app"] == "shop"


def test_what_a_proxy_says_reaches_every_app(client: httpx.Client) -> None:
    said = {"x-forwarded-prefix": "/shops", "x-forwarded-proto": "https", "x-forwarded-host": "example.org"}
    shop = client.get("/hello", headers=said).json()
    assert (shop["script_name"], shop["path"], shop["url"]) == ("/shops", "/hello", "https://example.org/shops/hello")
    api = client.get("/api/hello", headers=said).json()
    assert (api["root_path"], api["path"], api["url"]) == ("/shops/api", "/shops/api/hello", "https://example.org/shops/api/hello")
    assert client.get("/x", headers={"x-forwarded-host": "events.localhost"}).text == "events /x\n"


def test_a_websocket_reaches_its_app_and_none_that_is_wsgi(site: LiveServer) -> None:
    async def talk() -> None:
        url = site.url.replace("http", "ws")
        async with websockets.connect(f"{url}/api/ws") as socket_:
            await socket_.send("hi")
            assert await socket_.recv() == "api /api hi"
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            async with websockets.connect("ws://sub.events.localhost/any", sock=sock) as socket_:
                await socket_.send("hi")
                assert await socket_.recv() == "events hi"
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await websockets.connect(f"{url}/hello")
        assert refused.value.response.status_code == 501

    asyncio.run(talk())


def test_over_tls_every_app_is_reached_by_every_protocol_with_and_without_threads(tmp_path: Path) -> None:
    """Flask runs in the loop itself here, between two apps that have lifespans."""
    tables = (EXAMPLE / "cavalcade.toml").read_text().replace("threads = 4", "threads = 0")
    (tmp_path / "cavalcade.toml").write_text(tables)
    signer = Authority(tmp_path)
    with LiveServer("", "--app-dir", str(EXAMPLE), *signer.pair.flags, cwd=tmp_path) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        for two in (False, True):
            with httpx.Client(base_url=url, http1=not two, http2=two, verify=signer.client()) as client:
                assert client.get("/api/hello").json()["url"] == f"{url}/api/hello"
                shop = client.get("/hello").json()
                assert (shop["app"], shop["url"]) == ("shop", f"{url}/hello")
                assert client.post("/echo", content=b"x" * 300_000).content == b"x" * 300_000
                assert client.get("/x", headers={"host": "events.localhost"}).text == "events /x\n"

        async def talk() -> None:
            async with websockets.connect(url.replace("http", "ws") + "/api/ws", ssl=signer.client()) as socket_:
                await socket_.send("hi")
                assert await socket_.recv() == "api /api hi"

        asyncio.run(talk())
        for authority, path, answer in (("", "/api/ws", "api /api hi"), ("sub.events.localhost", "/any", "events hi")):
            with H2WebSocket(url, path, signer.client(), authority=authority) as chat:
                chat.send(TextMessage("hi"))
                assert chat.receive().data == answer
        with H2WebSocket(url, "/hello", signer.client()) as refused:
            assert refused.status == "501"
        server.stop()
        life = ["api starts", "events starts", "events stops", "api stops"]
        assert [words for line in server.access_lines for words in life if words in line] == life


def test_what_a_wsgi_app_is_told_of_its_connection_is_made_once_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    template = environ.template

    def counted(*arguments: Any) -> dict[str, Any]:
        made.append(arguments[2])
        return template(*arguments)

    monkeypatch.setattr(environ, "template", counted)
    toml = 'request_id = "make"\n[[app]]\napp = "MODULE:one"\n[[app]]\napp = "MODULE:told"\npath = "/wsgi"\n'

    async def live() -> None:
        async with server_of(tmp_path, "several_once", toml) as server:
            ports, names = set(), set()
            for _ in range(2):
                async with httpx.AsyncClient(base_url=server.url) as client:
                    for _ in range(3):
                        answer = await client.get("/wsgi/x")
                        prefix, port, name = answer.text.split()
                        assert (prefix, name) == ("/wsgi", answer.headers["x-request-id"])
                        ports.add(port)
                        names.add(name)
            assert (len(ports), len(names), len(made)) == (2, 6, 2)

    asyncio.run(live())


SOURCE = """
SAID = []
def app_of(name, fails=""):
    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": f"{name} {scope['state']} {scope['root_path']}".encode()})
            return
        for phase in ("startup", "shutdown"):
            await receive()
            SAID.append(f"{name} {phase}")
            scope["state"]["owner"] = name
            if fails == phase:
                await send({"type": f"lifespan.{phase}.failed", "message": "no database"})
                return
            await send({"type": f"lifespan.{phase}.complete"})
    return app
one, two, three = app_of("one"), app_of("two"), app_of("three")
stays, bad = app_of("stays", "shutdown"), app_of("bad", "startup")
def told(environ, start_response):
    start_response("200 OK", [])
    environ["REMOTE_PORT"], port = "mine", environ["REMOTE_PORT"]
    return [f"{environ['SCRIPT_NAME']} {port} {environ['cavalcade.request_id']}".encode()]
def flask(environ, start_response):
    start_response("200 OK", [])
    return [f"flask {environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]
"""


def server_of(folder: Path, module: str, toml: str) -> Server:
    write_app(folder, SOURCE, module)
    (folder / "cavalcade.toml").write_text(toml.replace("MODULE", module))
    cli = {"bind": ["127.0.0.1:0"], "app_dir": str(folder), "access_log": False}
    settings = resolve(cli, cwd=folder, environ={}).settings
    return Server(settings.app, settings=settings)


def said(module: str) -> list[str]:
    return list(__import__(module).SAID)


def test_startups_go_in_order_shutdowns_in_reverse_and_one_that_fails_keeps_none_from_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toml = """
        mount_path = "/site"
        [[app]]
        app = "MODULE:one"
        path = "/one"
        [[app]]
        app = "MODULE:stays"
        path = "/one/stays"
        [[app]]
        app = "MODULE:flask"
        path = "/wsgi"
        [[app]]
        app = "MODULE:three"
        host = "three.example.org"
    """

    async def live() -> None:
        async with server_of(tmp_path, "several_living", toml) as server, httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/site/one/x")).text == "one {'owner': 'one'} /site/one"
            assert (await client.get("/site/one/stays")).text == "stays {'owner': 'stays'} /site/one/stays"
            assert (await client.get("/site/wsgi/x")).text == "flask /site/wsgi|/x"
            lost = await client.get("/site/onexyz")
            assert (lost.status_code, lost.headers["cavalcade-reason"]) == (404, "no-app")
            assert lost.text == "Not Found: no app is mounted at this path\n"
            assert (await client.get("/one")).status_code == 404
            there = {"host": "three.example.org"}
            assert (await client.get("/site/other", headers=there)).text == "three {'owner': 'three'} /site"
            assert (await client.get("/site/one", headers=there)).text.startswith("three")

    asyncio.run(live())
    assert said("several_living") == [
        *("one startup", "stays startup", "three startup"),
        *("three shutdown", "stays shutdown", "one shutdown"),
    ]
    assert "app[2] (several_living:stays at /one/stays)'s shutdown failed: no database" in caplog.text


def test_a_host_that_no_app_is_for_is_misdirected(tmp_path: Path) -> None:
    async def live() -> None:
        toml = '[[app]]\napp = "MODULE:one"\nhost = "*.example.org"\n'
        async with server_of(tmp_path, "several_hosts", toml) as server, httpx.AsyncClient(base_url=server.url) as client:
            lost = await client.get("/", headers={"host": "example.org"})
            assert (lost.status_code, lost.text) == (421, "Misdirected Request: no app is mounted for this host\n")

    asyncio.run(live())


def test_an_app_that_does_not_start_is_named_and_those_before_it_are_shut_down(tmp_path: Path) -> None:
    toml = '[[app]]\napp = "MODULE:one"\n[[app]]\napp = "MODULE:bad"\npath = "/bad"\n[[app]]\napp = "MODULE:three"\npath = "/three"\n'
    server = server_of(tmp_path, "several_failing", toml)
    with pytest.raises(LifespanFailed, match=r"app\[2\] \(several_failing:bad at /bad\)'s startup failed: no database"):
        asyncio.run(server.start())
    assert said("several_failing") == ["one startup", "bad startup", "one shutdown"]


def test_an_app_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    server = server_of(tmp_path, "several_missing", '[[app]]\napp = "MODULE:one"\n[[app]]\napp = "MODULE:nowt"\npath = "/b"\n')
    with pytest.raises(AppLoadError, match=r'app\[2\] \(several_missing:nowt at /b\): .* has no attribute "nowt"'):
        asyncio.run(server.start())
