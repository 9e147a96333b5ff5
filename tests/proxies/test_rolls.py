"""Three instances behind a real proxy, which runs with the printed file: they are replaced one after another under traffic, and no
request is lost; one is killed, and what is lost is what it held."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.traffic import Mix, Traffic, deploy

PROXIES = ("nginx", "haproxy", "envoy", "caddy")
INSTANCES = 3
DRAIN = ("--drain-delay", "800ms", "--graceful-timeout", "2s")
CLIENTS = 10
MIX = Mix(kept=0, pausing=4, closing=0, uploads=3, late=3)

# Every upload that is begun is written down, so that one that a proxy sends twice is seen.
APP = """
from traffic_app import app as inner


async def app(scope, receive, send):
    if scope.get("path") == "/upload":
        with open("uploads", "ab", buffering=0) as file:
            file.write(scope["query_string"] + b"\\n")
    await inner(scope, receive, send)
"""


class Fleet:
    """Instances that are replaced, each at its address."""

    def __init__(self, folder: Path, network: Any) -> None:
        self._folder = folder
        self._network = network
        self.servers: list[LiveServer] = []

    def start(self, number: int, ready: bool = True) -> LiveServer:
        words = ("--bind", self._network.addresses[number], "--workers", "1", "--log-level", "debug", *DRAIN)
        server = LiveServer("main:app", *words, cwd=self._folder, ready=ready)
        with self._network.instance(number):
            server.start()
        return server

    def roll(self, number: int) -> None:
        """What a deploy does on one machine; done when the new one has its share of the requests."""
        self.servers[number].stop(signal.SIGTERM)
        self.servers[number] = self.start(number)
        self.servers[number].wait_line('"(GET|POST) ', stream="stdout", timeout_s=20.0)

    def __enter__(self) -> Fleet:
        for number in range(INSTANCES):
            self.servers.append(self.start(number, ready=False))
        for server in self.servers:
            server.wait_line("ready in", timeout_s=30.0)
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self.servers:
            server.kill()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    deploy(folder, name="traffic_app")
    write_app(folder, APP)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("proxy", PROXIES)
def test_no_request_is_lost_while_three_instances_are_rolled_and_a_killed_one_takes_only_what_it_held(
    proxy: str, project: Path, network: Any, front: Callable[..., Any], need: Callable[[str], str]
) -> None:
    need(proxy)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(project, network))
        stack.enter_context(network.front())
        entry = stack.enter_context(front(proxy, network.addresses, *DRAIN))
        traffic = stack.enter_context(Traffic(entry.address, MIX))
        for number in range(INSTANCES):
            fleet.roll(number)
        rolls = traffic.stop()
        assert rolls.failed == 0, f"{rolls.explain()}\n{entry.log}"
        assert len(rolls.pids) > INSTANCES, "the new ones have answered too"
        assert uploaded(project) == {1: rolls.kinds["uploads"].requests}

        # Now one dies with what it holds. Whoever asks later does not notice.
        with Traffic(entry.address, MIX) as after:
            after.wait_requests(200)
            fleet.servers[0].kill()
            dead_at = monotonic()
            after.wait_requests(after.progress.requests + 400)
        late = [note for note in after.report.failures if note.began > dead_at]
        assert late == [], f"{after.report.explain()}\n{entry.log}"
        assert after.report.failed <= CLIENTS
        assert set(uploaded(project)) == {1}, "what may not be done twice is never sent again"
    print(f"{proxy}, {network.kind}: {rolls.requests} requests in three rolls, 0 lost; killed: {after.report.explain()}")


def uploaded(project: Path) -> dict[int, int]:
    """How many uploads reached an app how many times, since this was asked last."""
    tokens = Counter((project / "uploads").read_text().split())
    (project / "uploads").unlink()
    return Counter(tokens.values())
