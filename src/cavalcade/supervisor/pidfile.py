"""The file that tells other programs which process to signal (`--pid`)."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from cavalcade.errors import StartupError


class PidFile:
    """Written once the sockets are bound, removed at the end, never somebody else's."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()  # the app may change the directory, and so may we

    def write(self, *, successor_of: int = 0) -> None:
        """Write our pid, whole or not at all. A file of a process that is gone is replaced, or of the one that we take over from.

        Raises `StartupError` where it names a running server, or cannot be written.
        """
        holder = self._holder()
        if holder is not None and holder.pid != successor_of:
            raise StartupError(
                f"The pid file {self.path} belongs to pid {holder.pid}, a server that is running.",
                fix=f"Use another --pid, or stop that one: kill {holder.pid}",
            )
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            draft.write_text(f"{os.getpid()}\n")
            draft.replace(self.path)
        except OSError as error:
            raise StartupError(
                f"Cannot write the pid file {self.path}: {error.strerror}.", fix="Use a directory that this user may write to"
            ) from error

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if self._read() == os.getpid():
            self.path.unlink(missing_ok=True)

    def _read(self) -> int:
        try:
            return int(self.path.read_text().strip())
        except (OSError, ValueError):
            return 0

    def _holder(self) -> psutil.Process | None:
        """The server that the file belongs to, if it runs.

        A pid is reused sooner or later, in a container at once: a process that is not a server, or is ourselves, is no holder.
        """
        pid = self._read()
        if pid <= 0 or pid == os.getpid():
            return None
        try:
            process = psutil.Process(pid)
            return process if any("cavalcade" in word for word in process.cmdline()) else None
        except psutil.AccessDenied:
            return process
        except psutil.Error:
            return None
