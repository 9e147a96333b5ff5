"""What one measurement brings, and how the output of the load programs is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from speed.process import Unmeasurable


@dataclass
class Sample:
    """One server in one case in one round; None where a case does not have such a number."""

    cpu_us: float | None = None  # user and system time of all its processes and threads, for each request
    per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    kib_each: float | None = None  # resident memory that each connection added
    start_ms: float | None = None  # from the command to the first answer
    errors: int = 0
    rss_mib: float | None = None


def read_wrk(text: str, used_s: float) -> Sample:
    """From what `load.lua` prints at the end. A request that was not answered with 2xx or 3xx is an error."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise Unmeasurable(f"wrk's output is not understood: {text[-300:]!r}")
    seen = json.loads(lines[-1])
    errors = sum(seen[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    if not seen["requests"]:
        raise Unmeasurable(f"no request was answered, and there were {errors} errors")
    return Sample(
        cpu_us=used_s / seen["requests"] * 1e6,
        per_s=seen["requests"] / seen["duration_us"] * 1e6,
        p50_ms=seen["p50_us"] / 1000,
        p99_ms=seen["p99_us"] / 1000,
        p999_ms=seen["p999_us"] / 1000,
        errors=errors,
    )


def read_h2load(text: str, log: Iterable[str], used_s: float) -> Sample:
    """From what h2load prints, and its log: a line for each request of when it began, its status, and the microseconds it took."""
    requests = re.search(r"requests: \d+ total, (\d+) started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)
    if requests is None or rate is None:
        raise Unmeasurable(f"h2load's output is not understood: {text[-300:]!r}")
    succeeded, failed = int(requests[2]), int(requests[3])
    if not succeeded:
        raise Unmeasurable(f"no request was answered, and {failed} failed")
    took_s = [int(line.split()[2]) / 1e6 for line in log if line.split()[1:2] == ["200"]]
    return with_percentiles(Sample(cpu_us=used_s / succeeded * 1e6, per_s=float(rate[1]), errors=failed), took_s)


def with_percentiles(sample: Sample, took_s: Sequence[float]) -> Sample:
    if took_s:
        ordered = sorted(took_s)
        sample.p50_ms, sample.p99_ms, sample.p999_ms = (percentile(ordered, share) * 1000 for share in (0.5, 0.99, 0.999))
    return sample


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that so large a share of them does not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
