"""The drills of `make faults` in a short form: traffic of all kinds while the server changes under it, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import processes, wait_gone
from cavalcade.testing.traffic import Report, Traffic, deploy

RELOAD_S = 30.0
SHARE = 500  # requests between two things that are done to the server

pytestmark = pytest.mark.slow

Serve = Callable[..., LiveServer]


@pytest.fixture
def serve(tmp_path: Path, loop_name: str) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*options: str, workers: int = 2) -> LiveServer:
            deploy(tmp_path)
            argv = ("--workers", str(workers), "--loop", loop_name, "--no-access-log", *options)
            return stack.enter_context(LiveServer("main:app", *argv, cwd=tmp_path))

        yield start


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    folder = Path(f"/proc/{pid}/fd")
    if not folder.exists():
        pytest.skip("there is no /proc here")
    return sum(os.readlink(entry).startswith("socket:") for entry in folder.iterdir())


def more(traffic: Traffic, requests: int = SHARE) -> None:
    """Let the traffic go on for so many requests."""
    traffic.wait_requests(traffic.progress.requests + requests, timeout_s=30.0)


def assert_nothing_lost(report: Report) -> None:
    assert report.failed == 0, report.explain()
    assert {*report.kinds} == {"kept", "pausing", "closing", "uploads", "late"}


def test_reloads_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with Traffic(server.address) as traffic:
        for number in range(2, 5):
            more(traffic)
            deploy(tmp_path, f"v{number}")
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("reloaded in", RELOAD_S, after=mark)
        more(traffic)
    assert_nothing_lost(traffic.report)
    assert {*traffic.report.versions} == {"v1", "v2", "v3", "v4"}


def test_recycling_loses_nothing(serve: Serve) -> None:
    server = serve("--max-requests", "300", "--max-requests-jitter", "30")
    with Traffic(server.address) as traffic:
        more(traffic, 4000)
    assert_nothing_lost(traffic.report)
    assert len(traffic.report.pids) > 4


def test_a_broken_release_loses_nothing_and_the_old_one_serves_on(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with Traffic(server.address) as traffic:
        for version, fault in (("v2", "import"), ("v3", "startup")):
            more(traffic)
            deploy(tmp_path, version, fault)
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("Reload refused", RELOAD_S, after=mark)
        more(traffic)
        deploy(tmp_path, "v4")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line("reloaded in", RELOAD_S, after=mark)
        more(traffic)
    assert_nothing_lost(traffic.report)
    assert {*traffic.report.versions} == {"v1", "v4"}


def test_scaling_loses_nothing(serve: Serve) -> None:
    server = serve(workers=2)
    with Traffic(server.address) as traffic:
        for signum, done in ((signal.SIGTTIN, r"ready after"), (signal.SIGTTOU, r"has left")):
            for _ in range(4):
                mark = server.mark()
                server.signal(signum)
                server.wait_line(done, RELOAD_S, after=mark)
            more(traffic)
        assert len(server.worker_pids) == 2
    assert_nothing_lost(traffic.report)


def test_a_stop_answers_whoever_was_accepted(serve: Serve) -> None:
    server = serve()
    traffic = Traffic(server.address)
    traffic.start()
    try:
        more(traffic)
        mark = server.mark()
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: stopping", after=mark)
        server.wait_exit(0)
    finally:
        report = traffic.stop()
    assert [note for note in report.failures if note.what != "refused"] == [], report.explain()


def test_a_server_whose_supervisor_is_killed_answers_whoever_was_accepted(serve: Serve, tmp_path: Path) -> None:
    server = serve("--graceful-timeout", "10s")
    traffic = Traffic(server.address)
    traffic.start()
    try:
        more(traffic)
        family = processes(server)
        server.signal(signal.SIGKILL)
        wait_gone(family, 11.0)
        server.wait_exit(-signal.SIGKILL)
    finally:
        report = traffic.stop()
    assert [note for note in report.failures if note.what != "refused"] == [], report.explain()


def test_a_killed_worker_takes_only_its_own_connections_along(serve: Serve) -> None:
    server = serve(workers=2)
    doomed = psutil.Process(server.worker_pids[0])
    without_clients = sockets_of(doomed.pid)
    with Traffic(server.address) as traffic:
        more(traffic)
        mark = server.mark()
        doomed.suspend()  # from here on it has the connections that it has
        while doomed.status() != psutil.STATUS_STOPPED:
            pass
        connections = sockets_of(doomed.pid) - without_clients
        doomed.kill()
        server.wait_line("ready after", RELOAD_S, after=mark)
        more(traffic)
    report = traffic.report
    assert report.failed <= connections, report.explain()
    assert {*report.by_failure()} <= {"reset", "closed", "short"}
