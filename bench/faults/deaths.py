"""The drills in which a worker dies: of each of the five deaths there are. The log has one sentence for each, and only what was open
on the worker that died may fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import stalls
from drill import Drill
from subjects import Running

from cavalcade.limits import MIB
from cavalcade.testing.cgroups import NoControlGroup, limited

SAMPLED_S = 1.5  # the supervisor looks once a second where a worker is counted
MEMORY_BYTES = 96 * MIB

REQUEST = r"[A-Z]+ /[^ ,)]*"
LOST = rf"(none in flight at its last beat|\d+ in flight lost( \({REQUEST}(, {REQUEST})*(, \.\.\.)?\))?)"
HAD = rf"after \d+(\.\d)? s, \d+ MiB, \d+ requests served, {LOST}, generation 1; replaced at once, \d+ of \d+ workers serve"


def died(drill: Drill, end: Callable[[Running, int], int], sentence: str, *options: str, before: str = "") -> None:
    """A worker is ended under traffic. `sentence` is what is to be said of it, `before` what else must be said first."""
    with drill.server(*options, release=stalls.release) as server:
        pid = server.worker_pids[0]
        with drill.traffic(server):
            time.sleep(max(SAMPLED_S, drill.options.seconds / 10))
            known = {*server.worker_pids}
            drill.outcome.allowed += end(server, pid)
            server.wait_workers(lambda pids: pid not in pids and bool({*pids} - known))
            time.sleep(drill.options.seconds / 10)
        who = rf"worker \d+ \(pid {pid}\) "
        drill.require_lines(server.said_of(pid), *([who + before] if before else []), rf"{who}{sentence}; {HAD}")


def kill(drill: Drill) -> None:
    """SIGKILL from outside."""
    sentence = r"was killed by SIGKILL, not by us(, and not by the kernel for memory)?: somebody has sent it"
    died(drill, lambda server, pid: server.kill_worker(pid), sentence)


def segv(drill: Drill) -> None:
    """C code reads where nothing is."""
    died(drill, lambda server, pid: server.end_worker(pid, "crashing"), "was killed by SIGSEGV: it crashed in C code")


def leave(drill: Drill) -> None:
    """`os._exit(1)` in a handler."""
    sentence = r"exited with status 1 by itself: something in it called os\._exit\(\) or ended the process"
    died(drill, lambda server, pid: server.end_worker(pid, "leaving"), sentence)


def stall(drill: Drill) -> None:
    """A handler that blocks for longer than stall_kill."""
    place = stalls.place("time.sleep(1000)", "hanging")
    died(
        drill,
        lambda server, pid: server.end_worker(pid, "hanging"),
        r"was killed by us: its loop was blocked for \d\.\d s \(stall_kill\)",
        *("--stall-kill", "1"),
        before=rf"has been blocked for \d\.\d s in {place}, GET /do/hanging\?\d+: killed \(stall_kill\)",
    )


def oom(drill: Drill) -> None:
    """A handler that wants more memory than there is."""

    def end(server: Running, pid: int) -> int:
        group.add(pid)
        time.sleep(SAMPLED_S)
        return server.end_worker(pid, "hogging")

    try:
        with limited("memory", MEMORY_BYTES) as group:
            died(drill, end, "was killed by SIGKILL, by the kernel: out of memory")
    except NoControlGroup as reason:
        drill.outcome.unable = str(reason)


DRILLS: dict[str, Callable[[Drill], None]] = {
    "death-kill": kill,
    "death-segv": segv,
    "death-exit": leave,
    "death-stall": stall,
    "death-oom": oom,
}
