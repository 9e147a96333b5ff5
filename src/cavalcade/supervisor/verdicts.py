"""What the log says of a loop that was blocked: how long, where, by which request, how many waited; and whose doing it was, because
a garbage collection, a stopped process or a machine without a free CPU is not the fault of the line that was about to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cavalcade.observe import blackbox
from cavalcade.observe.blackbox import Frame
from cavalcade.worker import channel

MOSTLY = 0.5  # the share of the time from which on a cause is the cause


@dataclass
class Evidence:
    """What the supervisor has seen of one silence from outside. `asked_at` is when it looked, in seconds of the monotonic clock."""

    stack: Sequence[Frame] = field(default_factory=list)
    stopped: bool = False  # by SIGSTOP, when it was looked at
    traced: bool = False  # by a debugger of the system
    machine_s: float = 0.0  # of the time, the supervisor did not run either
    packages: frozenset[str] = frozenset()  # the apps' own, wherever they are installed
    patience_s: float = 0.25  # stall_warn
    asked_at: float = 0.0


def resumed(name: str, stalled: channel.Stalled, seen: Evidence) -> str:
    """The line about a loop that turns again; "" where nothing is to be said."""
    if seen.traced or blackbox.debugged(seen.stack):
        return ""
    if seen.machine_s * 1000 >= MOSTLY * stalled.ms:
        return ""  # told of the machine, once for all workers
    waited = _waited(stalled.waited)
    if seen.stopped or stalled.continued:
        return f"{name} was stopped (SIGSTOP) for {stalled.ms} ms; {waited}"
    where = _where(seen, stalled.request)
    if stalled.ms - stalled.starved_ms <= seen.patience_s * 1000:  # with a CPU of its own it would not have been noticed
        ready_ms = min(stalled.starved_ms, stalled.ms)  # what is counted began a little earlier
        return f"{name} was starved of CPU: of {stalled.ms} ms it was ready to run for {ready_ms} ms and had none; {waited}"
    if stalled.gc_ms >= MOSTLY * stalled.ms:
        run = f"generation {stalled.gc_generation}, {stalled.gc_freed} objects freed"
        return f"{name} was blocked for {stalled.ms} ms by garbage collection ({stalled.gc_ms} ms, {run}){where}; {waited}"
    return f"{name} was blocked for {stalled.ms} ms{where or ' outside of any code of the app'}; {waited}"


def place(stalled: channel.Stalled, seen: Evidence) -> str:
    """Where it was blocked, or what else it was, in the same words for the same place: what stalls are counted by. "" as in `resumed`."""
    if not resumed("", stalled, seen):
        return ""
    if seen.stopped or stalled.continued:
        return "stopped (SIGSTOP)"
    if stalled.ms - stalled.starved_ms <= seen.patience_s * 1000:
        return "starved of CPU"
    if stalled.gc_ms >= MOSTLY * stalled.ms:
        return "garbage collection"
    return code_place(seen)


def code_place(seen: Evidence) -> str:
    """The innermost frame of the app's that was seen."""
    frame = blackbox.culprit(seen.stack, seen.packages)
    return frame.show() if frame else "outside of any code of the app"


def hopeless(name: str, seconds: float, seen: Evidence, request: str) -> str:
    """The line about a loop that is given up."""
    where = _where(seen, request)
    return f"{name} has been blocked for {seconds:.1f} s{where or ' outside of any code of the app'}: killed (stall_kill)"


def stays_stopped(name: str, seconds: float) -> str:
    """The line about a process that somebody has stopped and not continued."""
    return f"{name} is stopped (SIGSTOP) for {seconds:.1f} s now and is left alone: continue it (SIGCONT) or kill it"


def machine(seconds: float) -> str:
    """The line about a machine on which nothing ran, the supervisor neither."""
    ms = f"{seconds * 1000:.0f} ms"
    return f"the machine stood still or had no CPU for us for {ms}: the supervisor did not run either, no worker is to blame"


def _where(seen: Evidence, request: str) -> str:
    frame = blackbox.culprit(seen.stack, seen.packages)
    place = f" in {frame.show()}" if frame else ""
    return f"{place}, {request}" if request else place


def _waited(count: int) -> str:
    return "1 request waited" if count == 1 else f"{count} requests waited"
