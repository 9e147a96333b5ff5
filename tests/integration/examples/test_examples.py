"""Every example over every protocol that it can be asked in, with clients by other authors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from cavalcade.testing import LiveServer
from cavalcade.testing.certificates import Authority
from cavalcade.testing.websocket_http2 import H2WebSocket

EXAMPLES = Path(__file__).parents[3] / "examples"
MIB = 1 << 20

# How curl and nghttp are told; what the app sees is asked of the app.
PROTOCOLS = {"http": "1.1", "https": "1.1", "h2c": "2", "h2": "2"}
CURL = {"http": "--http1.1", "https": "--http1.1", "h2c": "--http2-prior-knowledge", "h2": "--http2"}


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Site:
    """One example, served in the clear and over TLS by the same configuration but for the certificate."""

    def __init__(self, folder: Path, plain: LiveServer, secure: LiveServer, signer: Authority) -> None:
        self.folder = folder
        self._plain = plain
        self._secure = secure
        self._signer = signer

    def url(self, protocol: str, path: str = "/") -> str:
        """Over TLS by the name in the certificate."""
        url = self._secure.url.replace("127.0.0.1", "localhost") if self.tls(protocol) else self._plain.url
        return url + path

    def tls(self, protocol: str) -> ssl.SSLContext | None:
        return self._signer.client() if protocol in ("https", "h2") else None

    def client(self, protocol: str) -> httpx.Client:
        two = PROTOCOLS[protocol] == "2"
        return httpx.Client(http1=not two, http2=two, verify=self.tls(protocol) or False)

    def curl(self, protocol: str, *arguments: str) -> bytes:
        command = ["curl", "-sS", "--fail", "--max-time", "20", "--cacert", str(self._signer.file), CURL[protocol], *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def nghttp(self, program: str, *arguments: str) -> bytes:
        return subprocess.run([program, "--no-verify-peer", "-t", "20", *arguments], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, loop: str, signer: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example that the test names with `pytest.mark.parametrize("site", [...], indirect=True)`."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "large").write_bytes(os.urandom(3 * MIB))
    options = ("--loop", loop, "--no-access-log")
    pair = ("--ssl-certfile", str(signer.pair.certfile), "--ssl-keyfile", str(signer.pair.keyfile))
    where: dict[str, Any] = {"cwd": EXAMPLES / request.param, "env": {"FOLDER": str(folder)}}
    with LiveServer("main:app", *options, **where) as plain, LiveServer("main:app", *options, *pair, **where) as secure:
        yield Site(folder, plain, secure, signer)


def example(name: str) -> Any:
    return pytest.mark.parametrize("site", [name], indirect=True)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@needs_curl
@example("upload")
@every_protocol
def test_upload_by_curl(site: Site, protocol: str, tmp_path: Path) -> None:
    body = os.urandom(3 * MIB)
    (tmp_path / "body").write_bytes(body)
    answer = json.loads(site.curl(protocol, "-T", str(tmp_path / "body"), site.url(protocol)))
    assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "http": PROTOCOLS[protocol]}


@example("upload")
@every_protocol
def test_upload_by_httpx(site: Site, protocol: str) -> None:
    body = os.urandom(MIB)
    with site.client(protocol) as client:
        for sent in (body, iter([body[:1000], body[1000:]])):  # with a length, and without
            answer = client.post(site.url(protocol), content=sent).json()
            assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "http": PROTOCOLS[protocol]}


@example("upload")
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_upload_by_nghttp(site: Site, protocol: str, nghttp: str) -> None:
    body = (site.folder / "large").read_bytes()
    answer = json.loads(site.nghttp(nghttp, "-d", str(site.folder / "large"), site.url(protocol)))
    assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "http": "2"}


@example("sse")
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_events_by_nghttp(site: Site, protocol: str, nghttp: str) -> None:
    assert site.nghttp(nghttp, site.url(protocol, "/?count=3")).count(b"data: tick") == 3


@example("sse")
@every_protocol
def test_events_come_one_by_one(site: Site, protocol: str) -> None:
    with site.client(protocol) as client, client.stream("GET", site.url(protocol, "/?count=1000")) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        # The stream goes on for 100 s: what is seen here has been sent event by event.
        assert [next(lines) for _ in range(6)] == ["id: 0", "data: tick 0", "", "id: 1", "data: tick 1", ""]


@needs_curl
@example("sse")
@every_protocol
def test_events_by_curl(site: Site, protocol: str) -> None:
    assert site.curl(protocol, "-N", site.url(protocol, "/?count=3")).count(b"data: tick") == 3


@needs_curl
@example("files")
@every_protocol
def test_a_file_by_curl(site: Site, protocol: str) -> None:
    large = (site.folder / "large").read_bytes()
    assert site.curl(protocol, site.url(protocol, "/large")) == large
    assert site.curl(protocol, "-r", "1000-1999", site.url(protocol, "/large")) == large[1000:2000]


@example("files")
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_a_file_by_nghttp(site: Site, protocol: str, nghttp: str) -> None:
    large = (site.folder / "large").read_bytes()
    assert site.nghttp(nghttp, site.url(protocol, "/large")) == large


@example("files")
@every_protocol
def test_many_files_at_once_by_httpx(site: Site, protocol: str) -> None:
    async def ask() -> list[httpx.Response]:
        two = PROTOCOLS[protocol] == "2"
        async with httpx.AsyncClient(http1=not two, http2=two, verify=site.tls(protocol) or False) as client:
            return await asyncio.gather(*[client.get(site.url(protocol, "/large")) for _ in range(8)])

    large = (site.folder / "large").read_bytes()
    assert all(answer.content == large for answer in asyncio.run(ask()))


@needs_curl
@example("websocket_echo")
@every_protocol
def test_posted_bytes_come_back_to_curl(site: Site, protocol: str) -> None:
    large = site.folder / "large"
    assert site.curl(protocol, "--data-binary", f"@{large}", site.url(protocol)) == large.read_bytes()


@example("websocket_echo")
@every_protocol
def test_posted_bytes_come_back(site: Site, protocol: str) -> None:
    with site.client(protocol) as client:
        assert client.post(site.url(protocol), content=b"x" * MIB).content == b"x" * MIB


@example("websocket_echo")
@pytest.mark.parametrize("protocol", ["http", "https"])
def test_echo_by_websockets(site: Site, protocol: str) -> None:
    async def talk() -> None:
        async with websockets.connect(site.url(protocol).replace("http", "ws"), ssl=site.tls(protocol), max_size=None) as socket:
            for message in ("text", b"bytes", "é" * 100_000, os.urandom(MIB)):
                await socket.send(message)
                assert await socket.recv() == message

    asyncio.run(talk())


@example("websocket_echo")
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_echo_over_http2_by_wsproto(site: Site, protocol: str) -> None:
    socket = H2WebSocket(site.url(protocol, ""), "/", site.tls(protocol))
    assert socket.status == "200"
    socket.send(TextMessage("text"))
    assert socket.receive().data == "text"
    socket.send(BytesMessage(b"bytes"))
    assert socket.receive().data == b"bytes"
    socket.send(CloseConnection(4000, "that was all"))
    answer = socket.receive()
    assert isinstance(answer, CloseConnection)
    assert answer.code == 4000
    socket.close()


@example("websocket_chat")
def test_a_chat_between_all_protocols(site: Site) -> None:
    """In each room there is one who came over HTTP/1.1 and one who came over HTTP/2."""

    async def talk(one: str, two: str) -> None:
        async with websockets.connect(site.url(one, "/chat?name=ann").replace("http", "ws"), ssl=site.tls(one)) as ann:
            assert await ann.recv() == "ann is here"
            bob = await asyncio.to_thread(H2WebSocket, site.url(two, ""), "/chat?name=bob", site.tls(two))
            assert await ann.recv() == bob.receive().data == "bob is here"
            bob.send(TextMessage("hello"))
            assert await ann.recv() == bob.receive().data == "bob: hello"
            bob.close()
            assert await ann.recv() == "bob has left"

    asyncio.run(talk("http", "h2c"))
    asyncio.run(talk("https", "h2"))
