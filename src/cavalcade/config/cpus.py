"""How many CPUs this process may use: the affinity mask, and the cgroup CPU quota that containers are given.

`os.cpu_count()` sees the whole machine; a container with `cpus: 2` on a 64-core host would start 64 workers. cgroup v2 keeps the
quota in `cpu.max` ("200000 100000"), v1 in `cpu.cfs_quota_us` and `cpu.cfs_period_us`. Limits nest, so each directory from ours up
to the mount is read and the smallest counts. The mount table maps the path in `/proc/self/cgroup` to a directory: in a
container the two do not agree, because the host's path is mounted as the root.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


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
    found: list[float] = []
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            directories, read = _directories(root, "cgroup2", "", path), _quota_v2
        elif "cpu" in controllers.split(","):
            directories, read = _directories(root, "cgroup", "cpu", path), _quota_v1
        else:
            continue
        found += [quota for quota in map(read, directories) if quota is not None]
    return min(found, default=None)


def _directories(root: Path, filesystem: str, controller: str, path: str) -> list[Path]:
    """Our cgroup's directory and those above it, up to where the hierarchy is mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        # proc(5): id parent major:minor root mount-point options [optional fields] - type source super-options
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] != filesystem:
            continue
        if controller and controller not in kind[2].split(","):
            continue
        mount = root / fields[4].lstrip("/")
        ours, top = PurePosixPath(path), PurePosixPath(fields[3])
        inside = ours.relative_to(top) if ours.is_relative_to(top) else PurePosixPath()
        if ".." in inside.parts:  # a cgroup namespace that we were moved out of
            inside = PurePosixPath()
        here = mount / inside
        above = [here, *here.parents]
        return above[: above.index(mount) + 1]
    return []


def _quota_v2(directory: Path) -> float | None:
    words = " ".join(_lines(directory / "cpu.max")).split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        return int(words[0]) / int(words[1])
    return None  # "max 100000", or the root group, which has no such file


def _quota_v1(directory: Path) -> float | None:
    quota = "".join(_lines(directory / "cpu.cfs_quota_us")).strip()
    period = "".join(_lines(directory / "cpu.cfs_period_us")).strip()
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return None  # -1 is no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
