"""The columns of the table of workers, and how each is sorted: of `cavalcade status` and `cavalcade top`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cavalcade.supervisor.spans import span
from cavalcade.supervisor.stalls import StallStatus
from cavalcade.supervisor.status import Status, WorkerStatus

MIB = 1 << 20
PLACES = 5  # worst offenders that are shown


@dataclass(frozen=True)
class Column:
    """One fact about a worker. `downwards`: who sorts by it looks for the greatest."""

    title: str
    show: Callable[[WorkerStatus], str]
    key: Callable[[WorkerStatus], float]
    left: bool = False
    downwards: bool = True


def state(worker: WorkerStatus) -> str:
    """Its phase; or that it does not get on, which matters more."""
    return "stopped" if worker.stopped else "blocked" if worker.blocked else worker.phase


def last(worker: WorkerStatus) -> str:
    """Why its slot's worker was replaced, the last time; and why this one is about to be."""
    return ", ".join(part for part in (worker.last_restart, f"retires: {worker.retiring}" if worker.retiring else "") if part)


_STATES = ("stopped", "blocked", "booting", "draining", "ready")

COLUMNS = (
    Column("slot", lambda worker: str(worker.slot), lambda worker: worker.slot, downwards=False),
    Column("worker", lambda worker: str(worker.id), lambda worker: worker.id, downwards=False),
    Column("pid", lambda worker: str(worker.pid or "-"), lambda worker: worker.pid, downwards=False),
    Column("gen", lambda worker: str(worker.generation), lambda worker: worker.generation),
    Column("phase", state, lambda worker: _STATES.index(state(worker)), left=True, downwards=False),
    Column("age", lambda worker: span(worker.age_s), lambda worker: worker.age_s),
    Column("requests", lambda worker: str(worker.requests), lambda worker: worker.requests),
    Column("req/s", lambda worker: rate(worker.requests_per_s), lambda worker: worker.requests_per_s),
    Column("in flight", lambda worker: str(worker.in_flight), lambda worker: worker.in_flight),
    Column("conns", lambda worker: str(worker.connections), lambda worker: worker.connections),
    Column("busy", lambda worker: f"{worker.busy:.0%}", lambda worker: worker.busy),
    Column("lag", lambda worker: brief(worker.loop_lag_s), lambda worker: worker.loop_lag_s),
    Column("p95", lambda worker: brief(worker.p95_s), lambda worker: worker.p95_s),
    Column("RSS", lambda worker: f"{worker.rss / MIB:.0f} MiB" if worker.rss else "-", lambda worker: worker.rss),
    Column("restarts", lambda worker: str(worker.restarts), lambda worker: worker.restarts),
    Column("last reason", last, lambda worker: 0, left=True),
)
LEFT = [column.title for column in COLUMNS if column.left]


def rate(per_s: float) -> str:
    return f"{per_s:.1f}" if 0 < per_s < 10 else f"{per_s:.0f}"


def brief(seconds: float) -> str:
    """ "-" for nothing, "0.4 ms", "35 ms", "1.2 s", "2 min 5 s"."""
    if seconds <= 0:
        return "-"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else span(seconds)


def name(status: Status) -> str:
    return status.name if status.name == status.app else f"{status.name} ({status.app})"


def stage(status: Status) -> str:
    return f"{status.stage}, degraded" if status.degraded else status.stage


def title(status: Status) -> str:
    return f"{name(status)}: {stage(status)}, up {span(status.uptime_s)}, pid {status.pid}, cavalcade {status.version} ({status.build})"


def summary(status: Status) -> list[str]:
    """What holds for the whole server, but its title."""
    coming = f", generation {status.reloading} on its way" if status.reloading else ""
    lines = [
        f"listening on {', '.join(status.listeners)}",
        f"{status.workers_ready} of {status.workers_wanted} workers ready, generation {status.generation}{coming}",
        f"{status.totals.get('requests', 0)} requests, {rate(status.requests_per_s)} a second, {rate(status.errors_per_s)} failed (5xx); "
        f"p50 {brief(status.p50_s)}, p95 {brief(status.p95_s)}, p99 {brief(status.p99_s)}",
        f"{status.in_flight} in flight, {status.queued} queued, {status.connections} connections",
    ]
    if status.last_reload is not None:
        first, *_ = status.last_reload.text.splitlines()
        lines.append(f"last reload {span(status.last_reload.ago_s)} ago: {first}")
    return lines


def worst_places(stalls: list[StallStatus]) -> list[str]:
    """The places in the code that have blocked loops, the worst first."""
    shown = [f"{stall.place}: {_times(stall.count)}, {span(stall.seconds)} in all; {_waited(stall)}" for stall in stalls[:PLACES]]
    return shown + ([f"and {len(stalls) - PLACES} more places"] if len(stalls) > PLACES else [])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _waited(stall: StallStatus) -> str:
    if not stall.requests:
        return "nobody waited"
    return f"{stall.requests} {'request' if stall.requests == 1 else 'requests'} waited, together {span(stall.delay_s)}"
