"""The server's metrics as Prometheus reads them: every name with its meaning, declared here and nowhere else, and how they are written.

Where the values come from is no business of this module: `supervisor/measures.py` takes them from the board and the policy. They are
written by prometheus-client, in its text format or in OpenMetrics, as the scraper asks.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from cavalcade.board.ledger_words import BOUNDS_S

PREFIX = "cavalcade_"


class Kind(enum.Enum):
    """What a metric is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Family:
    """One metric. `name` is without the prefix; a counter has `_total` behind it where it is written."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    kind: Kind = Kind.GAUGE


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name, text, labels, Kind.COUNTER)


def _histogram(name: str, text: str) -> Family:
    return Family(name, text, (), Kind.HISTOGRAM)


def _worker(name: str, text: str, *labels: str) -> Family:
    return Family(f"worker_{name}", text, ("slot", "worker", *labels))


FAMILIES = (
    _counter("requests", "Requests that the app or the server has answered, by method and class of the status.", "method", "status_class"),
    _histogram("request_duration_seconds", "From the head of a request to the end of its response."),
    _histogram("request_first_byte_seconds", "From the head of a request to the first byte of its response."),
    _counter("sent_bytes", "Bytes of response bodies sent, and of all that goes out on WebSockets."),
    _counter("received_bytes", "Bytes of request bodies received, and of all that comes in on WebSockets."),
    _counter("websocket_messages", "Messages on WebSockets, received and sent.", "direction"),
    _counter("shed", "Requests answered 503 without the app, because too many were in flight."),
    _counter("accepted_connections", "Connections accepted."),
    _counter("hand_overs", "Idle connections that a leaving worker has given to another, alive."),
    _histogram(
        "accept_wait_seconds", "For how long the first connection of each wake had waited in the kernel's queue, or its first bytes had."
    ),
    _histogram("loop_lag_seconds", "How late the event loops of the workers turned, looked at many times a second."),
    _counter("gc_pauses", "Runs of Python's garbage collector in the workers, by generation.", "generation"),
    _counter("gc_pause_seconds", "Time that they took.", "generation"),
    _counter("restarts", "Workers that were replaced, by reason.", "reason"),
    _counter("stalls", "Times that a worker's event loop was blocked for stall_warn or longer, by the place in the code.", "place"),
    _counter("stall_requests", "Requests that waited while an event loop was blocked, by the place in the code.", "place"),
    _counter("stall_delay_seconds", "For how long they waited, all of them together, by the place in the code.", "place"),
    _counter("stall_seconds", "Time that event loops were blocked, by the place in the code.", "place"),
    Family("requests_in_flight", "Requests that are being answered."),
    Family("requests_per_second", "Requests of the last second."),
    Family("connections", "Open connections of clients, idle ones included."),
    Family("protocol_connections", "Open connections by what is spoken; those over TLS count as tls too.", ("protocol",)),
    Family("accept_queue", "Connections that the kernel has established and no worker has accepted.", ("listener",)),
    Family("threads", "Threads that the app's sync code runs in."),
    Family("threads_busy", "Threads that run the app's sync code now."),
    Family("threads_waiting", "Calls that wait for a thread to become free."),
    Family("workers_wanted", "Workers that ought to serve."),
    Family("workers_ready", "Workers that accept connections."),
    Family("workers_blocked", "Workers whose event loop does not turn, stopped ones included."),
    Family("generation", "The generation of the app's code that serves."),
    Family("ready", "1 where a load balancer should send requests here, else 0."),
    Family("degraded", "1 where workers are missing that cannot be replaced, else 0."),
    Family("uptime_seconds", "Time since this supervisor has started."),
    _worker("rss_bytes", "Resident memory of a worker; pages that it shares with others are counted in each."),
    _worker("pss_bytes", "Resident memory of a worker; of pages that it shares with others, its part."),
    _worker("busy_ratio", "How much of the last second a worker's event loop worked or was blocked, 0 to 1."),
    _worker("loop_lag_seconds", "How late a worker's event loop turned at worst in the last second; while it is blocked, for how long."),
    _worker("requests_in_flight", "Requests that a worker is answering."),
    _worker("connections", "Open connections of a worker."),
    _worker("blocked", "1 where a worker's event loop does not turn, else 0."),
    _worker("age_seconds", "Time since a worker was started."),
    Family("certificate_expiry_timestamp_seconds", "When a served certificate expires, in seconds since 1970.", ("file",)),
)


@dataclass(frozen=True)
class Histogram:
    """`buckets` are how many up to each of the bounds, and more than that, not cumulated."""

    buckets: Sequence[int]
    sum: float


# The values of one family: of each sample its labels, in the order in which they are declared, and its value.
Values = Mapping[str, Sequence[tuple[tuple[str, ...], float | Histogram]]]


def render(values: Values, accept: str, more: Collector | None = None) -> tuple[bytes, str]:
    """All of `values`, by the name of their family, and `more`, with the content type that suits the `Accept` header `accept`."""
    registry = CollectorRegistry()
    registry.register(_Values(values))
    if more is not None:
        registry.register(more)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Values(Collector):
    """What prometheus-client asks for the values."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            metric = _KINDS[family.kind](PREFIX + family.name, family.text, labels=family.labels)
            for labels, value in self._values.get(family.name, ()):
                names = [_printable(label) for label in labels]
                if isinstance(value, Histogram):
                    metric.add_metric(names, _buckets(value), value.sum)
                else:
                    metric.add_metric(names, value)
            yield metric


_KINDS: dict[Kind, Any] = {Kind.GAUGE: GaugeMetricFamily, Kind.COUNTER: CounterMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}


def _buckets(histogram: Histogram) -> list[tuple[str, int]]:
    """As Prometheus wants them: (up to this, how many in all)."""
    bounds = [*map(floatToGoString, BOUNDS_S), "+Inf"]
    return list(zip(bounds, accumulate(histogram.buckets), strict=True))


def _printable(text: str) -> str:
    """A label that can be written: a file's name may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
