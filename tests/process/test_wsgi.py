"""WSGI apps while the server changes under them: traffic of all kinds, and nothing is lost."""

from __future__ import annotations

import signal
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.traffic import GENTLE, Traffic

# Answers as the app of `Traffic` does: which code, which process, what it was given.
APP = """
import hashlib, os

VERSION = "{version}"


def app(environ, start_response):
    said = ""
    if environ["REQUEST_METHOD"] == "POST":
        digest, size = hashlib.sha256(), 0
        while piece := environ["wsgi.input"].read(10_000):
            digest.update(piece)
            size += len(piece)
        said = f"{{size}} {{digest.hexdigest()}} "
    body = f"{{VERSION}} {{os.getpid()}} {{said}}{{environ['QUERY_STRING']}}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

pytestmark = pytest.mark.slow


def deploy(folder: Path, version: str) -> None:
    scratch = folder / ".new"
    scratch.write_text(APP.format(version=version), "utf-8")
    scratch.replace(folder / "main.py")


@pytest.mark.parametrize("threads", [0, 3])
def test_reload_recycling_scaling_and_stop_lose_nothing(tmp_path: Path, threads: int) -> None:
    deploy(tmp_path, "v1")
    options = ("--workers", "2", "--threads", str(threads), "--no-access-log", "--max-requests", "700", "--max-requests-jitter", "50")
    with LiveServer("main:app", *options, cwd=tmp_path) as server:
        with Traffic(server.address, GENTLE) as traffic:
            for version in ("v2", "v3"):
                traffic.wait_requests(traffic.progress.requests + 500, timeout_s=30.0)
                deploy(tmp_path, version)
                mark = server.mark()
                server.signal(signal.SIGHUP)
                server.wait_line("reloaded in", 30.0, after=mark)
            server.signal(signal.SIGTTIN)
            traffic.wait_requests(traffic.progress.requests + 2000, timeout_s=30.0)
            server.signal(signal.SIGTTOU)
            traffic.wait_requests(traffic.progress.requests + 500, timeout_s=30.0)
        report = traffic.report
        assert report.failed == 0, report.explain()
        assert {*report.kinds} == {"kept", "pausing", "closing", "uploads", "late"}
        assert {*report.versions} == {"v1", "v2", "v3"}
        assert len(report.pids) > 6  # two of each version, and those that came by scaling and recycling


def test_what_is_in_flight_at_a_stop_is_finished(tmp_path: Path) -> None:
    """A request whose body is still arriving and one that is in its thread, both are answered after SIGTERM."""
    (tmp_path / "main.py").write_text(
        """
import pathlib, time

HERE = pathlib.Path(__file__).parent


def app(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        (HERE / "held").touch()
        while not (HERE / "finish").exists():
            time.sleep(0.01)
    body = environ["wsgi.input"].read() or b"finished"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
""",
        "utf-8",
    )
    with LiveServer("main:app", "--threads", "2", cwd=tmp_path) as server:
        address = server.address
        with closing(HTTPConnection(*address, timeout=20)) as held, closing(HTTPConnection(*address, timeout=20)) as uploading:
            uploading.putrequest("POST", "/")
            uploading.putheader("Content-Length", "10")
            uploading.endheaders(b"12345")
            held.request("GET", "/held")
            while not (tmp_path / "held").exists():  # the app is at work on it
                pass
            mark = server.mark()
            server.signal(signal.SIGTERM)
            server.wait_line("SIGTERM", after=mark)
            uploading.send(b"67890")
            assert uploading.getresponse().read() == b"1234567890"
            (tmp_path / "finish").touch()
            assert held.getresponse().read() == b"finished"
            server.wait_exit(0)
