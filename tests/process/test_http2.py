"""HTTP/2 through reloads, recycling, scaling and a stop: every stream up to the last one that a GOAWAY names is answered."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.http2_traffic import Http2Traffic
from cavalcade.testing.traffic import deploy

RELOAD_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, loop_name: str) -> Any:
    def begin(*options: str) -> LiveServer:
        deploy(tmp_path)
        return LiveServer("main:app", "--workers", "2", "--no-access-log", "--loop", loop_name, *options, cwd=tmp_path)

    return begin


def test_a_reload_loses_nothing(server: Any, tmp_path: Path) -> None:
    with server() as live, Http2Traffic(live.address) as traffic:
        for number in (2, 3):
            deploy(tmp_path, f"v{number}")
            mark = live.mark()
            live.signal(signal.SIGHUP)
            live.wait_line(rf"reloaded in .* of generation {number}\b", RELOAD_S, after=mark)
            traffic.wait_requests(traffic.report.requests + 200)
        report = traffic.stop()
        assert report.failures == []
        assert set(report.versions) == {"v1", "v2", "v3"}
        assert report.goaways >= 4 * 2  # every client met two leaving workers
        assert not [line for line in live.lines if "warning" in line or "error" in line]


def test_recycled_workers_lose_nothing(server: Any) -> None:
    with server("--max-requests", "200", "--max-requests-jitter", "20") as live, Http2Traffic(live.address) as traffic:
        live.wait_line(r"worker 5 .* ready", RELOAD_S)
        report = traffic.stop()
        assert report.failures == []
        assert len(report.pids) >= 4


def test_a_stop_answers_what_is_in_flight_and_exits_with_0(server: Any) -> None:
    with server() as live:
        with Http2Traffic(live.address) as traffic:
            traffic.wait_requests(300)
            live.signal(signal.SIGTERM)
            live.wait_exit(0)
            report = traffic.stop()
        # Whoever has to ask again finds nobody, and that is all.
        assert {what for what, _ in report.failures} <= {"refused"}
