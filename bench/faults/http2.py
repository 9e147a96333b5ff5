"""The drills over HTTP/2: reload, recycle and stop under many requests in flight on few connections.

What counts as lost is what RFC 9113 section 6.8 lets a client count on: a stream up to the last one that a GOAWAY names is answered, any
other may be sent again elsewhere.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drill import RELOAD_S, Drill
from subjects import Running

from cavalcade.testing.http2_traffic import Http2Report, Http2Traffic
from cavalcade.testing.traffic import deploy


@contextmanager
def traffic(drill: Drill, server: Running, forgiven: str = "") -> Iterator[Http2Traffic]:
    """Traffic on the server; what came of it goes into the outcome, without the failures that are `forgiven`."""
    clients = Http2Traffic(server.address)
    clients.start()
    try:
        yield clients
    finally:
        add(drill, clients.stop(), forgiven)


def add(drill: Drill, report: Http2Report, forgiven: str) -> None:
    outcome = drill.outcome
    lost = [(what, detail) for what, detail in report.failures if what != forgiven]
    outcome.requests += report.requests
    outcome.failed += len(lost)
    for what, detail in lost:
        outcome.failures[what] = outcome.failures.get(what, 0) + 1
        drill.say(f"lost: {what} {detail}")
    outcome.facts.append(f"{report.connections} connections, {report.goaways} GOAWAYs, {report.retried} sent again")


def reload(drill: Drill) -> None:
    """A new release and SIGHUP, again and again."""
    rounds = max(2, drill.options.reloads // 4)
    with drill.server() as server:
        with traffic(drill, server) as clients:
            for number in range(2, rounds + 2):
                deploy(server.folder, f"v{number}")
                mark = server.mark()
                server.signal(signal.SIGHUP)
                server.wait_line(rf"reloaded in .* of generation {number}\b", RELOAD_S, after=mark)
                clients.wait_requests(clients.report.requests + 500)
        drill.require(len(clients.report.versions) == rounds + 1, f"only {sorted(clients.report.versions)} were ever seen")


def recycle(drill: Drill) -> None:
    """Workers are replaced after about 300 requests each, for a while."""
    with drill.server("--max-requests", "300", "--max-requests-jitter", "30") as server:
        with traffic(drill, server) as clients:
            time.sleep(drill.options.seconds)
        seen = len(clients.report.pids)
        drill.outcome.facts.append(f"{seen} workers")
        drill.require(seen > 2 * drill.options.workers, f"only {seen} workers were ever seen: nothing was recycled")


def stop(drill: Drill) -> None:
    """SIGTERM: whatever is in flight is answered; who asks after it is refused."""
    rounds = 5
    for _ in range(rounds):
        with drill.server() as server, traffic(drill, server, forgiven="refused"):
            time.sleep(drill.options.seconds / 10)
            server.signal(signal.SIGTERM)
            server.wait_exit(0)
    drill.outcome.facts = [f"{rounds} stops"]


DRILLS: dict[str, Callable[[Drill], None]] = {"http2-reload": reload, "http2-recycle": recycle, "http2-stop": stop}
