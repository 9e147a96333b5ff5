"""What `/metrics` tells: the status, and what else board, sockets and certificates say, by the names of `observe/metrics.py`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from cavalcade.board import layout
from cavalcade.board.view import Board
from cavalcade.net import listener
from cavalcade.net.listener import Listener
from cavalcade.observe.metrics import Values
from cavalcade.supervisor.state import State
from cavalcade.supervisor.status import Status

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


def measure(status: Status, state: State, board: Board, listeners: Iterable[Listener], expiries: Mapping[str, float]) -> Values:
    """All values now. `expiries` is when which certificate expires, by its file."""
    totals = status.totals
    single: dict[str, float] = {
        "requests": totals["requests"],
        "sent_bytes": totals["bytes_sent"],
        "shed": totals["shed"],
        "requests_in_flight": status.in_flight,
        "requests_per_second": status.requests_per_s,
        "connections": status.connections,
        "threads": sum(board.column(layout.THREADS_TOTAL)),
        "threads_busy": sum(board.column(layout.THREADS_BUSY)),
        "threads_waiting": sum(board.column(layout.THREADS_WAITING)),
        "workers_wanted": status.workers_wanted,
        "workers_ready": status.workers_ready,
        "generation": status.generation,
        "ready": status.ready,
        "degraded": status.degraded,
        "uptime_seconds": status.uptime_s,
    }
    queues = ((each.url, listener.waiting(each)) for each in listeners)
    workers = {str(worker.id): worker for worker in status.workers}
    return {
        **{name: [((), float(value))] for name, value in single.items()},
        "responses": [((name,), totals[f"status_{name}"]) for name in CLASSES],
        "restarts": [((reason,), count) for reason, count in status.restarts.items()],
        "stalls": [((stall.place,), stall.count) for stall in status.stalls],
        "stall_requests": [((stall.place,), stall.requests) for stall in status.stalls],
        "stall_seconds": [((stall.place,), stall.seconds) for stall in status.stalls],
        "accept_queue": [((url,), waiting) for url, waiting in queues if waiting is not None],
        "worker_rss_bytes": [((name,), worker.rss) for name, worker in workers.items() if worker.rss],
        "worker_heartbeat_age_seconds": _heartbeats(state, board),
        "worker_requests_in_flight": [((name,), worker.in_flight) for name, worker in workers.items()],
        "worker_connections": [((name,), worker.connections) for name, worker in workers.items()],
        "certificate_expiry_timestamp_seconds": [((file,), expiry) for file, expiry in expiries.items()],
    }


def _heartbeats(state: State, board: Board) -> list[tuple[tuple[str, ...], float]]:
    now_ns = time.monotonic_ns()
    ages: list[tuple[tuple[str, ...], float]] = []
    for worker in state.workers.values():
        row = board.row(worker.slot)
        beat_ns = row.get(layout.HEARTBEAT_NS)
        if beat_ns and row.get(layout.WORKER_ID) == worker.id:
            ages.append(((str(worker.id),), max(0, now_ns - beat_ns) / 1e9))
    return ages
