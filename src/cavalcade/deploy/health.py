"""How each tool asks whether a server is well: the one place that says so.

Two kinds of question can be answered today. Who can start a process beside the server runs `cavalcade health`, which asks the
supervisor over its control socket and never waits behind the app. Who can only connect learns whether somebody listens: the
listening socket is closed when `drain_delay` is over and while the server is not there. It is open before the first worker is
ready, and connections then wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

START_PERIOD_S = 2  # asked only until the answer is yes
READY_PERIOD_S = 10  # each question starts a Python
LIVE_PERIOD_S = 30
PROCESS_TIMEOUT_S = 10  # a Python on a machine that is short of CPU
CHECK_PERIOD_S = 1  # a connection costs next to nothing


@dataclass(frozen=True)
class Probe:
    """One Kubernetes probe."""

    name: str
    question: str
    period: int
    failures: int

    def lines(self, control: Sequence[str]) -> list[str]:
        words = ", ".join(f'"{word}"' for word in ("cavalcade", "health", self.question, *control))
        return [
            f"{self.name}:",
            f"  exec: {{command: [{words}]}}",
            f"  periodSeconds: {self.period}",
            f"  timeoutSeconds: {PROCESS_TIMEOUT_S}",
            f"  failureThreshold: {self.failures}",
        ]


def kubernetes(boot_s: float, control: Sequence[str]) -> list[str]:
    """The three probes of a container."""
    probes = (
        Probe("startupProbe", "started", START_PERIOD_S, -(-int(boot_s) // START_PERIOD_S)),
        Probe("readinessProbe", "ready", READY_PERIOD_S, 2),
        # Asks the supervisor, which sees to its workers by itself: no slow request and no blocked loop makes this fail.
        Probe("livenessProbe", "live", LIVE_PERIOD_S, 4),
    )
    return [line for probe in probes for line in probe.lines(control)]


def docker(boot_s: float, control: Sequence[str]) -> str:
    words = ", ".join(f'"{word}"' for word in ("cavalcade", "health", "ready", *control))
    times = f"--interval={READY_PERIOD_S}s --timeout={PROCESS_TIMEOUT_S}s --start-period={boot_s:.0f}s --retries=3"
    return f"HEALTHCHECK {times} CMD [{words}]"


def haproxy() -> str:
    """After `server NAME ADDRESS`: a connection every second."""
    return f"check inter {CHECK_PERIOD_S}s fall 2 rise 1"


def envoy() -> list[str]:
    return [
        "health_checks:",
        f"  - interval: {CHECK_PERIOD_S}s",
        f"    no_traffic_interval: {CHECK_PERIOD_S}s",
        "    timeout: 2s",
        "    unhealthy_threshold: 2",
        "    healthy_threshold: 1",
        "    tcp_health_check: {}",
    ]


def passive_s() -> int:
    """nginx and Caddy only look at what becomes of requests: how long they leave a server alone that could not be reached."""
    return CHECK_PERIOD_S
