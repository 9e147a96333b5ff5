"""How a process ended, in words.

A crash in C code leaves its stack to `faulthandler`, which writes it from inside the dying process. It writes into a nameless file
that the parent holds too, not to the terminal: so a crash that four workers share is told once, in the words of the log, with the
app's own frames.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

CRASH_BYTES = 65536  # of what faulthandler has written are read; it stops at 100 frames for each thread
FRAMES = 12  # innermost frames of a crash that are shown

_OURS = str(Path(__file__).parent.parent) + os.sep
_MACHINERY = ('File "<frozen importlib', 'File "<frozen runpy')


def describe_exit(status: int | None) -> str:
    """ "was killed by SIGKILL", "exited with status 1"; `status` as `os.waitstatus_to_exitcode` gives it, None for unknown."""
    if status is None:
        return "ended (its exit status is not known)"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name of its own
        return f"was killed by signal {-status}"


def crash_file() -> int:
    """A descriptor of a file without a name, for `faulthandler.enable`. Raises `OSError`."""
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("cavalcade-crash", os.MFD_CLOEXEC)
        except OSError:  # not allowed here; an unlinked file is as good
            pass
    with tempfile.TemporaryFile(prefix="cavalcade-crash-") as file:
        return os.dup(file.fileno())


def read_crash(fd: int) -> str:
    """The innermost frames of a crash, the app's and those of the libraries it called; "" where nothing was written."""
    try:
        text = os.pread(fd, CRASH_BYTES, 0).decode("utf-8", "replace")
    except OSError:
        return ""
    _, found, frames = text.partition("(most recent call first):\n")
    if not found:
        return ""
    kept: list[str] = []
    for line in frames.splitlines():
        if not line.startswith("  File ") or f'File "{_OURS}' in line or line.strip().startswith(_MACHINERY):
            break
        kept.append(line)
    return "\n".join(["Most recent call first:", *kept[:FRAMES]]) if kept else ""
