"""How a server is, for whoever asks: `cavalcade status`, and later whatever else shows it. Taken from what the policy remembers and
from the board, which the workers write themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from cavalcade import build
from cavalcade.board import layout
from cavalcade.board.view import Board
from cavalcade.config.options import Settings
from cavalcade.supervisor.stalls import StallStatus
from cavalcade.supervisor.state import Life, Stage, State, Worker

PHASES = {Life.BOOTING: "booting", Life.READY: "ready", Life.LEAVING: "draining"}


class WorkerStatus(msgspec.Struct):
    """One worker. `phase` is booting, ready or draining; `retiring` says why a ready one is about to be replaced, or is ""."""

    id: int
    pid: int
    generation: int
    phase: str
    age_s: float
    requests: int
    in_flight: int
    connections: int
    retiring: str = ""
    rss: int = 0  # as of the last second
    pss: int = 0  # as of the last few
    slot: int = 0
    requests_per_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    busy: float = 0.0
    loop_lag_s: float = 0.0
    blocked: bool = False  # its loop does not turn, for longer than stall_warn
    stopped: bool = False  # by SIGSTOP, as far as anybody has looked
    queued: int = 0
    threads_busy: int = 0
    threads: int = 0
    connections_by: dict[str, int] = {}
    restarts: int = 0
    last_restart: str = ""


class ReloadStatus(msgspec.Struct):
    """How the last reload ended. `text` is its line in the log, or the cause where it was refused."""

    ok: bool
    generation: int
    text: str
    ago_s: float


class Status(msgspec.Struct):
    """One server. `ready` is what a load balancer should be told; `stage` is new, starting, serving, draining (`drain_delay`, or out of
    rotation: it still serves), stopping or gone. `workers_wanted` is the target, `workers_ready` how many accept connections now.
    `totals` count since the start, workers that are gone and servers that this one has upgraded included; `restarts`, workers replaced by
    reason, and `stalls`, the worst place in the code first, count since this supervisor has started."""

    version: str
    build: str
    app: str
    name: str
    pid: int
    uptime_s: float
    listeners: list[str]
    stage: str
    ready: bool
    degraded: bool
    generation: int
    reloading: int  # the generation that is on its way, or 0
    last_reload: ReloadStatus | None
    workers_wanted: int
    workers_ready: int
    workers: list[WorkerStatus]
    connections: int
    in_flight: int
    totals: dict[str, int]
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0  # responses 5xx
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    queued: int = 0
    accept_queue: int = 0
    connections_by: dict[str, int] = {}
    restarts: dict[str, int] = {}
    stalls: list[StallStatus] = []


QUESTIONS = ("ready", "started", "live")


def answer(status: Status, question: str) -> tuple[bool, str]:
    """Whether a server is ready, started or live, and the line about it: for `cavalcade health` and for probes over HTTP.

    It is live where it answers at all, and started when every worker has been ready once.
    """
    yes = {"ready": status.ready, "started": status.stage not in (Stage.NEW.value, Stage.STARTING.value), "live": True}[question]
    return yes, f"{status.stage}, {status.workers_ready} of {status.workers_wanted} workers ready"


def take(
    settings: Settings,
    state: State,
    board: Board,
    listeners: Sequence[str],
    now: float,
    *,
    rss: Callable[[int], int],
    stalls: list[StallStatus],
    requests_per_s: float,
) -> Status:
    """The status at `now`, on the policy's clock. `rss` tells the memory of a worker by its number."""
    workers = [_worker(worker, board, now, rss(worker.id)) for worker in sorted(state.workers.values(), key=lambda worker: worker.id)]
    serving = [seat for seat in state.seats if state.holder(seat, Life.READY)]
    last = state.last_reload
    return Status(
        version=build.VERSION,
        build=build.kind(),
        app=settings.app,
        name=settings.name or settings.app,
        pid=os.getpid(),
        uptime_s=round(now - state.began_at, 3) if state.began_at else 0.0,
        listeners=list(listeners),
        stage=Stage.DRAIN_DELAY.value if state.withdrawn and state.stage is Stage.SERVING else state.stage.value,
        ready=state.stage is Stage.SERVING and bool(serving) and not state.withdrawn,
        degraded=state.degraded,
        generation=state.generation,
        reloading=state.roll.generation if state.roll else 0,
        last_reload=ReloadStatus(last.ok, last.generation, last.text, round(now - last.at, 3)) if last else None,
        workers_wanted=state.target,
        workers_ready=len(serving),
        workers=workers,
        connections=sum(worker.connections for worker in workers),
        in_flight=sum(worker.in_flight for worker in workers),
        totals=board.totals(),
        requests_per_s=round(requests_per_s, 1),
        restarts=dict(state.restarts),
        stalls=stalls,
    )


def _worker(worker: Worker, board: Board, now: float, rss: int) -> WorkerStatus:
    row = board.row(worker.slot)
    # Until the new owner of a slot has written its number there, the row may be anything.
    mine = row.get(layout.WORKER_ID) == worker.id
    requests, in_flight, connections = (row.get(word) if mine else 0 for word in (layout.REQUESTS, layout.IN_FLIGHT, layout.CONNECTIONS))
    return WorkerStatus(
        id=worker.id,
        pid=worker.pid,
        generation=worker.generation,
        phase=PHASES[worker.life],
        age_s=round(now - worker.forked_at, 3),
        requests=requests,
        in_flight=in_flight,
        connections=connections,
        retiring=worker.retiring if worker.life is not Life.LEAVING else "",
        rss=rss,
    )
