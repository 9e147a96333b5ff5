"""Limits that the kernel enforces for real: a control group of a test's own, version 1 or 2, where this machine lets us make one.

with limited("pids", 1) as group:
    group.add(server.nursery_pids[0])    # from here on it may not fork
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

CGROUPS = Path("/sys/fs/cgroup")
_EMPTY_S = 10.0
_POLL_S = 0.01


def _files(controller: str, value: int, *, old: bool) -> dict[str, str]:
    """What is to be written where, in version 1 (`old`) and in version 2."""
    match controller, old:
        case "memory", True:
            return {"memory.limit_in_bytes": str(value)}
        case "memory", False:
            return {"memory.max": str(value), "memory.swap.max": "0"}
        case "cpu", True:
            return {"cpu.cfs_period_us": "1000000", "cpu.cfs_quota_us": str(1000 * value)}
        case "cpu", False:
            return {"cpu.max": f"{1000 * value} 1000000"}
        case _:
            return {"pids.max": str(value)}


class NoControlGroup(Exception):
    """No group can be made here; the message says why, for the reason of a skipped test."""


class ControlGroup:
    """One group with one limit. Of version 1 other limits of its processes stay what they were."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """Move a process there; the children that it has from now on are born there."""
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def limited(controller: str, value: int) -> Iterator[ControlGroup]:
    """A group with a limit: "memory" in bytes, "pids" in processes and threads, "cpu" in milliseconds of each second. Whoever is left in
    it at the end is let out. Raises `NoControlGroup`."""
    old = (CGROUPS / controller).is_dir()
    folder = (CGROUPS / controller if old else CGROUPS) / f"cavalcade-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise NoControlGroup(f"no control group for {controller} may be made here: {error}") from None
    try:
        try:
            for name, text in _files(controller, value, old=old).items():
                (folder / name).write_text(text)
        except OSError as error:
            raise NoControlGroup(f"control groups cannot limit {controller} here: {error}") from None
        yield ControlGroup(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    deadline = monotonic() + _EMPTY_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if monotonic() > deadline:
                raise
            _empty(folder)
            sleep(_POLL_S)  # a process that has been killed counts until it is reaped, and nothing tells when that is
        else:
            return


def _empty(folder: Path) -> None:
    """Move whoever is left to the group above."""
    for pid in (folder / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (folder.parent / "cgroup.procs").write_text(pid)
