"""The drills of `make faults` in a short form: traffic of all kinds while the server changes under it, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import processes, wait_gone
from cavalcade.testing.streams import Streams
from cavalcade.testing.traffic import GENTLE, REST_S, Mix, Traffic, deploy
from cavalcade.testing.traffic_report import Report

RELOAD_S = 30.0
SHARE = 500  # requests between two things that are done to the server

STREAMS = 50
STREAM_GRACE_S = 6.0

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
    """How many sockets a process has open; it must be idle, or stopped."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("there is no /proc here")
    return sum(os.readlink(entry).startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())


def freeze(pid: int) -> int:
    """Stop a process: from here on it has the sockets that it has, and this is how many."""
    try:
        process = psutil.Process(pid)
        process.suspend()
        while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            pass
        return sockets_of(pid)
    except (psutil.NoSuchProcess, OSError):
        return 0  # it was faster


def more(traffic: Traffic, requests: int = SHARE) -> None:
    """Let the traffic go on for so many requests."""
    traffic.wait_requests(traffic.progress.requests + requests, timeout_s=30.0)


def assert_nothing_lost(report: Report) -> None:
    assert report.failed == 0, report.explain()
    assert {*report.kinds} == {"kept", "pausing", "closing", "uploads", "late"}


def test_reloads_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with Traffic(server.address, GENTLE) as traffic:
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
    with Traffic(server.address, GENTLE) as traffic:
        more(traffic, 4000)
    assert_nothing_lost(traffic.report)
    assert len(traffic.report.pids) > 4


def test_a_broken_release_loses_nothing_and_the_old_one_serves_on(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with Traffic(server.address, GENTLE) as traffic:
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
    with Traffic(server.address, GENTLE) as traffic:
        for signum, done in ((signal.SIGTTIN, r"ready after"), (signal.SIGTTOU, r"has left")):
            for _ in range(4):
                mark = server.mark()
                server.signal(signum)
                server.wait_line(done, RELOAD_S, after=mark)
            more(traffic)
        assert len(server.worker_pids) == 2
    assert_nothing_lost(traffic.report)


def test_upgrades_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    pid = server.pid
    with Traffic(server.address, GENTLE) as traffic:
        for number in (2, 3):
            more(traffic)
            deploy(tmp_path, f"v{number}")
            mark = server.mark()
            server.signal(signal.SIGUSR2, pid)
            new = int(server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", RELOAD_S, after=mark)[1])
            server.wait_line(rf"\[{pid}\].* stopped after .*, exit code 0", RELOAD_S, after=mark)
            pid = new
        more(traffic)
    assert_nothing_lost(traffic.report)
    assert {*traffic.report.versions} == {"v1", "v2", "v3"}
    mark = server.mark()
    server.signal(signal.SIGTERM, pid)
    server.wait_line(rf"\[{pid}\].* stopped after .*, exit code 0", RELOAD_S, after=mark)


def test_a_stop_answers_whoever_was_accepted(serve: Serve) -> None:
    server = serve()
    traffic = Traffic(server.address, GENTLE)
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
    traffic = Traffic(server.address, GENTLE)
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
    doomed = server.worker_pids[0]
    without_clients = sockets_of(doomed)
    with Traffic(server.address, GENTLE) as traffic:
        more(traffic)
        mark = server.mark()
        connections = freeze(doomed) - without_clients
        server.signal(signal.SIGKILL, doomed)
        server.wait_line("ready after", RELOAD_S, after=mark)
        more(traffic)
    report = traffic.report
    assert report.failed <= connections, report.explain()
    assert {*report.by_failure()} <= {"reset", "closed", "short"}


def test_a_worker_killed_while_it_hands_over_takes_only_what_it_still_has_along(serve: Serve, tmp_path: Path) -> None:
    server = serve(workers=2)
    without_clients = sockets_of(server.worker_pids[0])
    with Traffic(server.address, Mix(kept=2, pausing=100, closing=2, uploads=1, late=4, rest_s=REST_S)) as traffic:
        more(traffic)
        deploy(tmp_path, "v2")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        doomed = int(server.wait_line(r"\(pid (\d+)\) drains", RELOAD_S, after=mark)[1])
        connections = freeze(doomed) - without_clients
        with suppress(ProcessLookupError):
            server.signal(signal.SIGKILL, doomed)
        server.wait_line("reloaded in", RELOAD_S, after=mark)
        more(traffic)
    report = traffic.report
    assert report.failed <= max(0, connections), report.explain()


def test_event_streams_end_whole_at_a_reload(serve: Serve, tmp_path: Path) -> None:
    server = serve("--graceful-timeout", f"{STREAM_GRACE_S}s")
    old = server.worker_pids
    with Streams(server.address, STREAMS) as streams, Traffic(server.address, GENTLE) as traffic:
        deploy(tmp_path, "v2")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        gone = [server.wait_line(rf"\(pid {pid}\) has left, drained in ([\d.]+) s", RELOAD_S, after=mark) for pid in old]
        assert streams.ended_well(b"data: end\n\n", STREAM_GRACE_S) == STREAMS
    assert_nothing_lost(traffic.report)
    assert {*old} <= {int(line) for line in (tmp_path / "shutdowns").read_text().split()}
    assert max(float(line[1]) for line in gone) < STREAM_GRACE_S + 1


def test_event_streams_end_whole_at_a_stop(serve: Serve, tmp_path: Path) -> None:
    server = serve("--graceful-timeout", f"{STREAM_GRACE_S}s")
    workers = server.worker_pids
    with Streams(server.address, STREAMS) as streams:
        began = monotonic()
        server.stop()
        assert monotonic() - began < STREAM_GRACE_S + 1
        assert streams.ended_well(b"data: end\n\n", STREAM_GRACE_S) == STREAMS
    assert {*workers} == {int(line) for line in (tmp_path / "shutdowns").read_text().split()}
    assert "Traceback" not in server.transcript()
