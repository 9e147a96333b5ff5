"""Metrics and probes of a real server: answered whatever the workers do, and never going down."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, Load, get

Loaded = Callable[[LiveServer], Load]
Scrape = dict[tuple[str, tuple[str, ...]], float]


def ask(project: Any, target: str, method: str = "GET") -> httpx.Response:
    """Over the control socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(project.folder / "c.sock")), timeout=WAIT_S) as client:
        return client.request(method, f"http://localhost{target}")


def scrape(project: Any) -> Scrape:
    answer = ask(project, "/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def until(project: Any, true: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until it is so. Every question is a round trip."""
    deadline = monotonic() + WAIT_S
    while monotonic() < deadline:
        now = scrape(project)
        if true(now):
            return now
    raise AssertionError(f"it never came true: {now}")


def value(values: Scrape, name: str, *labels: str) -> float:
    return values.get((f"cavalcade_{name}", labels), 0.0)


def test_it_answers_while_every_worker_is_stopped(project: Any) -> None:
    with project.server("--control", "c.sock", "--stall-kill", "0") as server:
        get(server)
        until(project, lambda values: value(values, "requests_total", "GET", "2xx") == 1)
        workers = server.worker_pids
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            values = until(project, lambda values: value(values, "workers_blocked") == 2)
            assert value(values, "requests_total", "GET", "2xx") == 1
            assert value(values, "request_duration_seconds_count") == 1
            assert value(values, "workers_ready") == 2
            for worker in ("1", "2"):
                assert value(values, "worker_rss_bytes", worker, worker) > 2**20
                assert value(values, "worker_loop_lag_seconds", worker, worker) > 0.25
            status = ask(project, "/status").json()
            assert [(worker["blocked"], worker["stopped"], worker["slot"]) for worker in status["workers"]] == [
                (True, True, 1),
                (True, True, 2),
            ]
            for probe in ("livez", "readyz", "startupz"):
                assert ask(project, f"/{probe}").status_code == 200
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)


def test_the_probes_say_no_before_it_has_started_and_while_it_drains(project: Any) -> None:
    project.deploy(gated=True)

    def probes() -> list[int]:
        return [ask(project, f"/{probe}").status_code for probe in ("livez", "readyz", "startupz")]

    with project.server("--control", "c.sock", "--drain-delay", "100", ready=False, workers=1) as server:
        server.wait_line("^importing v1", WAIT_S)
        assert probes() == [200, 503, 503]
        project.touch("gate")
        server.wait_line(r"ready in .*: http://", WAIT_S)
        assert probes() == [200, 200, 200]
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        assert probes() == [200, 503, 200]
        server.signal(signal.SIGINT)
        server.wait_exit(0)


def test_totals_never_go_down(project: Any, load: Loaded) -> None:
    """Over a reload, a recycling and a kill under traffic; and every restart is counted by its reason."""
    with project.server("--control", "c.sock") as server:
        traffic = load(server)
        over = threading.Event()
        dips: list[tuple[Any, float, float]] = []

        def watch() -> None:
            last: Scrape = {}
            while not over.is_set():
                now = scrape(project)
                dips.extend(
                    (key, last[key], now.get(key, 0.0)) for key in last if key[0].endswith("_total") and now.get(key, 0.0) < last[key]
                )
                last = now

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            server.signal(signal.SIGHUP)
            until(project, lambda values: value(values, "restarts_total", "reload") == 2 and value(values, "generation") == 2)
            assert ask(project, "/workers/all/recycle", "POST").status_code == 200
            assert value(scrape(project), "restarts_total", "asked") == 2
            failed_before = list(traffic.failures)
            os.kill(server.worker_pids[0], signal.SIGKILL)
            until(project, lambda values: value(values, "restarts_total", "died") == 1 and value(values, "workers_ready") == 2)
            until(project, lambda values: value(values, "requests_per_second") > 0)
            workers = ask(project, "/status").json()["workers"]
            assert sorted(worker["last_restart"] for worker in workers) == ["asked", "died"]
            assert sum(worker["restarts"] for worker in workers) == 5
        finally:
            over.set()
            watcher.join(WAIT_S)
            traffic.stop()
        assert dips == []
        assert failed_before == []
        # What a worker counts is on the board at once: the one that was killed may have written one answer that it did not come to count.
        values = scrape(project)
        assert value(values, "requests_total", "GET", "2xx") >= len(traffic.answers) - 1
        assert value(values, "request_duration_seconds_bucket", "+Inf") == value(values, "requests_total", "GET", "2xx")
