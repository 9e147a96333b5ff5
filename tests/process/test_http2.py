"""HTTP/2 through reloads, recycling and a stop: streams up to the last one that a GOAWAY names are answered, others were not looked at."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.traffic import REST_S, Mix, Traffic, deploy

RELOAD_S = 30.0
CLIENTS = 6
# A machine that is short of CPUs is told in the log as well, and is not what is looked for here.
ARGV = ("--workers", "2", "--no-access-log", "--stall-warn", "0")

pytestmark = pytest.mark.slow

Busy = Callable[..., Any]


@pytest.fixture
def busy(tmp_path: Path, loop_name: str) -> Busy:
    """A server, and requests of all kinds on it; in the end none may be lost, and none may have been done twice."""

    @contextmanager
    def begin(*options: str, trust: Path | str = "") -> Iterator[tuple[LiveServer, Traffic]]:
        deploy(tmp_path)
        with LiveServer("main:app", *ARGV, "--loop", loop_name, *options, cwd=tmp_path) as server:
            with Traffic(server.address, Mix.only(http2=CLIENTS, rest_s=REST_S), trust=trust) as traffic:
                traffic.wait_requests(300)
                yield server, traffic
            lost = [note for note in traffic.report.failures if note.what != "refused" or server.process.poll() is None]
            assert not lost, traffic.report.explain()
            given = Counter((tmp_path / "ledger").read_text().split())
            assert [token for token, times in given.items() if times > 1] == []
            assert [token for token in traffic.report.left if token in given] == []
            assert not [line for line in server.lines if "warning" in line or "error" in line]

    return begin


def reload_twice(folder: Path, server: LiveServer, traffic: Traffic) -> None:
    for number in (2, 3):
        deploy(folder, f"v{number}")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line(rf"reloaded in .* of generation {number}\b", RELOAD_S, after=mark)
        traffic.wait_requests(traffic.progress.requests + 200)


def test_a_reload_loses_nothing(busy: Busy, tmp_path: Path) -> None:
    with busy() as (server, traffic):
        reload_twice(tmp_path, server, traffic)
    assert set(traffic.report.versions) == {"v1", "v2", "v3"}
    assert traffic.report.ends["GOAWAY"] >= 2 * CLIENTS
    assert {*traffic.report.kinds} == {"h2", "h2-pausing", "h2-uploads"}


def test_a_reload_over_tls_loses_nothing(busy: Busy, tmp_path: Path, authority: Any) -> None:
    with busy(*authority.pair.flags, trust=authority.file) as (server, traffic):
        reload_twice(tmp_path, server, traffic)
    assert set(traffic.report.versions) == {"v1", "v2", "v3"}
    assert traffic.report.ends["GOAWAY"] >= 2 * CLIENTS


def test_recycled_workers_lose_nothing(busy: Busy) -> None:
    with busy("--max-requests", "200", "--max-requests-jitter", "20") as (server, traffic):
        server.wait_line(r"worker 5 .* ready", RELOAD_S)
    assert len(traffic.report.pids) >= 4


def test_a_stop_answers_what_is_in_flight_and_exits_with_0(busy: Busy) -> None:
    """Whoever has to ask again finds nobody, and that is all."""
    with busy() as (server, _):
        server.signal(signal.SIGTERM)
        server.wait_exit(0)
