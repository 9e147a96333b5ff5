"""What `/metrics` tells: the status, and what else board, sockets and certificates say, by the names of `observe/metrics.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cavalcade.board import ledger_words
from cavalcade.board.ledger_words import Sums
from cavalcade.net import listener
from cavalcade.net.listener import Listener
from cavalcade.observe.metrics import Histogram, Values
from cavalcade.supervisor.status import Status, WorkerStatus


def measure(status: Status, sums: Sums, listeners: Iterable[Listener], expiries: Mapping[str, float]) -> Values:
    """All values now. `sums` is what all workers have counted, `expiries` when which certificate expires, by its file."""
    queues = ((each.url, listener.waiting(each)) for each in listeners)
    return {
        **{name: [((), float(value))] for name, value in _single(status).items()},
        **_counted(sums),
        **_workers(status.workers),
        "restarts": [((reason,), count) for reason, count in status.restarts.items()],
        "stalls": [((stall.place,), stall.count) for stall in status.stalls],
        "stall_requests": [((stall.place,), stall.requests) for stall in status.stalls],
        "stall_delay_seconds": [((stall.place,), stall.delay_s) for stall in status.stalls],
        "stall_seconds": [((stall.place,), stall.seconds) for stall in status.stalls],
        "protocol_connections": [((protocol,), count) for protocol, count in status.connections_by.items()],
        "accept_queue": [((url,), waiting) for url, waiting in queues if waiting is not None],
        "certificate_expiry_timestamp_seconds": [((file,), expiry) for file, expiry in expiries.items()],
    }


def _single(status: Status) -> dict[str, float]:
    return {
        "requests_in_flight": status.in_flight,
        "requests_per_second": status.requests_per_s,
        "connections": status.connections,
        "threads": sum(worker.threads for worker in status.workers),
        "threads_busy": sum(worker.threads_busy for worker in status.workers),
        "threads_waiting": sum(worker.queued for worker in status.workers),
        "workers_wanted": status.workers_wanted,
        "workers_ready": status.workers_ready,
        "workers_blocked": sum(worker.blocked for worker in status.workers),
        "generation": status.generation,
        "ready": status.ready,
        "degraded": status.degraded,
        "uptime_seconds": status.uptime_s,
    }


def _counted(sums: Sums) -> Values:
    single = {
        "sent_bytes": ledger_words.BYTES_SENT,
        "received_bytes": ledger_words.BYTES_RECEIVED,
        "shed": ledger_words.SHED,
        "accepted_connections": ledger_words.ACCEPTED,
        "hand_overs": ledger_words.HAND_OVERS,
    }
    histograms = {
        "request_duration_seconds": ledger_words.LATENCY,
        "request_first_byte_seconds": ledger_words.FIRST_BYTE,
        "accept_wait_seconds": ledger_words.ACCEPT_WAIT,
        "loop_lag_seconds": ledger_words.LOOP_LAG,
    }
    return {
        **{name: [((), sums.get(word))] for name, word in single.items()},
        **{name: [((), Histogram(sums.buckets(word), sums.seconds(word)))] for name, word in histograms.items()},
        "requests": [((method, name), count) for method, name, count in sums.responses() if count],
        "websocket_messages": [
            (("received",), sums.get(ledger_words.WEBSOCKET_RECEIVED)),
            (("sent",), sums.get(ledger_words.WEBSOCKET_SENT)),
        ],
        "gc_pauses": [((str(generation),), sums.get(ledger_words.GC_PAUSES + generation)) for generation in range(3)],
        "gc_pause_seconds": [((str(generation),), sums.get(ledger_words.GC_NS + generation) / 1e9) for generation in range(3)],
    }


def _workers(workers: Iterable[WorkerStatus]) -> Values:
    named = [((str(worker.slot), str(worker.id)), worker) for worker in workers]
    return {
        "worker_rss_bytes": [(name, worker.rss) for name, worker in named if worker.rss],
        "worker_pss_bytes": [(name, worker.pss) for name, worker in named if worker.pss],
        "worker_busy_ratio": [(name, worker.busy) for name, worker in named],
        "worker_loop_lag_seconds": [(name, worker.loop_lag_s) for name, worker in named],
        "worker_requests_in_flight": [(name, worker.in_flight) for name, worker in named],
        "worker_connections": [(name, worker.connections) for name, worker in named],
        "worker_blocked": [(name, float(worker.blocked)) for name, worker in named],
        "worker_age_seconds": [(name, worker.age_s) for name, worker in named],
    }
