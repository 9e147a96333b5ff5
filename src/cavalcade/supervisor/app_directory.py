"""The directory of the app's own metrics: prometheus-client keeps a file of each kind in it for every process (observe/app_metrics.py)."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cavalcade.observe.app_metrics import VARIABLE
from cavalcade.supervisor import runtime_dir

PREFIX = "metrics-"

log = logging.getLogger("cavalcade")


class AppDirectory:
    """Made when the server starts, removed when it ends; but one that the user has named is the user's.

    Ours is locked for as long as a server lives that uses it: the kernel takes the lock back however that ends, and no clock or pid
    has to be believed. In an upgrade both hold it.
    """

    def __init__(self, path: Path, lock: int = -1) -> None:
        self.path = path
        self._lock = lock  # an open descriptor of it where it is ours

    @classmethod
    def maybe_make(cls, environ: Mapping[str, str], handed: str) -> AppDirectory | None:
        """None where there is no room for one. `handed` is that of the server whose place this one takes, or "": it goes on with it."""
        named = environ.get(VARIABLE, "")
        try:
            if named:
                Path(named).mkdir(parents=True, exist_ok=True)
                return cls(Path(named))
            if handed and (lock := _lock(Path(handed))) >= 0:
                return cls(Path(handed), lock)
            return cls(*_make(environ))
        except OSError as error:
            log.warning("the app's own metrics cannot be had: no directory can be made for them: %s", error)
            return None

    @property
    def nursery_environ(self) -> dict[str, str]:
        """For those that import the app."""
        return {VARIABLE: str(self.path)}

    @property
    def handed(self) -> str:
        """For a new server that may take our place."""
        return str(self.path) if self._lock >= 0 else ""

    def remove(self) -> None:
        """The server ends, and nobody goes on."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """The server ends, and another goes on."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _make(environ: Mapping[str, str]) -> tuple[Path, int]:
    for directory in runtime_dir.candidates(environ):
        try:
            runtime_dir.claim(directory)
            _clean(directory)
            return _make_locked(directory, PREFIX)
        except OSError:
            continue
    return _make_locked(None, f"cavalcade-{PREFIX}")


def _make_locked(parent: Path | None, prefix: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock(path)
        if lock >= 0:  # else one that starts too has taken it for a dead one's, just before it was locked
            return path, lock


def _lock(path: Path) -> int:
    """A descriptor of the directory that holds its lock with others, until it is closed; -1 where there is none. Raises `OSError`."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if path.is_dir():
            return lock
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return -1


def _clean(directory: Path) -> None:
    """Remove those of servers that were killed: nobody holds their lock."""
    for path in directory.glob(f"{PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # another was faster
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # its server lives
        finally:
            os.close(lock)
