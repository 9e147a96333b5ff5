"""Slow and hostile clients: a crowd of each kind, over every protocol at once, against real servers on both loops.

What each of them gets is in the tables here, and in docs/limits.md. Meanwhile a client that means well goes on being answered, the
workers' memory stays where it was, and the log has a line with the reason and a count.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from h2.errors import ErrorCodes

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.certificates import Authority
from cavalcade.testing.http2 import GET, POST, Peer, make

WAIT_S = 30.0
MIB = 1 << 20
CROWD = 6  # of a kind, on each protocol and loop
GROWTH_BYTES = 48 * MIB  # of a worker: what 10 MB from each of a crowd, or what they do not read, would be well over

APP = """
import json

left = {"upload": 0, "download": 0, "waiting": 0, "websocket": 0}


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while scope["path"] == "/download":
                await send({"type": "websocket.send", "bytes": b"x" * 60_000})
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            left["websocket"] += 1
        return
    body = b"ok"
    if scope["path"] == "/left":
        body = json.dumps(left).encode()
    if scope["path"] == "/waiting":
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        left["waiting"] += 1
        return
    if scope["path"] == "/upload":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while scope["method"] == "POST":
        message = await receive()
        if message["type"] == "http.disconnect":
            left["upload"] += 1
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while scope["path"] == "/download":
            await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})
    except OSError:
        left["download"] += 1
        raise
    await send({"type": "http.response.body", "body": body})
"""

# Whoever means well, and the first part of what a crowd does, must be faster than these; the head comes first.
TIMEOUTS = [
    "--head-timeout",
    "1.5",
    "--body-timeout",
    "0.3",
    "--write-timeout",
    "0.3",
    "--ws-ping-interval",
    "0.4",
    "--ws-ping-timeout",
    "0.4",
]


@dataclass
class Site:
    """One server."""

    server: LiveServer
    signer: Authority | None
    proxied: int = 0  # the port that wants a PROXY protocol header
    protocols: tuple[str, ...] = ()
    marked: int = 0

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def scheme(self) -> str:
        return "http" if self.signer is None else "https"

    def tls(self, *protocols: str) -> ssl.SSLContext | None:
        """What a client needs, if it speaks these."""
        if self.signer is None:
            return None
        context = self.signer.client()
        context.set_alpn_protocols(list(protocols))
        return context

    def rss(self) -> int:
        (worker,) = self.server.worker_pids
        return int(psutil.Process(worker).memory_info().rss)

    def warnings(self) -> list[str]:
        """What was logged since the last mark, but for what is about a machine that is short of CPUs and about no client."""
        lines = [line for line in self.server.lines[self.marked :] if " warning " in line or " error " in line]
        return [line for line in lines if "starved of CPU" not in line and "the machine stood still" not in line]

    def told(self) -> int:
        """How many clients the lines stand for."""
        return sum(1 + int((re.search(r"; (\d+) more like it", line) or [0, 0])[1]) for line in self.warnings())


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    """Whose patience is short."""
    with serving(tmp_path_factory, TIMEOUTS) as made:
        yield made


@pytest.fixture(scope="module")
def patient_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    """As they come, for what is no matter of time."""
    with serving(tmp_path_factory, []) as made:
        yield made


@contextlib.contextmanager
def serving(tmp_path_factory: pytest.TempPathFactory, timeouts: list[str]) -> Iterator[list[Site]]:
    """In the clear and over TLS, on each loop."""
    folder = tmp_path_factory.mktemp("app")
    write_app(folder, APP)
    signer = Authority(tmp_path_factory.mktemp("tls"))
    options = ["main:app", "--lifespan", "off", "--no-access-log", "--control", "off", *timeouts]
    with contextlib.ExitStack() as stack:
        made = []
        for loop in ("asyncio", "uvloop"):
            binds = ["--loop", loop, "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0?proxy_protocol=on"]
            plain = stack.enter_context(LiveServer(*options, *binds, cwd=folder))
            proxied = int(plain.wait_line(r"listening on http://127\.0\.0\.1:(\d+) \(PROXY protocol\)")[1])
            made.append(Site(plain, None, proxied, ("http", "h2c", "ws")))
            secure = stack.enter_context(LiveServer(*options, "--loop", loop, *signer.pair.flags, cwd=folder))
            made.append(Site(secure, signer, 0, ("https", "h2", "wss")))
        yield made


class Client:
    """One connection. It reads what comes, unless it was made to hold back."""

    def __init__(self, protocol: str, site: Site) -> None:
        self.protocol = protocol
        self.site = site
        self.peer = Peer(refuse_pings=True)
        self.data = b""
        self.ended = ""
        self.writer: Any = None

    @property
    def is_h2(self) -> bool:
        return self.protocol in ("h2", "h2c")

    @property
    def is_ws(self) -> bool:
        return self.protocol in ("ws", "wss")

    async def connect(self, *, tls: bool = True, port: int = 0, holds_back: bool = False) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if holds_back:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port or self.site.port))
        how: dict[str, Any] = {}
        if tls and self.site.signer is not None:
            how = {"ssl": self.site.tls("h2" if self.is_h2 else "http/1.1"), "server_hostname": "localhost"}
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=1024 if holds_back else 65536, **how)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def begin(self, path: str = "/", body: int = 0, **how: Any) -> None:
        """Connect and ask for something: the head of a request with `body` bytes to come, an open WebSocket."""
        await self.connect(**how)
        if self.is_h2:
            fields = [(name, path.encode() if name == b":path" else value) for name, value in (POST if body else GET)]
            self.send(self.peer.start() + self.peer.request(1, fields, end=not body))
        elif self.is_ws:
            self.send(b"GET %b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % path.encode())
            self.send(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
            assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        else:
            length = b"Content-Length: %d\r\n" % body if body else b""
            self.send(b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"POST" if body else b"GET", path.encode(), length))

    async def fill(self) -> bool:
        """Read once; False at the end."""
        try:
            data = await asyncio.wait_for(self.reader.read(65536), WAIT_S)
        except (ConnectionError, ssl.SSLError):
            self.ended = "reset"
            return False
        if not data:
            self.ended = "closed"
            return False
        if self.is_h2:
            self.peer.take(data)
        else:
            self.data += data
        return True

    async def answer_begun(self) -> None:
        while not (self.peer.answer(1).body if self.is_h2 else self.data):
            assert await self.fill()

    async def outcome(self) -> str:
        """What the server says at last, and does."""
        while await self.fill():
            if self.is_h2 and self.peer.answer(1).over:
                break  # its stream is over, others would go on
        if self.ended == "reset":
            return self.ended
        if self.is_h2:
            answer = self.peer.answer(1)
            if self.peer.goaways:
                return f"GOAWAY {ErrorCodes(self.peer.goaways[-1][1]).name}"
            if answer.reset is not None:
                return f"RST_STREAM {ErrorCodes(answer.reset).name}"
            return str(answer.status) if answer.ended else self.ended
        if self.data.startswith(b"HTTP/1.1 "):
            return self.data[9:12].decode()
        if self.is_ws and self.data:
            return str(struct.unpack("!H", self.data[self.data.rindex(b"\x88") :][2:4])[0])
        return self.ended

    async def dripping(self, data: bytes) -> str:
        """The outcome for who sends one byte now and then."""

        async def drip() -> None:
            for byte in data:
                if self.ended or self.writer.transport.is_closing():
                    return
                self.send(bytes([byte]))
                await asyncio.sleep(0.05)

        task = asyncio.ensure_future(drip())
        try:
            return await self.outcome()
        finally:
            task.cancel()

    def leave(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


# -- those who mean well ---------------------------------------------------------------------------------------------------


@dataclass
class Bystanders:
    """One real client for each server: it asks all the time, and looks how much memory the worker has."""

    sites: list[Site]
    answered: dict[int, int] = field(default_factory=dict)
    peak: dict[int, int] = field(default_factory=dict)

    async def ask(self, site: Site) -> None:
        async with httpx.AsyncClient(http1=True, http2=site.signer is not None, verify=site.tls() or False) as client:
            while True:
                answer = await client.get(f"{site.scheme}://localhost:{site.port}/", timeout=WAIT_S)
                assert (answer.status_code, answer.content) == (200, b"ok")
                self.answered[site.port] = self.answered.get(site.port, 0) + 1
                self.peak[site.port] = max(self.peak.get(site.port, 0), site.rss())
                await asyncio.sleep(0.02)  # there are four of them in this process, and it has other things to do


@contextlib.asynccontextmanager
async def bystanders(sites: list[Site]) -> AsyncIterator[None]:
    """Nobody else notices: all that these ask is answered, in memory that does not grow."""
    crowd = Bystanders(sites)
    before = {site.port: site.rss() for site in sites}
    tasks = [asyncio.ensure_future(crowd.ask(site)) for site in sites]
    try:
        await until(lambda: len(crowd.answered) == len(sites) or any(task.done() for task in tasks))
        yield
        seen = dict(crowd.answered)
        for site in sites:  # and after it
            await until(lambda site=site: crowd.answered.get(site.port, 0) > seen.get(site.port, 0) or any(task.done() for task in tasks))
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
    for site in sites:
        assert crowd.peak[site.port] - before[site.port] < GROWTH_BYTES, site.server.argv


async def until(fact: Callable[[], Any]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(WAIT_S):
        while not fact():
            await asyncio.sleep(0.01)


async def left(site: Site) -> dict[str, int]:
    async with httpx.AsyncClient(verify=site.tls() or False) as client:
        said: dict[str, int] = (await client.get(f"{site.scheme}://localhost:{site.port}/left")).json()
        return said


# -- the kinds -------------------------------------------------------------------------------------------------------------


async def silent(client: Client) -> str:
    await client.connect()
    return await client.outcome()


async def slow_greeting(client: Client) -> str:
    """What comes before HTTP, where something does."""
    if client.site.proxied:
        await client.connect(port=client.site.proxied)
        await client.dripping(b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 44" + b"3" * 60)
    else:
        await client.connect(tls=False)
        await client.dripping(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 60)  # a ClientHello of 512 bytes
    return "closed" if client.ended else "open"  # what it still sends is answered by the kernel with a reset


async def slow_head(client: Client) -> str:
    await client.connect()
    if client.is_h2:
        client.send(client.peer.start())
        return await client.dripping(client.peer.request(1, [*GET, (b"x", b"y" * 1000)]))
    return await client.dripping(b"GET / HTTP/1.1\r\n" + b"Upgrade: websocket\r\n" * client.is_ws + b"X: " + b"y" * 1000)


async def slow_body(client: Client) -> str:
    await client.begin(body=1000)
    if client.is_ws:
        client.send(b"\x82\xfe\x03\xe8mask12345")  # the beginning of a message, and no answer to a ping
    else:
        client.send(client.peer.data(1, b"x") if client.is_h2 else b"x")
    return await client.outcome()


async def slow_reader(client: Client) -> str:
    await client.begin("/download", holds_back=not client.is_h2)
    if client.is_h2:
        return await client.outcome()  # it opens no window
    await until(lambda: client.site.told() >= CROWD * 3)
    return await client.outcome()


async def half_closing(client: Client) -> str:
    await client.begin("/waiting")
    await asyncio.sleep(0)
    client.writer.write_eof()
    return await client.outcome()


async def leaving_in_upload(client: Client) -> str:
    await client.begin("/upload", body=100_000)
    client.send(client.peer.data(1, b"x" * 1000) if client.is_h2 else b"x" * 1000)
    await client.answer_begun()
    client.leave()
    return "left"


async def leaving_in_download(client: Client) -> str:
    await client.begin("/download")
    await client.answer_begun()
    client.leave()
    return "left"


async def garbage(client: Client) -> str:
    if client.is_ws:
        await client.begin()
    else:
        await client.connect()
        if client.is_h2:
            client.send(client.peer.start())
    client.send(b"\xff\x00 nothing that anybody would speak \xff\xff" * 10)
    return await client.outcome()


async def huge_head(client: Client) -> str:
    """10 MB of fields, for as long as they are taken."""
    await client.connect()
    if client.is_h2:
        client.send(client.peer.start() + make(1, 0, 1, b"\x82" * 16384))
        more = make(9, 0, 1, b"\x40\x81x\x7f\xbe\x7e" + b"y" * 16370)
    else:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        more = b"X: " + b"y" * 16379 + b"\r\n"
    reading = asyncio.ensure_future(client.outcome())
    with contextlib.suppress(ConnectionError):
        for _ in range(10 * MIB // 16384):
            if reading.done() or client.writer.transport.is_closing():
                break
            client.send(more)
            await client.writer.drain()
    return await reading


Kind = Callable[[Client], Awaitable[str]]

ALL = ("http", "https", "h2c", "h2", "ws", "wss")
IN_THE_CLEAR = ("http", "h2c", "ws")


def over(outcome: str, *protocols: str, h2: str = "", ws: str = "") -> dict[str, str]:
    """The outcome over some protocols; over HTTP/2 and for a WebSocket it may be another."""
    there = dict.fromkeys(protocols or ALL, outcome)
    return {name: h2 if name in ("h2", "h2c") and h2 else ws if name in ("ws", "wss") and ws else said for name, said in there.items()}


# What is done, what each gets, and the reason in the log: none where nothing has gone wrong.
KINDS: dict[str, tuple[Kind, dict[str, str], str]] = {
    "silent": (silent, over("closed") | {"h2": "GOAWAY NO_ERROR"}, ""),
    "slow greeting": (
        slow_greeting,
        over("closed", "http", "https"),
        r"no (whole TLS handshake|PROXY protocol header) within 1\.5 s \(head_timeout\)",
    ),
    "slow head": (slow_head, over("408", h2="GOAWAY NO_ERROR"), r"took longer than 1\.5 s \(head_timeout\)"),
    "slow body": (slow_body, over("408", ws="1011"), r"no byte of the request body for 0\.3 s \(body_timeout\)|ws_ping_timeout"),
    "slow reader": (slow_reader, over("reset", h2="RST_STREAM CANCEL"), r"its response for 0\.3 s \(write_timeout\)|ws_ping_timeout"),
    "half-close": (half_closing, over("closed", *IN_THE_CLEAR), ""),
    "leaves in an upload": (leaving_in_upload, over("left", "http", "https", "h2c", "h2"), ""),
    "leaves in a download": (leaving_in_download, over("left"), ""),
    "garbage": (garbage, over("400", h2="GOAWAY FRAME_SIZE_ERROR", ws="1002"), r"bad request|FRAME_SIZE_ERROR|close code 1002"),
    "10 MB of fields": (huge_head, over("431", h2="GOAWAY ENHANCE_YOUR_CALM"), r"limit_request_head|ENHANCE_YOUR_CALM"),
}


HURRIED = [kind for kind in KINDS if kind.startswith(("silent", "slow"))]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", HURRIED)
def test_what_a_crowd_of_slow_ones_gets_and_that_nobody_else_notices(sites: list[Site], kind: str) -> None:
    crowd_it(sites, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in HURRIED])
def test_what_a_crowd_of_them_gets_and_that_nobody_else_notices(patient_sites: list[Site], kind: str) -> None:
    crowd_it(patient_sites, kind)


def crowd_it(sites: list[Site], kind: str) -> None:
    """A crowd of that kind over every protocol."""
    act, outcomes, reason = KINDS[kind]

    async def main() -> None:
        for site in sites:
            site.marked = len(site.server.lines)
        before = [await left(site) for site in sites]
        crowd = [Client(protocol, site) for site in sites for protocol in site.protocols if protocol in outcomes for _ in range(CROWD)]
        told = {site.port: sum(client.site is site for client in crowd) for site in sites}
        try:
            async with bystanders(sites):
                got = await asyncio.gather(*(act(client) for client in crowd))
                for site in sites:
                    if reason:
                        await until(lambda site=site: site.told() >= told[site.port])
        finally:
            for client in crowd:
                client.leave()
        assert sorted({(client.protocol, said) for client, said in zip(crowd, got, strict=True)}) == sorted(outcomes.items())
        for site in sites:
            lines = site.warnings()
            assert site.told() == (told[site.port] if reason else 0), lines
            assert len(lines) <= 6
            assert all(re.search(reason, line) for line in lines), lines
        for site, was in zip(sites, before, strict=True):
            await app_was_told(site, was, kind)

    asyncio.run(main())


async def app_was_told(site: Site, before: dict[str, int], kind: str) -> None:
    """An app whose client is gone hears of it, each time."""
    crowds = {
        "half-close": {"waiting": 2, "websocket": 1} if site.signer is None else {},
        "slow body": {"websocket": 1},
        "slow reader": {"download": 2, "websocket": 1},
        "leaves in an upload": {"upload": 2},
        "leaves in a download": {"download": 2, "websocket": 1},
        "garbage": {"websocket": 1},
    }
    wanted = {name: before[name] + CROWD * more for name, more in crowds.get(kind, {}).items()}
    async with asyncio.timeout(WAIT_S):
        while not wanted.items() <= (await left(site)).items():
            await asyncio.sleep(0.02)


# -- many ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_slow_clients_are_a_handful_of_lines_and_a_count(sites: list[Site]) -> None:
    *_, site = (site for site in sites if site.signer is None)
    site.marked = len(site.server.lines)
    crowd = [socket.create_connection(("127.0.0.1", site.port), WAIT_S) for _ in range(1000)]
    for client in crowd:
        client.sendall(b"GET /" if client.fileno() % 2 else b"GET / HTTP/1.1\r\nX: y")
    answers = []
    for client in crowd:
        answers.append(client.recv(65536)[:13])
        client.close()
    assert answers == [b"HTTP/1.1 408 "] * 1000
    asyncio.run(until(lambda: site.told() >= 1000))
    lines = site.warnings()
    assert site.told() == 1000
    assert len(lines) <= 6
    assert all("longer than 1.5 s (head_timeout) (answered 408)" in line for line in lines)


IDLE = 10_000
IDLE_BYTES = 24 * 1024  # of a worker's memory, for a connection that waits for its next request, pure Python


@pytest.mark.slow
def test_ten_thousand_idle_connections(tmp_path: Path) -> None:
    """They cost little, are in nobody's way, and are let go of at a stop."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may have {hard} descriptors here (ulimit -Hn), and this takes {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed) if soft != resource.RLIM_INFINITY else soft, hard))
    try:
        write_app(tmp_path, APP)
        # For as long as a busy machine takes to open so many; and that it had no CPU for a while is no news of them.
        options = ("--lifespan", "off", "--no-access-log", "--keep-alive", "10m", "--stall-warn", "3")
        with LiveServer("main:app", *options, cwd=tmp_path) as server, contextlib.ExitStack() as stack:
            site = Site(server, None)
            asyncio.run(left(site))
            before = site.rss()
            crowd = []
            for _ in range(IDLE):
                client = stack.enter_context(socket.create_connection(server.address, WAIT_S))
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
                crowd.append(client)
            assert (site.rss() - before) / IDLE < IDLE_BYTES
            assert asyncio.run(left(site))["waiting"] == 0
            for client in crowd[:: IDLE // 100]:  # any of them may go on whenever it likes
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            server.stop()
            assert [client.recv(1) for client in crowd[:: IDLE // 100]] == [b""] * 100
            assert site.warnings() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
