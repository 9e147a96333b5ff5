"""The server's metrics as Prometheus reads them: every name with its meaning, declared here and nowhere else, and how they are written.

Where the values come from is no business of this module: `supervisor/measures.py` takes them from the board and the policy. They are
written by prometheus-client, in its text format or in OpenMetrics, as the scraper asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "cavalcade_"


@dataclass(frozen=True)
class Family:
    """One metric. `name` is without the prefix; a counter has `_total` behind it where it is written."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    counter: bool = False


FAMILIES = (
    Family("requests", "Requests that the app or the server has answered.", counter=True),
    Family("responses", "Responses by class of their status.", ("status_class",), counter=True),
    Family("sent_bytes", "Bytes of response bodies sent.", counter=True),
    Family("shed", "Requests answered 503 without the app, because too many were in flight.", counter=True),
    Family("restarts", "Workers that were replaced, by reason.", ("reason",), counter=True),
    Family(
        "stalls",
        "Times that a worker's event loop was blocked for stall_warn or longer, by the place in the code.",
        ("place",),
        counter=True,
    ),
    Family("stall_requests", "Requests that waited while an event loop was blocked, by the place in the code.", ("place",), counter=True),
    Family("stall_seconds", "Time that event loops were blocked, by the place in the code.", ("place",), counter=True),
    Family("requests_in_flight", "Requests that are being answered."),
    Family("requests_per_second", "Requests of the last second."),
    Family("connections", "Open connections of clients, idle ones included."),
    Family("accept_queue", "Connections that the kernel has established and no worker has accepted.", ("listener",)),
    Family("threads", "Threads that the app's sync code runs in."),
    Family("threads_busy", "Threads that run the app's sync code now."),
    Family("threads_waiting", "Calls that wait for a thread to become free."),
    Family("workers_wanted", "Workers that ought to serve."),
    Family("workers_ready", "Workers that accept connections."),
    Family("generation", "The generation of the app's code that serves."),
    Family("ready", "1 where a load balancer should send requests here, else 0."),
    Family("degraded", "1 where workers are missing that cannot be replaced, else 0."),
    Family("uptime_seconds", "Time since this supervisor has started."),
    Family("worker_rss_bytes", "Resident memory of a worker; pages that it shares with others are counted in each.", ("worker",)),
    Family("worker_heartbeat_age_seconds", "Time since a worker's event loop last turned.", ("worker",)),
    Family("worker_requests_in_flight", "Requests that a worker is answering.", ("worker",)),
    Family("worker_connections", "Open connections of a worker.", ("worker",)),
    Family("certificate_expiry_timestamp_seconds", "When a served certificate expires, in seconds since 1970.", ("file",)),
)

# The values of one family: of each sample its labels, in the order in which they are declared, and its value.
Values = Mapping[str, Sequence[tuple[tuple[str, ...], float]]]


def render(values: Values, accept: str) -> tuple[bytes, str]:
    """All of `values`, by the name of their family, and the content type that suits the `Accept` header `accept`."""
    registry = CollectorRegistry()
    registry.register(_Values(values))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Values(Collector):
    """What prometheus-client asks for the values."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            samples = self._values.get(family.name, ())
            kind = CounterMetricFamily if family.counter else GaugeMetricFamily
            metric = kind(PREFIX + family.name, family.text, labels=family.labels)
            for labels, value in samples:
                metric.add_metric([_printable(label) for label in labels], value)
            yield metric


def _printable(text: str) -> str:
    """A label that can be written: a file's name may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
