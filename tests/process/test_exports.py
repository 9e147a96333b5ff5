"""What the server's numbers become elsewhere: the app's own metrics beside them, StatsD, the Grafana dashboard."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S, get

APP = """
import os
import prometheus_client

ORDERS = prometheus_client.Counter("orders", "Orders.", ["kind"])
BASKETS = prometheus_client.Histogram("basket_euros", "Baskets.", buckets=[1, 10])
OPEN = prometheus_client.Gauge("open_tills", "Tills.", multiprocess_mode="livesum")

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    ORDERS.labels(scope["path"]).inc()
    BASKETS.observe(5)
    OPEN.set(1)
    status = 404 if scope["path"] == "/none" else 200
    body = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "none").encode() if scope["path"] == "/where" else b"ok"
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


class Exported:
    """A server, and what it sends to a UDP socket of ours."""

    def __init__(self, server: LiveServer, folder: Path, statsd: socket.socket) -> None:
        self.server = server
        self._folder = folder
        self._statsd = statsd
        self.lines: list[str] = []

    def text(self) -> str:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._folder / "c.sock")), timeout=WAIT_S) as client:
            return client.get("http://localhost/metrics").text

    def scrape(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.text())
        return {f"{sample.name}{sorted(sample.labels.values()) or ''}": sample.value for family in families for sample in family.samples}

    def pushed(self, name: str) -> list[tuple[float, float, str]]:
        """(value, sample rate, tags) of each line of a metric so far."""
        found = []
        for line in self.lines:
            key, _, rest = line.partition(":")
            if key == name:
                value, kind, *more = rest.split("|")
                rate = next((float(each[1:]) for each in more if each.startswith("@")), 1.0)
                tags = next((each[1:] for each in more if each.startswith("#")), "")
                assert kind in ("c", "g", "ms")
                found.append((float(value), rate, tags))
        return found

    def receive(self) -> None:
        """One more packet."""
        packet = self._statsd.recv(65536)
        assert len(packet) <= 1432
        self.lines += packet.decode().split("\n")


@contextlib.contextmanager
def exported(folder: Path, statsd: socket.socket, address: str, *options: str) -> Iterator[Exported]:
    write_app(folder, APP)
    arguments = ("main:app", "--workers", "2", "--no-access-log", "--control", "c.sock", "--statsd-host", address, *options)
    statsd.settimeout(WAIT_S)
    with LiveServer(*arguments, cwd=folder) as server:
        yield Exported(server, folder, statsd)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("shop")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{statsd.getsockname()[1]}"
        with exported(folder, statsd, address, "--statsd-prefix", "web", "--dogstatsd-tags", "env:test") as shop:
            for path in ("/a", "/a", "/a", "/none"):
                httpx.get(f"{shop.server.url}{path}")
            yield shop


def test_statsd_gets_gunicorns_names_in_gunicorns_formats_with_tags(shop: Exported) -> None:
    while sum(value for value, _, _ in shop.pushed("web.gunicorn.requests")) < 4:
        shop.receive()
    while shop.pushed("web.gunicorn.workers")[-1:] != [(2.0, 1.0, "env:test")]:
        shop.receive()
    assert sum(value for value, _, _ in shop.pushed("web.gunicorn.request.status.200")) == 3
    assert sum(value for value, _, _ in shop.pushed("web.gunicorn.request.status.404")) == 1
    durations = shop.pushed("web.gunicorn.request.duration")
    assert round(sum(1 / rate for _, rate, _ in durations)) == 4
    assert all(0 < value < 10_000 for value, _, _ in durations)
    assert any(tags == "env:test,method:GET,status_class:4xx" for _, _, tags in shop.pushed("web.cavalcade.requests"))


def test_the_apps_own_metrics_are_merged_in_and_outlive_its_workers_while_files_do_not(shop: Exported) -> None:
    values = shop.scrape()
    assert values["orders_total['/a']"] == 3
    assert values["orders_total['/none']"] == 1
    assert values["basket_euros_bucket['10.0']"] == values["basket_euros_count"] == 4
    directory = Path(get(shop.server, "/where"))
    (directory / "counter_999999999.db").touch()  # what a process leaves that is killed at the wrong moment, and breaks others for good
    for _ in range(2):
        workers = shop.server.worker_pids
        os.kill(workers[0], signal.SIGKILL)
        deadline = monotonic() + WAIT_S
        while workers[0] in shop.server.worker_pids or len(shop.server.worker_pids) < 2:
            assert monotonic() < deadline
    values = shop.scrape()
    assert values["orders_total['/a']"] == 3
    assert values["basket_euros_bucket['10.0']"] == values["basket_euros_count"] == 5
    owners = {path.stem.rpartition("_")[2] for path in directory.glob("*.db")}
    assert owners <= {"dead", *map(str, shop.server.worker_pids)}


def test_every_query_of_the_dashboard_names_a_metric_that_there_is(shop: Exported) -> None:
    declared = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", shop.text(), re.MULTILINE):
        declared |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = {name for query in queries for name in re.findall(r"cavalcade_\w+", query)}
    assert len(queries) > 30
    assert asked - declared == set()


def test_nothing_that_was_counted_goes_down_over_an_upgrade(shop: Exported) -> None:
    """Neither requests nor restarts nor what the app counts. The last test of this server: another is in its place then."""
    mark = shop.server.mark()
    os.kill(shop.server.worker_pids[0], signal.SIGKILL)
    shop.server.wait_line("ready after", WAIT_S, after=mark)
    before = shop.scrape()
    assert before["cavalcade_restarts_total['died']"] >= 1
    mark = shop.server.mark()
    shop.server.signal(signal.SIGUSR2)
    pid = int(shop.server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", WAIT_S, after=mark)[1])
    try:
        assert shop.server.process.wait(WAIT_S) == 0
        httpx.get(f"{shop.server.url}/a")
        after = shop.scrape()
        counters = [name for name in before if re.search("_total|_bucket|_count|_sum", name)]
        assert len(counters) > 50
        assert {name: (before[name], after.get(name)) for name in counters if after.get(name, 0.0) < before[name]} == {}
        assert after["orders_total['/a']"] == before["orders_total['/a']"] + 1
        assert after["cavalcade_requests_total['2xx', 'GET']"] == before["cavalcade_requests_total['2xx', 'GET']"] + 1
    finally:
        mark = shop.server.mark()
        os.kill(pid, signal.SIGTERM)
        shop.server.wait_line("stopped after", WAIT_S, after=mark)


def test_a_receiver_on_a_unix_socket_gets_the_names_without_prefix_and_tags_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as statsd:
        statsd.bind(str(tmp_path / "statsd.sock"))
        with exported(tmp_path, statsd, f"unix:{tmp_path / 'statsd.sock'}") as shop:
            get(shop.server)
            while sum(value for value, _, _ in shop.pushed("gunicorn.requests")) < 1:
                shop.receive()
            assert not any("#" in line for line in shop.lines)
            # It reads no more: its queue is full after a few packets, and everything else goes on.
            deadline = monotonic() + WAIT_S
            before = shop.scrape()["cavalcade_uptime_seconds"]
            while shop.scrape()["cavalcade_uptime_seconds"] < before + 2.5:
                assert monotonic() < deadline
            assert get(shop.server) == "ok"


def test_without_the_option_the_app_counts_as_it_would_elsewhere(tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    with LiveServer("main:app", "--no-app-metrics", "--no-access-log", cwd=tmp_path) as server:
        assert get(server, "/where") == "none"
