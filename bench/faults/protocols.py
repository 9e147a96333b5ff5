"""The drills over WebSocket and HTTP/2. Their connections cannot be handed over: a worker that leaves closes them as their protocol has it,
and what it has not taken is for its successor.

A client repeats what a Close or a GOAWAY has left to it, and nothing else. So two things must hold in the end: every message and request
was answered, and the app was given each of them once. One that it was given twice is one whose first answer was lost.
"""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from drill import RELOAD_S, Drill
from subjects import Running

from cavalcade.testing.certificates import Authority
from cavalcade.testing.traffic import Mix, Traffic, deploy

RELOADS = 5
STOPS = 3

WEBSOCKET = Mix.only(websockets=12)
HTTP2 = Mix.only(http2=9)
CLOSED_BY_US = ("1001", "1012", "GOAWAY")
# Of WebSockets it is the handshakes that are counted as requests.
RECYCLE = {
    WEBSOCKET: ("--max-requests", "15", "--max-requests-jitter", "5"),
    HTTP2: ("--max-requests", "300", "--max-requests-jitter", "30"),
}


@contextlib.contextmanager
def serving(drill: Drill, mix: Mix, *options: str, tls: bool = False) -> Iterator[tuple[Running, Traffic]]:
    """A server with this traffic on it, and what must hold when both have ended."""
    with tempfile.TemporaryDirectory(prefix="faults-tls-") as folder:
        authority = Authority(Path(folder)) if tls else None
        flags = authority.pair.flags if authority else []
        with drill.server(*flags, *options) as server:
            server.trust = authority.client() if authority else None
            with drill.traffic(server, mix, authority.file if authority else "") as traffic:
                yield server, traffic
            audit(drill, server)


def audit(drill: Drill, server: Running) -> None:
    """Compare what the app says that it was given with what was answered, and look at what the server said meanwhile."""
    report = drill.reports[-1]
    given = Counter((server.folder / "ledger").read_text("utf-8").split())
    for what, tokens in (
        ("twice", [token for token, times in given.items() if times > 1]),
        ("unanswered", [token for token in report.left if token in given]),
    ):
        if tokens:
            drill.outcome.failed += len(tokens)
            drill.outcome.failures[what] = drill.outcome.failures.get(what, 0) + len(tokens)
            drill.say(f"{what}: {tokens[:20]}")
    short_of_cpu = re.compile("starved|machine stood still")  # true, and not what is looked for here
    complaints = [line for line in server.lines if re.search(r"\] (warning|error|critical) ", line) and not short_of_cpu.search(line)]
    drill.require(not complaints, f"the server complains: {complaints[:3]}")


def note_ends(drill: Drill, *wanted: str) -> int:
    """Say how connections have ended, and require that we have ended them in one of these ways only. How many we have ended."""
    ends: Counter[str] = Counter()
    repeated = 0
    for report in drill.reports:
        ends.update(report.ends)
        repeated += report.repeated
    ours = {how: count for how, count in ends.items() if how in CLOSED_BY_US}
    drill.require({*ours} == {*wanted}, f"connections were ended so: {ours}")
    said = ", ".join(f"{count} by {how}" for how, count in sorted(ours.items()))
    drill.outcome.facts.append(f"{said}; {repeated} repeated")
    return sum(ours.values())


def reload(drill: Drill, mix: Mix, *wanted: str, tls: bool = False) -> None:
    """A new release, SIGHUP, until only the new one answers; again and again."""
    done = 0
    with serving(drill, mix, tls=tls) as (server, _):
        for number in range(2, RELOADS + 2):
            time.sleep(drill.options.seconds / 10)
            deploy(server.folder, f"v{number}")
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("reloaded in", RELOAD_S, after=mark)
            done += server.wait_version(f"v{number}", RELOAD_S)
    drill.outcome.facts.append(f"{done} reloads")
    drill.require(done == RELOADS, f"only {done} of {RELOADS} reloads were followed")
    drill.require(note_ends(drill, *wanted) >= RELOADS, "hardly a connection has met a worker that leaves")


def recycle(drill: Drill, mix: Mix, *wanted: str, tls: bool = False) -> None:
    """Workers are replaced after some requests each, for a while."""
    with serving(drill, mix, *RECYCLE[mix], tls=tls) as (_, traffic):
        time.sleep(drill.options.seconds)
    seen = len(traffic.report.pids)
    drill.outcome.facts.append(f"{seen} workers")
    drill.require(seen > drill.options.workers, f"only {seen} workers were ever seen: nothing was recycled")
    note_ends(drill, *wanted)


def stop(drill: Drill, mix: Mix, *wanted: str) -> None:
    """SIGTERM: whoever was let in gets an answer, or is told that there will be none. Several times."""
    for _ in range(STOPS):
        with drill.server() as server:
            with drill.last_traffic(server, mix) as tell:
                time.sleep(drill.options.seconds / 10)
                tell(signal.SIGTERM)
                server.wait_exit(0)
            audit(drill, server)
    drill.outcome.facts.append(f"{STOPS} stops")
    note_ends(drill, *wanted)


DRILLS: dict[str, Callable[[Drill], None]] = {
    "websocket-reload": lambda drill: reload(drill, WEBSOCKET, "1012"),
    "websocket-recycle": lambda drill: recycle(drill, WEBSOCKET, "1012"),
    "websocket-stop": lambda drill: stop(drill, WEBSOCKET, "1001"),
    "websocket-tls-reload": lambda drill: reload(drill, WEBSOCKET, "1012", tls=True),
    "websocket-tls-recycle": lambda drill: recycle(drill, WEBSOCKET, "1012", tls=True),
    "http2-reload": lambda drill: reload(drill, HTTP2, "GOAWAY"),
    "http2-recycle": lambda drill: recycle(drill, HTTP2, "GOAWAY"),
    "http2-stop": lambda drill: stop(drill, HTTP2, "GOAWAY"),
    "http2-tls-reload": lambda drill: reload(drill, HTTP2, "GOAWAY", tls=True),
    "http2-tls-recycle": lambda drill: recycle(drill, HTTP2, "GOAWAY", tls=True),
}
