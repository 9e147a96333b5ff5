"""How many CPUs this process may use: the affinity mask, and the cgroup CPU quota that containers are given.

`os.cpu_count()` sees the whole machine; a container with `cpus: 2` on a 64-core host would start 64 workers. cgroup v2 keeps the
quota in `cpu.max` ("200000 100000"), v1 in `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from cavalcade.config import cgroups


@dataclass(frozen=True)
class Cpus:
    """`count` is whole CPUs, at least 1 and never more than is allowed; `quota` the cgroup's share, None for no limit."""

    count: int
    affinity: int
    quota: float | None

    @property
    def reason(self) -> str:
        """One line of reasoning for the log."""
        if self.quota is None:
            return f"{self.affinity} usable by affinity, no cgroup CPU limit"
        return f"{self.affinity} usable by affinity, cgroup CPU limit {self.quota:g}"


def count(root: Path = Path("/"), affinity: int | None = None) -> Cpus:
    """Read the limits of this process. `root` and `affinity` stand in for the machine in tests."""
    if affinity is None:
        affinity = _affinity()
    quota = _quota(root)
    # Rounded down: three workers on 2.5 CPUs get throttled in the middle of a request.
    allowed = affinity if quota is None else min(affinity, math.floor(quota))
    return Cpus(max(1, allowed), affinity, quota)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has neither affinity nor cgroups


def _quota(root: Path) -> float | None:
    """The smallest quota, in CPUs, of the cgroups this process is in."""
    found = [
        _quota_v2(directory) if unified else _quota_v1(directory) for directory, unified in cgroups.directories(root, controller="cpu")
    ]
    return min((quota for quota in found if quota is not None), default=None)


def _quota_v2(directory: Path) -> float | None:
    words = " ".join(cgroups.lines(directory / "cpu.max")).split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        return int(words[0]) / int(words[1])
    return None  # "max 100000", or the root group, which has no such file


def _quota_v1(directory: Path) -> float | None:
    quota = "".join(cgroups.lines(directory / "cpu.cfs_quota_us")).strip()
    period = "".join(cgroups.lines(directory / "cpu.cfs_period_us")).strip()
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return None  # -1 is no limit
