"""The app's own metrics, where it makes them with prometheus-client: read from the files that its multiprocess mode keeps for each process.

That mode by itself needs a variable before anything is imported and an empty directory at every start, keeps the files of the dead for
ever and fails on one that a killed process has left empty. Here the variable and the directory are the server's, what the dead
have counted is added up in one file of each kind, and a file that cannot be read is left out.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from cavalcade import limits

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
DEAD = "dead"
_UNREADABLE = (OSError, ValueError, RuntimeError, struct.error)  # empty, cut short, or of another version

log = logging.getLogger("cavalcade")

# Neither is typed.
_new_file: Any = MmapedDict
_read_file: Any = MmapedDict.read_all_values_from_file
_merge_files: Any = MultiProcessCollector.merge

Merge = Callable[[tuple[float, float], tuple[float, float]], tuple[float, float]]


def _sum(old: tuple[float, float], new: tuple[float, float]) -> tuple[float, float]:
    return old[0] + new[0], max(old[1], new[1])


# How the value of a dead process, with its time, goes on, by kind of file. Of a gauge in one of the other modes nothing does: it is of live
# processes only, or has a series for each, which would be one more for every worker that ever was.
_MERGES: dict[str, Merge] = {
    "counter": _sum,
    "histogram": _sum,
    "summary": _sum,
    "gauge_sum": _sum,
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": lambda old, new: max(old, new, key=lambda value: value[1]),
}


class AppMetrics(Collector):
    """Those in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._full = False

    def collect(self) -> Iterator[Metric]:
        """All of them. A name of ours is left out."""
        self.sweep()
        files = self._files()
        try:
            merged = _merge(files)
        except _UNREADABLE:  # one of them is; which, is only then worth reading each of them once more
            merged = _merge([path for path in files if _read(path) is not None])
        for metric in merged:
            if not metric.name.startswith("cavalcade_"):
                yield metric

    def sweep(self) -> None:
        """Add up what processes have left that are gone."""
        for path in self._files():
            kind, _, pid = path.stem.rpartition("_")
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                self._fold(path, kind)

    def _files(self) -> list[Path]:
        try:
            return sorted(self.directory.glob("*.db"))
        except OSError:
            return []

    def _fold(self, path: Path, kind: str) -> None:
        merge = _MERGES.get(kind)
        values = _read(path) if merge is not None else None
        try:
            if merge is not None and values:
                self._add(self.directory / f"{kind}_{DEAD}.db", values, merge)
            path.unlink()
        except _UNREADABLE as error:
            log.warning("the app's metrics: %s of a dead process cannot be added up: %s", path.name, error)

    def _add(self, path: Path, values: dict[str, tuple[float, float]], merge: Merge) -> None:
        known = (_read(path) or {}) if path.exists() else {}
        file = _new_file(str(path))
        try:
            for key, value in values.items():
                if key in known:
                    file.write_value(key, *merge(known[key], value))
                elif len(known) < limits.APP_SERIES:
                    known[key] = value
                    file.write_value(key, *value)
                elif not self._full:
                    self._full = True
                    log.warning(
                        "the app's metrics: of dead workers only %d series are kept: look for a label that grows", limits.APP_SERIES
                    )
        finally:
            file.close()


def _merge(files: list[Path]) -> list[Metric]:
    return list(_merge_files([str(path) for path in files]))


def _read(path: Path) -> dict[str, tuple[float, float]] | None:
    """Every value with its time; None where the file cannot be read, as one that was made a moment ago and is empty."""
    try:
        return {key: (value, when) for key, value, when, _ in _read_file(str(path))}
    except _UNREADABLE:
        return None
