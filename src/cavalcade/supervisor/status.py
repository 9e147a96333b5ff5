"""How a server is, for whoever asks: `cavalcade status`, and whatever else shows it. Taken from what the policy remembers and
from the board, which the workers write themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cavalcade import build, limits
from cavalcade.board import layout, ledger_words
from cavalcade.board.ledger_words import Sums
from cavalcade.board.row import Row
from cavalcade.board.view import Board
from cavalcade.config.options import Settings
from cavalcade.net import listener
from cavalcade.net.listener import Listener
from cavalcade.supervisor.guard import Guard, look_at
from cavalcade.supervisor.heritage import Heritage
from cavalcade.supervisor.recent import Recent
from cavalcade.supervisor.stalls import StallStatus
from cavalcade.supervisor.state import Life, Stage, State, Worker

PROTOCOLS = {
    "http/1.1": layout.CONNECTIONS_HTTP1,
    "h2": layout.CONNECTIONS_HTTP2,
    "websocket": layout.CONNECTIONS_WEBSOCKET,
    "tls": layout.CONNECTIONS_TLS,
}
PHASES = {Life.BOOTING: "booting", Life.READY: "ready", Life.LEAVING: "draining"}


class WorkerStatus(msgspec.Struct):
    """One worker. `slot` is its place: its successor has the same, and how often and why last its worker was replaced is of the slot.
    `phase` is booting, ready or draining; `retiring` says why a ready one is about to be replaced, or is "".

    Percentiles are those of the last ten seconds, 0.0 where nothing was answered. `busy` is how much of the last second the loop worked or
    was blocked, `loop_lag_s` how late it turned at worst; while it is silent, for how long it has been. `queued` are calls that wait
    for a thread. Sizes are in bytes, 0 where nobody could look."""

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
    `totals`, `restarts`, workers replaced by reason, and `stalls`, the worst place in the code first, count since the start, workers that
    are gone and servers that this one has upgraded included. `queued` is what waits before the app: connections in the kernel's
    `accept_queue`, and calls that wait for a thread. Percentiles are those of the last ten seconds."""

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


@dataclass(frozen=True)
class Sources:
    """Where a status is taken from."""

    listeners: Sequence[Listener]
    state: State
    board: Board
    recent: Recent
    guard: Guard
    heritage: Heritage


def take(settings: Settings, sources: Sources, now: float) -> Status:
    """The status at `now`, on the policy's clock."""
    state, board, listeners = sources.state, sources.board, sources.listeners
    workers = [
        _worker(worker, sources, settings.stall_warn or limits.STALL_WARN_S, now)
        for worker in sorted(state.workers.values(), key=lambda worker: worker.id)
    ]
    serving = [seat for seat in state.seats if state.holder(seat, Life.READY)]
    last = state.last_reload
    lately = sources.recent.of_all()
    accept_queue = sum(listener.waiting(each) or 0 for each in listeners)
    sums = board.sums()
    return Status(
        version=build.VERSION,
        build=build.kind(),
        app=settings.app,
        name=settings.name or settings.app,
        pid=os.getpid(),
        uptime_s=round(now - state.began_at, 3) if state.began_at else 0.0,
        listeners=[each.url for each in listeners],
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
        totals=_totals(sums),
        requests_per_s=lately.requests_per_s,
        errors_per_s=lately.errors_per_s,
        p50_s=lately.p50_s,
        p95_s=lately.p95_s,
        p99_s=lately.p99_s,
        queued=accept_queue + sum(worker.queued for worker in workers),
        accept_queue=accept_queue,
        connections_by={name: sum(worker.connections_by.get(name, 0) for worker in workers) for name in PROTOCOLS},
        restarts=sources.heritage.restarts(state.restarts),
        stalls=sources.guard.stalls.worst(),
    )


def _totals(sums: Sums) -> dict[str, int]:
    classes = {f"status_{name}": count for name, count in sums.by_class().items()}
    return {name: sums.get(word) for name, word in ledger_words.SINGLE.items()} | classes


def _worker(worker: Worker, sources: Sources, patience_s: float, now: float) -> WorkerStatus:
    row, guard = sources.board.row(worker.slot), sources.guard
    status = WorkerStatus(
        id=worker.id,
        pid=worker.pid,
        generation=worker.generation,
        phase=PHASES[worker.life],
        age_s=round(now - worker.forked_at, 3),
        requests=0,
        in_flight=0,
        connections=0,
        retiring=worker.retiring if worker.life is not Life.LEAVING else "",
        rss=guard.rss(worker.id),
        pss=guard.pss(worker.id),
        slot=worker.seat.number,
        restarts=worker.seat.restarts,
        last_restart=worker.seat.last_restart,
    )
    # Until the new owner of a slot has written its number there, the row may be anything.
    if row.get(layout.WORKER_ID) == worker.id:
        lately = sources.recent.of(worker.id)
        status.requests_per_s = lately.requests_per_s
        status.p50_s, status.p95_s, status.p99_s = lately.p50_s, lately.p95_s, lately.p99_s
        _read(status, row)
        status.requests = sources.board.ledger(worker.slot).get(ledger_words.REQUESTS)
        if worker.life is not Life.BOOTING:
            _judge_silence(status, row, patience_s)
    return status


def _judge_silence(status: WorkerStatus, row: Row, patience_s: float) -> None:
    """A worker whose loop does not turn has said nothing of late; that it has not is known."""
    beat_ns = row.get(layout.HEARTBEAT_NS)
    # One without connections beats so seldom.
    silent_s = (time.monotonic_ns() - beat_ns) / 1e9 - limits.LOOK_S if beat_ns else 0.0
    status.loop_lag_s = max(status.loop_lag_s, silent_s)
    if silent_s > patience_s:
        status.blocked = True
        status.stopped, _ = look_at(status.pid)
        status.busy = 0.0 if status.stopped else 1.0


def _read(status: WorkerStatus, row: Row) -> None:
    status.in_flight = row.get(layout.IN_FLIGHT)
    status.connections = row.get(layout.CONNECTIONS)
    status.busy = row.get(layout.BUSY_PPM) / 1e6
    status.loop_lag_s = row.get(layout.LOOP_LAG_NS) / 1e9
    status.queued = row.get(layout.THREADS_WAITING)
    status.threads_busy = row.get(layout.THREADS_BUSY)
    status.threads = row.get(layout.THREADS_TOTAL)
    status.connections_by = {name: row.get(word) for name, word in PROTOCOLS.items()}
