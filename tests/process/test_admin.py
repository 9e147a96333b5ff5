"""What a running server tells, and the commands that ask it, with real workers: where each request stands, also while the loop is
blocked."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from cavalcade.cli.instances import Choice, Instance, find
from cavalcade.cli.main import main
from cavalcade.supervisor import runtime_dir
from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S, Load, get

APP = """
import asyncio
import logging
import time
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware

HERE = Path(__file__).parent
app = FastAPI()


class Middleware(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


app.add_middleware(Middleware)


async def wait_until_done(name):
    while not (HERE / name).exists():
        await asyncio.sleep(0.01)  # awaits


@app.get("/")
async def index():
    return "here"


@app.get("/await/{name}")
async def awaiting(name):
    await wait_until_done(name)


@app.get("/thread/{name}")
def threaded(name):
    while not (HERE / name).exists(): time.sleep(0.01)  # in a thread


@app.get("/block/{name}")
async def blocking(name):
    while not (HERE / name).exists(): time.sleep(0.01)  # blocks


@app.get("/fail")
async def fail():
    raise RuntimeError("no database")
"""

WSGI = """
import time
from pathlib import Path

HERE = Path(__file__).parent


def app(environ, start_response):
    while not (HERE / environ["PATH_INFO"].strip("/")).exists(): time.sleep(0.01)  # in the pool
    start_response("204 No Content", [])
    return []
"""


TOKEN = "a-token-of-this-test-only"


def line_of(source: str, comment: str) -> int:
    return next(number for number, line in enumerate(source.splitlines(), 1) if line.endswith(f"# {comment}"))


class Site:
    """A server, its control socket, and requests that last until they are released."""

    def __init__(self, folder: Path, server: LiveServer) -> None:
        self.folder = folder
        self.server = server
        self._pool = ThreadPoolExecutor(8)
        self._count = 0

    @property
    def instance(self) -> Instance:
        return find(Choice(str(self.folder / "c.sock")), {})

    def command(self, *words: str) -> int:
        return main([*words, "--control", str(self.folder / "c.sock")])

    def worker(self) -> int:
        """The number of the one that serves; one that was just replaced may still be there."""
        (worker,) = (worker for worker in self.instance.status.workers if worker.phase == "ready")
        return worker.id

    def inspect(self) -> Any:
        return json.loads(self.instance.get("workers", str(self.worker()), "stack"))

    @contextmanager
    def held(self, path: str) -> Iterator[Callable[[Callable[[Any], bool]], Any]]:
        """A request to this path, which ends with the block; gives a way to inspect the worker until something is so."""
        self._count += 1
        name = f"release-{self._count}"
        asked: Future[str] = self._pool.submit(get, self.server, f"{path}{name}")

        def until(true: Callable[[Any], bool]) -> Any:
            deadline = monotonic() + WAIT_S
            while monotonic() < deadline:
                found = self.inspect()
                if true(found):
                    return found
            raise AssertionError(f"it never came true: {found}")

        try:
            yield until
        finally:
            (self.folder / name).touch()
            asked.exception(WAIT_S)
            # The client has its answer before the app has returned from it.
            deadline = monotonic() + WAIT_S
            while any(worker.in_flight for worker in self.instance.status.workers):
                assert monotonic() < deadline


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("admin")
    write_app(folder, APP)
    options = ("--control", "c.sock", "--stall-kill", "0", "--admin", "127.0.0.1:0", "--admin-write")
    with LiveServer("main:app", *options, cwd=folder, env={"CAVALCADE_ADMIN_TOKEN": TOKEN}) as server:
        yield Site(folder, server)


# -- inspect ---------------------------------------------------------------------------------------------------------------


def test_inspect_names_the_line_that_awaits_behind_a_middleware_and_costs_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with site.held("/await/") as until:
        found = until(lambda found: bool(found.get("requests") and "wait_until_done" in found["requests"][0].get("where", "")))
        assert site.command("inspect", str(site.worker())) == 0
    line = line_of(APP, "awaits")
    (request,) = found["requests"]
    assert request["where"].endswith(f"main.py:{line} wait_until_done()")
    assert (request["method"], request["route"], request["state"]) == ("GET", "/await/{name}", "no response yet")
    assert request["target"].startswith("/await/release-")
    assert request["client"].startswith("127.0.0.1:")
    assert 0 <= request["age_s"] < WAIT_S
    own = [frame["at"].rpartition(" ")[2] for frame in request["stack"] if frame.get("own")]
    assert own == ["dispatch()", "awaiting()", "wait_until_done()"]
    assert "blocked" not in found
    text = capsys.readouterr().out
    assert f"main.py:{line} wait_until_done()\n" in text
    assert "asyncio/tasks.py" in text
    assert " of libraries)" in text


def test_inspect_follows_a_sync_endpoint_into_its_thread(site: Site) -> None:
    with site.held("/thread/") as until:
        found = until(lambda found: bool(found.get("requests") and "threaded" in found["requests"][0].get("where", "")))
    assert found["requests"][0]["where"].endswith(f"main.py:{line_of(APP, 'in a thread')} threaded()")
    assert found.get("threads", []) == []


def test_inspect_answers_for_a_blocked_loop_with_the_stack_of_its_thread(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with site.held("/block/") as until:
        found = until(lambda found: bool(found.get("blocked") and found.get("stack")))
        assert site.command("inspect", str(site.worker())) == 0
        status = site.instance.status
        assert status.ready
    assert found["where"].endswith(f"main.py:{line_of(APP, 'blocks')} blocking()")
    assert found["stack"][-1]["at"] == found["where"].rpartition("/")[2]
    assert found["note"].startswith("Its event loop is blocked")
    assert [(each["target"].split("-")[0], each["state"]) for each in found["requests"]] == [("/block/release", "blocks the loop")]
    assert found["requests"][0]["client"].startswith("127.0.0.1:")
    assert found["requests"][0]["age_s"] > 0.5  # nobody is asked from outside before that
    assert "Its event loop is blocked" in capsys.readouterr().out
    # The line about the stall, when it is over, is right all the same.
    site.server.wait_line(rf"was blocked for \d+ ms in \S*main\.py:{line_of(APP, 'blocks')} blocking\(\), GET /block/", WAIT_S)


def test_inspect_says_that_a_worker_is_stopped(site: Site) -> None:
    (pid,) = site.server.worker_pids
    os.kill(pid, signal.SIGSTOP)
    try:
        assert site.inspect()["note"].startswith("The process is stopped (SIGSTOP)")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_inspect_of_nobody_is_refused(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert site.command("inspect", "999") == 2
    assert "There is no worker 999." in capfd.readouterr().err
    assert site.command("inspect", "999", "--json") == 2
    assert json.loads(capfd.readouterr().err)["message"] == "There is no worker 999."


def test_inspect_of_a_wsgi_app_shows_its_threads(tmp_path: Path) -> None:
    write_app(tmp_path, WSGI)
    with LiveServer("main:app", "--control", "c.sock", "--threads", "2", "--no-access-log", cwd=tmp_path) as server:
        site = Site(tmp_path, server)
        with site.held("/") as until:  # answered 204, which the client there takes for a failure
            found = until(lambda found: bool(found.get("requests") and found["requests"][0].get("where")))
    (request,) = found["requests"]
    assert request["where"].endswith(f"main.py:{line_of(WSGI, 'in the pool')} app()")
    assert request["kind"] == "wsgi"
    assert request["age_s"] >= 0  # without an access log too
    assert request["client"].startswith("127.0.0.1:")


# -- the log ---------------------------------------------------------------------------------------------------------------


def test_logs_has_the_lines_of_the_supervisor_and_the_workers(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="500"):
        get(site.server, "/fail")
    site.server.wait_line("GET /fail: the app failed")
    # It goes over the worker's channel before the answer to whatever is asked of the worker after it.
    site.inspect()
    assert site.command("logs", "--level", "error") == 0
    text = capsys.readouterr().out
    assert "GET /fail: the app failed" in text
    assert "RuntimeError: no database" in text
    assert site.command("logs", "--worker", "0", "--json") == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert entries[0]["text"].startswith("cavalcade ")
    assert {entry["pid"] for entry in entries} == {site.server.pid}
    assert [entry["event"] for entry in entries if entry["text"].startswith("ready in ")] == ["start"]
    assert site.command("logs", "--lines", "0") == 0
    assert capsys.readouterr().out == ""


def test_a_change_of_the_log_level_holds_in_workers_that_are_there_and_in_those_that_come(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("cavalcade").level
    try:
        assert site.command("log-level", "error") == 0
        get(site.server, "/?old-worker")
        assert site.command("recycle", "all") == 0
        get(site.server, "/?new-worker")
        assert json.loads(site.instance.get("config"))["log_level"] == {"value": "error", "origin": "changed while it runs"}
        assert site.command("log-level", "info", "--json") == 0
        get(site.server, "/?again")
        site.server.wait_line(r"/\?again", stream="stdout")
        assert not any("-worker" in line for line in site.server.access_lines)
        said = capsys.readouterr().out
        assert '"text": "The log level is info."' in said
        assert site.command("log-level", "loud") == 2
    finally:
        logging.getLogger("cavalcade").setLevel(level)


# -- in and out of rotation --------------------------------------------------------------------------------------------------


def test_drain_makes_it_not_ready_and_serves_on_until_it_is_undone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def connection_field() -> str | None:
        connection = http.client.HTTPConnection(*site.server.address, timeout=WAIT_S)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        connection.close()
        return response.getheader("connection")

    assert site.command("health", "--json") == 0
    assert '"text": "serving, 1 of 1 workers ready"' in capsys.readouterr().out
    assert site.command("drain") == 0
    assert site.command("drain") == 0
    assert "It is out of rotation already." in capsys.readouterr().out
    assert site.command("health") == 1
    assert "main:app is not ready: draining, 1 of 1 workers ready." in capsys.readouterr().err
    site.inspect()  # what was ordered before this has been heard
    assert connection_field() == "close"
    assert site.command("recycle", "all") == 0  # the successor says so too
    site.inspect()
    assert connection_field() == "close"
    assert site.command("drain", "--undo") == 0
    site.inspect()
    assert connection_field() is None
    assert site.command("health") == 0


# -- hostile requests --------------------------------------------------------------------------------------------------------

HOSTILE = [
    (b"GARBAGE\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    (b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    (b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"POST /reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    (b"POST /scale?workers=99 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guess\r\n\r\n", 401),
    (b"POST /stop HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode(), 421),
    (b"POST /workers/7777/recycle HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode(), 404),
]


def test_hostile_requests_are_refused_and_the_traffic_never_notices(site: Site) -> None:
    host, port = site.server.wait_line(r"admin on http://([\d.]+):(\d+)/").groups()
    load = Load(site.server)
    load.start()
    silent = []
    try:
        for _ in range(200):  # more than it keeps
            silent.append(socket.create_connection((host, int(port)), WAIT_S))
            silent[-1].sendall(b"GET /status HTTP/1.1\r\nHost: ")
        for each in silent:
            with each, contextlib.suppress(OSError):  # those that were too many were reset
                each.shutdown(socket.SHUT_WR)
                assert each.recv(1) == b""  # it has let go of this one: there is room for others
        for sent, status in HOSTILE * 5:
            with socket.create_connection((host, int(port)), WAIT_S) as client:
                try:
                    client.sendall(sent)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # refused before all of it was there
                assert client.recv(100).startswith(b"HTTP/1.1 %d " % status)
        assert site.instance.status.ready
        assert [worker.phase for worker in site.instance.status.workers] == ["ready"]
    finally:
        load.stop()
    assert load.failures == []
    assert len(load.answers) > 0


# -- all servers -------------------------------------------------------------------------------------------------------------


def test_ps_lists_servers_and_names_what_is_left_of_dead_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (tmp_path / "x").mkdir()
    write_app(tmp_path / "x", WSGI)
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [runtime / "cavalcade"])
    assert main(["ps"]) == 0
    assert capsys.readouterr().out == "No server of this user is running.\n"
    with LiveServer("main:app", "--name", "shop", cwd=tmp_path / "x", env={"XDG_RUNTIME_DIR": str(runtime)}) as server:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(runtime / "cavalcade" / "dead-1.sock"))
        assert main(["ps"]) == 0
        captured = capsys.readouterr()
        assert "shop (main:app)" in captured.out
        assert str(server.pid) in captured.out
        assert "dead-1.sock does not answer (Connection refused)" in captured.err
        assert main(["ps", "--json"]) == 0
        assert [each["pid"] for each in json.loads(capsys.readouterr().out)] == [server.pid]
        assert main(["config", "show", "--running", "--name", "shop"]) == 0
        assert "--name" in capsys.readouterr().out
        # Whoever follows the log is told of the end, and ends well.
        followed: list[tuple[str, bytes]] = []
        instance = find(Choice(pid=server.pid), {})
        reader = threading.Thread(target=lambda: followed.extend(instance.follow("logs", follow=1)))
        reader.start()
        assert main(["stop", "--name", "shop", "--json"]) == 0
        reader.join(WAIT_S)
        assert followed[-1][0] == "bye"
        assert any(b'"text":"stopped after ' in data for _, data in followed)
        server.wait_exit(0)
