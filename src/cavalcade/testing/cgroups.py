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
_LIMITS = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}  # in version 1, in version 2
_EMPTY_S = 10.0
_POLL_S = 0.01


class NoControlGroup(Exception):
    """No group can be made here; the message says why, for the reason of a skipped test."""


class ControlGroup:
    """One group with one limit. Of version 1 other limits of its processes stay what they were."""

    def __init__(self, folder: Path, limit: Path) -> None:
        self._folder = folder
        self._limit = limit

    def add(self, pid: int) -> None:
        """Move a process there; the children that it has from now on are born there."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, value: int | str) -> None:
        """Another limit; "max" (version 1 of memory: -1) is none."""
        self._limit.write_text(str(value))


@contextmanager
def limited(controller: str, value: int) -> Iterator[ControlGroup]:
    """A group with a limit: "memory" in bytes, "pids" in processes and threads. Whoever is left in it at the end is let out. Raises
    `NoControlGroup`."""
    first, second = _LIMITS[controller]
    old = (CGROUPS / controller).is_dir()
    folder = (CGROUPS / controller if old else CGROUPS) / f"cavalcade-test-{os.getpid()}"
    group = ControlGroup(folder, folder / (first if old else second))
    try:
        folder.mkdir()
    except OSError as error:
        raise NoControlGroup(f"no control group for {controller} may be made here: {error}") from None
    try:
        try:
            group.limit(value)
        except OSError as error:
            raise NoControlGroup(f"control groups cannot limit {controller} here: {error}") from None
        yield group
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
