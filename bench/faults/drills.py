"""The drills: something is done to a server under traffic, and every request that gets no good answer is counted.

A drill starts its own server, in a directory of its own, and says in its outcome what it saw. The first three are for every server;
the others know how Cavalcade is built.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import deaths
import protocols
import psutil
import stalls
import tls
from drill import RELOAD_S, Drill, Options
from outcome import Outcome
from subjects import Running, Subject

from cavalcade.testing.live import ServerDied
from cavalcade.testing.streams import Streams
from cavalcade.testing.traffic import Mix, deploy
from cavalcade.testing.traffic_report import SLOW_S

UPGRADES = 5
STREAMS = 50
STREAM_GRACE_S = 4.0
REPLACED_S = 0.2  # from the death of a worker to the fork of its successor
ADDED_S = 0.05  # what a frozen worker may add to a new connection elsewhere


# == for every server ====================================================================================================


def reload(drill: Drill) -> None:
    """A new release, SIGHUP, until only the new one answers; again and again."""
    options = drill.options
    share = options.requests // options.reloads
    with drill.server() as server, drill.traffic(server) as traffic:
        done = 0
        for number in range(2, options.reloads + 2):
            deploy(server.folder, f"v{number}")
            server.signal(signal.SIGHUP)
            done += server.wait_version(f"v{number}", RELOAD_S)
            if server.process.poll() is not None:
                break
            traffic.wait_requests((number - 1) * share, timeout_s=120.0)
        drill.outcome.facts.append(f"{done} reloads")
        drill.require(done == options.reloads, f"only {done} of {options.reloads} reloads were followed")


def recycle(drill: Drill) -> None:
    """Workers are replaced after about 300 requests each, for a while."""
    seen: set[int] = set()
    with drill.server(*drill.subject.recycle) as server:
        with drill.traffic(server) as traffic:
            time.sleep(drill.options.seconds)
        seen.update(traffic.report.pids)
        drill.outcome.facts.append(f"{len(seen)} workers")
        drill.require(len(seen) > 2 * drill.options.workers, f"only {len(seen)} workers were ever seen: nothing was recycled")


def broken(drill: Drill) -> None:
    """A release that fails at import, one that fails at startup, then a good one."""
    with drill.server() as server, drill.traffic(server):
        for version, fault in (("v2", "import"), ("v3", "startup")):
            deploy(server.folder, version, fault)
            mark = server.mark()
            server.signal(signal.SIGHUP)
            if drill.subject.ours:
                server.wait_line("Reload refused", RELOAD_S, after=mark)
            time.sleep(drill.options.seconds / 4)
            kept = server.wait_version("v1", 2.0)
            drill.require(kept, f"after a release that fails at {fault} the old code is gone")
            if server.process.poll() is not None:
                drill.require(False, "the server has exited")
                return
        deploy(server.folder, "v4")
        server.signal(signal.SIGHUP)
        drill.require(server.wait_version("v4", RELOAD_S), "the corrected release is not served")


# == scaling and stopping ================================================================================================


def scale(drill: Drill) -> None:
    """2 -> 6 -> 2 workers, by signals one at a time, then by `cavalcade scale` at once."""
    with drill.server(workers=2) as server, drill.traffic(server):
        for signum, wanted in ((signal.SIGTTIN, (3, 4, 5, 6)), (signal.SIGTTOU, (5, 4, 3, 2))):
            for count in wanted:
                mark = server.mark()
                server.signal(signum)
                if signum == signal.SIGTTIN:
                    server.wait_line(r"worker \d+ .* ready after", after=mark)
                server.wait_workers(lambda pids, count=count: len(pids) == count)
            time.sleep(drill.options.seconds / 10)
        for count in (6, 2):
            command = [drill.options.python, "-m", "cavalcade", "scale", "--pid", str(server.pid), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RELOAD_S)
            drill.require(done.returncode == 0, f"cavalcade scale {count}: exit code {done.returncode}")
            server.wait_workers(lambda pids, count=count: len(pids) == count)
            time.sleep(drill.options.seconds / 10)


def stop(drill: Drill) -> None:
    """SIGTERM: whoever was accepted gets an answer, later ones are refused. Several times."""
    rounds = 5
    for _ in range(rounds):
        with drill.server() as server, drill.last_traffic(server) as tell:
            time.sleep(drill.options.seconds / 10)
            began = tell(signal.SIGTERM)
            server.wait_exit(0)
            drill.outcome.facts = [f"{rounds} stops, the last took {time.monotonic() - began:.1f} s"]


# == processes that are killed or frozen =================================================================================


def kill_worker(drill: Drill) -> None:
    """SIGKILL each worker once: what was open on it may fail, its successor is forked at once."""
    slowest_s = 0.0
    with drill.server() as server, drill.traffic(server):
        for pid in server.worker_pids:
            time.sleep(drill.options.seconds / 10)
            before = {*server.worker_pids}
            drill.outcome.allowed += server.kill_worker(pid)
            slowest_s = max(slowest_s, server.wait_workers(lambda pids, before=before: bool({*pids} - before)))
        time.sleep(drill.options.seconds / 10)
    drill.outcome.facts.append(f"successor forked after {1000 * slowest_s:.0f} ms at most")
    drill.require(slowest_s <= REPLACED_S, f"the successor was forked after {1000 * slowest_s:.0f} ms")


def kill_nursery(drill: Drill) -> None:
    """SIGKILL the process that forks the workers: they serve on, another is started, and a reload works."""
    with drill.server() as server, drill.traffic(server):
        for number in (2, 3, 4):
            before = server.nursery_pids
            server.signal(signal.SIGKILL, before[-1])
            deadline = time.monotonic() + 15.0
            while not {*server.nursery_pids} - {*before}:
                if time.monotonic() > deadline:
                    raise ServerDied("no new nursery was started")
                time.sleep(0.01)
            deploy(server.folder, f"v{number}")
            server.signal(signal.SIGHUP)
            drill.require(server.wait_version(f"v{number}", RELOAD_S), "a reload after it does not work")


def kill_handover(drill: Drill) -> None:
    """SIGKILL a worker while it gives its connections away. Many idle clients, so that it has something to do."""
    mix = Mix(kept=2, pausing=200, closing=2, uploads=2, late=4)
    killed_with: list[int] = []
    with drill.server() as server:
        clean = server.descriptors()
        with drill.traffic(server, mix):
            for number in range(2, 8):
                time.sleep(drill.options.seconds / 20)
                deploy(server.folder, f"v{number}")
                mark = server.mark()
                server.signal(signal.SIGHUP)
                pid = int(server.wait_line(r"\(pid (\d+)\) drains", RELOAD_S, after=mark)[1])
                time.sleep(0.002 * (number - 2))  # each time a little later in what it does
                held = server.kill_worker(pid)
                killed_with.append(held)
                drill.outcome.allowed += held
                server.wait_line(r"reloaded in", RELOAD_S, after=mark)
        drill.outcome.facts.append(f"connections left on them when they were killed: {killed_with}")
        deadline = time.monotonic() + 5.0
        while (now := server.descriptors()) != clean and time.monotonic() < deadline:
            time.sleep(0.05)
        for process, names in clean.items():
            more = Counter(now[process]) - Counter(names)
            drill.require(not more, f"the {process} has more descriptors than before: {dict(more)}")


def kill_supervisor(drill: Drill) -> None:
    """SIGKILL the supervisor: everything drains and goes, the port is free."""
    grace_s = 5.0
    with drill.server("--graceful-timeout", f"{grace_s:g}s") as server:
        family = psutil.Process(server.pid).children(recursive=True)
        with drill.last_traffic(server) as tell:
            time.sleep(drill.options.seconds / 10)
            began = tell(signal.SIGKILL)
            _, left = psutil.wait_procs(family, timeout=grace_s + 1)
            drill.outcome.facts.append(f"all gone after {time.monotonic() - began:.1f} s")
        drill.require(not left, f"still there after {grace_s:g} + 1 s: {left}")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(server.address)
            except OSError as error:
                drill.require(False, f"the port is not free: {error}")


def freeze(drill: Drill) -> None:
    """SIGSTOP a worker for a second: nobody is lost, and new connections go to the others without delay."""
    spans: list[tuple[float, float]] = []
    with drill.server() as server:
        with drill.traffic(server) as traffic:
            time.sleep(drill.options.seconds / 5)
            calm_until = time.monotonic()
            for pid in server.worker_pids:
                server.signal(signal.SIGSTOP, pid)
                began = time.monotonic()
                time.sleep(1.0)
                spans.append((began, time.monotonic()))
                server.signal(signal.SIGCONT, pid)
                time.sleep(0.5)
        slow = [note for note in traffic.report.slow if note.kind == "closing"]
        calm_s = max((note.ended - note.began for note in slow if note.ended < calm_until), default=SLOW_S)
        worst = [max((n.ended - n.began for n in slow if begun < n.began < ended), default=SLOW_S) for begun, ended in spans]
        said = ", ".join(f"{1000 * worst_s:.0f}" for worst_s in worst)
        drill.outcome.facts.append(f"new connections: at most {1000 * calm_s:.0f} ms before, {said} ms meanwhile")
        # A busy machine has hiccups of its own; what a frozen worker does to others it does every time.
        drill.require(statistics.median(worst) <= calm_s + ADDED_S, f"new connections were slow: {said} ms")


# == a new server ========================================================================================================


def upgrade(drill: Drill) -> None:
    """SIGUSR2, again and again: a new server takes over from the last. One of them cannot start, and the old one serves on."""
    with drill.server() as server:
        pid = server.pid
        with drill.traffic(server):
            for number in range(2, UPGRADES + 2):
                time.sleep(drill.options.seconds / 10)
                if number == 4:
                    deploy(server.folder, "broken", "import")
                    mark = server.mark()
                    server.signal(signal.SIGUSR2, pid)
                    taking = server.wait_line(rf"\[(\d+)\].* upgrade: taking over from pid {pid}", RELOAD_S, after=mark)
                    server.wait_line("the new server is removed, this one serves on", RELOAD_S, after=mark)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        psutil.Process(int(taking[1])).wait(RELOAD_S)  # until then another is refused
                    drill.require(server.wait_version("v3", 2.0), "after an upgrade that was refused the old code is gone")
                deploy(server.folder, f"v{number}")
                mark = server.mark()
                server.signal(signal.SIGUSR2, pid)
                new = int(server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", RELOAD_S, after=mark)[1])
                drill.require(server.wait_version(f"v{number}", 2.0), f"after upgrade {number - 1} the old code still answers")
                server.wait_line(rf"\[{pid}\].* stopped after .*, exit code 0", RELOAD_S, after=mark)
                pid = new
            time.sleep(drill.options.seconds / 10)
        mark = server.mark()
        server.signal(signal.SIGTERM, pid)
        server.wait_line(rf"\[{pid}\].* stopped after .*, exit code 0", RELOAD_S, after=mark)
    drill.outcome.facts.append(f"{UPGRADES} upgrades, and one that was refused")


# == streams =============================================================================================================


def streams_reload(drill: Drill) -> None:
    """50 event streams are open at a reload: they learn of it and end, the old workers run their lifespan shutdown and go in time."""
    with drill.server("--graceful-timeout", f"{STREAM_GRACE_S:g}s") as server, drill.traffic(server):
        old = server.worker_pids
        streams = Streams(server.address, STREAMS)
        deploy(server.folder, "v2")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        took_s = 0.0
        for pid in old:  # one after the other, each with a grace of its own
            gone = server.wait_line(rf"\(pid {pid}\) has left, drained in ([\d.]+) s", RELOAD_S, after=mark)
            took_s = max(took_s, float(gone[1]))
        check_streams(drill, server, streams, old, took_s)


def streams_stop(drill: Drill) -> None:
    """50 event streams are open at SIGTERM."""
    with drill.server("--graceful-timeout", f"{STREAM_GRACE_S:g}s") as server:
        old = server.worker_pids
        streams = Streams(server.address, STREAMS)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.wait_exit(0, timeout_s=STREAM_GRACE_S + 5)
        check_streams(drill, server, streams, old, time.monotonic() - began)


def check_streams(drill: Drill, server: Running, streams: Streams, old: list[int], took_s: float) -> None:
    well = streams.ended_well(b"data: end\n\n", STREAM_GRACE_S + 5)
    streams.close()
    file = server.folder / "shutdowns"
    shut = {int(line) for line in file.read_text().split()} if file.exists() else set()
    drill.outcome.requests += STREAMS
    drill.outcome.facts.append(f"{well} of {STREAMS} streams ended whole, an old worker took {took_s:.1f} s at most")
    drill.require(well == STREAMS, f"only {well} of {STREAMS} streams ended whole")
    drill.require({*old} <= shut, f"no lifespan shutdown in {sorted({*old} - shut)}")
    drill.require(took_s <= STREAM_GRACE_S + 1, f"gone only after {took_s:.1f} s, the grace is {STREAM_GRACE_S:g} s")
    drill.require(not any(re.search("Traceback", line) for line in server.lines), "a traceback in the log")


FOR_ALL: dict[str, Callable[[Drill], None]] = {"reload": reload, "recycle": recycle, "broken": broken}
FOR_OURS: dict[str, Callable[[Drill], None]] = {
    "scale": scale,
    "stop": stop,
    "kill-worker": kill_worker,
    "kill-nursery": kill_nursery,
    "kill-handover": kill_handover,
    "kill-supervisor": kill_supervisor,
    "freeze": freeze,
    "streams-reload": streams_reload,
    "streams-stop": streams_stop,
    "upgrade": upgrade,
    **protocols.DRILLS,
    **deaths.DRILLS,
    **stalls.DRILLS,
    **tls.DRILLS,
}
ALL = FOR_ALL | FOR_OURS
GROUPS: dict[str, tuple[str, ...]] = {
    "deaths": tuple(deaths.DRILLS),
    "stalls": tuple(stalls.DRILLS),
    "tls": tuple(tls.DRILLS),
    **{group: tuple(name for name in protocols.DRILLS if name.startswith(group)) for group in ("websocket", "http2")},
}


def run(name: str, subject: Subject, options: Options) -> Outcome:
    """Run one drill on one server."""
    drill = Drill(name, subject, options)
    if name == "recycle" and not subject.recycle:
        drill.outcome.supported = False
        return drill.outcome
    try:
        ALL[name](drill)
    except (ServerDied, TimeoutError, psutil.Error, OSError) as error:
        drill.outcome.complaints.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        drill.say(str(error))
    drill.show()
    return drill.outcome


def environment() -> str:
    """What the numbers were measured on."""
    return f"{os.cpu_count()} CPUs, {os.uname().sysname} {os.uname().release}"
