"""The examples wherever they can be reached: on TCP, a unix socket and a socket of systemd, directly and behind nginx and HAProxy, over
http, https and HTTP/2, by the client and by the proxy. curl, websockets, and h2 with wsproto are the clients; each example is its own app
as it stands, and one server has them all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from wsproto.events import BytesMessage, TextMessage

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.certificates import Authority
from cavalcade.testing.clients import free_port
from cavalcade.testing.websocket_http2 import H2WebSocket

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_S = 20.0

ALL = f"""
import importlib.util
from starlette.applications import Starlette
from starlette.routing import Mount

def example(name):
    spec = importlib.util.spec_from_file_location(name, f"{EXAMPLES}/{{name}}/main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Mount("/" + name, module.app)

app = Starlette(routes=[example(name) for name in ("websocket_echo", "websocket_chat", "upload", "sse", "files")])
"""

CURL = {"http": ["--http1.1"], "https": ["--http1.1"], "h2c": ["--http2-prior-knowledge"], "h2": ["--http2"]}
HTTP_VERSION = {"http": "1.1", "https": "1.1", "h2c": "2", "h2": "2"}


class Way:
    """How the examples are reached, over one protocol: by an address, or the path of a socket."""

    def __init__(self, protocol: str, signer: Authority, *, port: int = 0, path: str = "", version: str = "") -> None:
        self.protocol = protocol
        self.signer = signer
        self.path = path
        self.host = f"localhost:{port}" if port else "localhost"
        self.secure = protocol in ("https", "h2")
        self.version = version or HTTP_VERSION[protocol]  # what the app is asked in

    def url(self, scheme: str, path: str) -> str:
        return f"{scheme}{'s' * self.secure}://{self.host}{path}"

    def curl(self, path: str, *arguments: str) -> bytes:
        command = ["curl", "-sS", "--fail", "--max-time", "20", "--cacert", str(self.signer.file), *CURL[self.protocol], *arguments]
        command += ["--unix-socket", self.path] if self.path else []
        done = subprocess.run([*command, self.url("http", path)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def websocket(self, path: str) -> Any:
        # Not websockets.sync: it reads in one thread and writes in another, which one object of OpenSSL does not bear. Where tickets of
        # TLS 1.3 come in while the handshake goes out, now and then the handshake is never sent.
        tls: ssl.SSLContext | None = self.signer.client() if self.secure else None
        if self.path:
            return unix_connect(self.path, self.url("ws", path), ssl=tls, open_timeout=WAIT_S)
        return connect(self.url("ws", path), ssl=tls, proxy=None, open_timeout=WAIT_S)

    def h2_websocket(self, path: str) -> H2WebSocket:
        return H2WebSocket(self.url("http", ""), path, self.signer.client() if self.secure else None, unix=self.path)


def use_all(way: Way, folder: Path, *, by_nginx: bool = False) -> None:
    """Each example does what it is there for."""
    large = folder / "large"
    body = large.read_bytes()
    told = json.loads(way.curl("/upload/", "-T", str(large)))
    assert told == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "http": way.version}
    assert way.curl("/files/large") == body
    assert way.curl("/files/large", "-r", "1000-1999") == body[1000:2000]
    assert way.curl("/sse/?count=3", "-N").count(b"data: tick") == 3
    # It answers while it reads. Once nginx has passed the head of an answer on it sends nothing more of the request
    # (`ngx_http_upstream_send_request_handler`), so what does not fit into the socket's buffer by then never comes; docs/deploy.md says so.
    posted = folder / "small" if by_nginx else large
    assert way.curl("/websocket_echo/", "--data-binary", f"@{posted}") == posted.read_bytes()
    if way.protocol in ("http", "https"):
        asyncio.run(use_websockets(way))
    elif not by_nginx:  # which knows no WebSocket over HTTP/2
        use_h2_websockets(way)


async def use_websockets(way: Way) -> None:
    async with way.websocket("/websocket_echo/") as echo:
        for message in ("text", b"bytes", "é" * 50_000, bytes(1 << 20)):
            await echo.send(message)
            assert await asyncio.wait_for(echo.recv(), WAIT_S) == message
    async with way.websocket("/websocket_chat/chat?name=ann") as ann, asyncio.timeout(WAIT_S):
        assert await ann.recv() == "ann is here"
        async with way.websocket("/websocket_chat/chat?name=bob") as bob:
            assert await ann.recv() == await bob.recv() == "bob is here"
            await bob.send("hello")
            assert await ann.recv() == await bob.recv() == "bob: hello"
        assert await ann.recv() == "bob has left"


def use_h2_websockets(way: Way) -> None:
    with way.h2_websocket("/websocket_echo/") as echo:
        assert echo.status == "200"
        echo.send(TextMessage("text"))
        assert echo.receive().data == "text"
        echo.send(BytesMessage(b"bytes"))
        assert echo.receive().data == b"bytes"
    with way.h2_websocket("/websocket_chat/chat?name=ann") as ann:
        assert ann.receive().data == "ann is here"
        with way.h2_websocket("/websocket_chat/chat?name=bob") as bob:
            assert ann.receive().data == bob.receive().data == "bob is here"
            bob.send(TextMessage("hello"))
            assert ann.receive().data == bob.receive().data == "bob: hello"
        assert ann.receive().data == "bob has left"


class Site:
    """The examples on one kind of socket: where they are in the clear, and where over TLS; a port, or a path."""

    def __init__(self, plain: int | str, secure: int | str) -> None:
        self.plain = plain
        self.secure = secure

    def way(self, protocol: str, signer: Authority) -> Way:
        where = self.secure if protocol in ("https", "h2") else self.plain
        return Way(protocol, signer, path=where) if isinstance(where, str) else Way(protocol, signer, port=where)

    def upstream(self, protocol: str = "http") -> str:
        where = self.secure if protocol in ("https", "h2") else self.plain
        return f"unix:{where}" if isinstance(where, str) else f"127.0.0.1:{where}"


@pytest.fixture(scope="module", autouse=True)
def curl(need: Callable[[str], str]) -> None:
    """The client of every test here."""
    need("curl")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_app(folder, ALL)
    (folder / "large").write_bytes(os.urandom(1 << 20))
    (folder / "small").write_bytes(os.urandom(50_000))
    return folder


def by_systemd(folder: Path, port: int, *options: str) -> LiveServer:
    """A server that systemd-socket-activate starts with the first client."""
    server = LiveServer("main:app", "--bind", "unused", *options, cwd=folder, env={"FOLDER": str(folder)}, ready=False)
    words = [word for word in server.argv[1:] if word not in ("--bind", "unused")]
    passed = [word for name in ("PATH", "PYTHONPATH", "FOLDER") for word in ("-E", name)]
    server.argv = ["systemd-socket-activate", *passed, "-l", f"127.0.0.1:{port}", sys.executable, *words]
    return server


@pytest.fixture(scope="module", params=["tcp", "unix", "systemd"])
def site(request: pytest.FixtureRequest, folder: Path, signer: Authority) -> Iterator[Site]:
    options = ("--no-access-log", "--control", "off")
    pair = signer.pair.flags
    if request.param == "systemd":
        if shutil.which("systemd-socket-activate") is None:
            pytest.skip("systemd-socket-activate is not installed here: the system's package systemd")
        ports = free_port(), free_port()
        with by_systemd(folder, ports[0], *options) as plain, by_systemd(folder, ports[1], *options, *pair) as secure:
            for server in (plain, secure):
                server.wait_line("Listening on", WAIT_S)
            there = Site(*ports)
            for server, protocol in ((plain, "http"), (secure, "https")):
                there.way(protocol, signer).curl("/sse/?count=1")  # the first client, which makes systemd start it
                server.wait_line("socket activation: 1 inherited from the service manager")
            yield there
        return
    paths = [str(folder / f"{kind}.sock") for kind in ("plain", "secure")]
    binds = [f"unix:{path}" for path in paths] if request.param == "unix" else ["127.0.0.1:0"] * 2
    where: dict[str, Any] = {"cwd": folder, "env": {"FOLDER": str(folder)}}
    with (
        LiveServer("main:app", "--bind", binds[0], *options, **where) as first,
        LiveServer("main:app", "--bind", binds[1], *options, *pair, **where) as second,
    ):
        yield Site(*paths) if request.param == "unix" else Site(first.port, second.port)


@pytest.mark.slow
def test_directly(site: Site, folder: Path, signer: Authority) -> None:
    for protocol in CURL:
        use_all(site.way(protocol, signer), folder)


NGINX_TLS = """
server {{
    listen 127.0.0.1:{https};
    client_max_body_size 0;
    location / {{
        proxy_pass https://{upstream};
        proxy_ssl_trusted_certificate {authority};
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Connection $http_connection;
        proxy_set_header Upgrade $http_upgrade;
    }}
}}
"""
HAPROXY_OTHERS = """
listen over_https
    bind 127.0.0.1:{https}
    server one {address} ssl ca-file {authority} verifyhost localhost
listen over_h2
    bind 127.0.0.1:{h2}
    server one {address} ssl ca-file {authority} verifyhost localhost alpn h2
listen over_h2c
    bind 127.0.0.1:{h2c}
    server one {plain} proto h2
"""


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_behind_a_proxy(
    site: Site, folder: Path, signer: Authority, proxy: str, need: Callable[[str], str], front: Callable[..., Any]
) -> None:
    """What `cavalcade deploy` prints, with its line on HTTPS followed; and what speaks other protocols to the server, which it does not
    print: https, and for HAProxy HTTP/2."""
    need(proxy)
    port, pair = free_port(), signer.pair
    others = {protocol: free_port() for protocol in ("https", "h2", "h2c")}
    values = {"authority": signer.file, **others}
    pem = folder / "both.pem"
    pem.write_text(pair.keyfile.read_text() + pair.certfile.read_text())

    def edit(text: str) -> str:
        if proxy == "nginx":
            https = f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {pair.certfile}; ssl_certificate_key {pair.keyfile};"
            more = NGINX_TLS.format(upstream=site.upstream("https"), **values)
        else:
            https = f"bind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1"
            address, plain = (site.upstream(protocol).removeprefix("unix:") for protocol in ("https", "http"))
            more = HAPROXY_OTHERS.format(address=address, plain=plain, **values)
        text, found = re.subn("# HTTPS: .*", lambda _: https, text)
        assert found == 1, text
        return text + more

    by_nginx = proxy == "nginx"
    with front(proxy, [site.upstream()], first="/sse/?count=1", edit=edit) as entry:
        use_all(Way("http", signer, port=entry.address[1]), folder, by_nginx=by_nginx)
        for protocol in ("https", "h2"):
            use_all(Way(protocol, signer, port=port, version="1.1"), folder, by_nginx=by_nginx)
        for protocol in ("https",) if by_nginx else others:
            use_all(Way("http", signer, port=others[protocol], version=HTTP_VERSION[protocol]), folder, by_nginx=by_nginx)
