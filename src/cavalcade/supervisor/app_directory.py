"""The directory of the app's own metrics: prometheus-client keeps a file of each kind in it for every process (observe/app_metrics.py)."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cavalcade.observe.app_metrics import VARIABLE
from cavalcade.supervisor import runtime_dir

PREFIX = "metrics-"
OWNER = "owner"  # a file with the pid of the server whose it is

log = logging.getLogger("cavalcade")


class AppDirectory:
    """Made when the server starts, removed when it ends; but one that the user has named is the user's."""

    def __init__(self, path: Path, *, ours: bool) -> None:
        self.path = path
        self._ours = ours

    @classmethod
    def maybe_make(cls, environ: Mapping[str, str], handed: str) -> AppDirectory | None:
        """None where there is no room for one. `handed` is that of the server whose place this one takes, or "": it goes on with it."""
        named = environ.get(VARIABLE, "")
        try:
            if named:
                Path(named).mkdir(parents=True, exist_ok=True)
                return cls(Path(named), ours=False)
            if handed and Path(handed).is_dir():
                return cls(Path(handed), ours=True)
            made = cls(_make(environ), ours=True)
            made.own()
            return made
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
        return str(self.path) if self._ours else ""

    def own(self) -> None:
        """It is this server's from now on: another that starts must not take it for a dead one's."""
        if self._ours:
            (self.path / OWNER).write_text(str(os.getpid()))

    def remove(self) -> None:
        """The server ends, and nobody goes on."""
        if self._ours:
            shutil.rmtree(self.path, ignore_errors=True)


def _make(environ: Mapping[str, str]) -> Path:
    for directory in runtime_dir.candidates(environ):
        try:
            runtime_dir.claim(directory)
            _clean(directory)
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix=f"cavalcade-{PREFIX}"))


def _clean(directory: Path) -> None:
    """Remove those of servers that were killed."""
    for path in directory.glob(f"{PREFIX}*"):
        try:
            owner = path / OWNER
            if runtime_dir.is_dead(int(owner.read_text()), owner.stat().st_mtime):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):
            continue  # one that is being made
