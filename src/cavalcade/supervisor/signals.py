"""Which signals the supervisor hears. A handler only puts an event into the queue; what follows is the policy's to decide."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

HEARD = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

PR_SET_CHILD_SUBREAPER = 36


def listen(loop: asyncio.AbstractEventLoop, on_signal: Callable[[signal.Signals], object], on_child: Callable[[], object]) -> None:
    """From now on call `on_signal` for the signals of `HEARD` and `on_child` for SIGCHLD, in the loop. Main thread only."""
    for signum in HEARD:
        loop.add_signal_handler(signum, on_signal, signum)
    loop.add_signal_handler(signal.SIGCHLD, on_child)


def silence(loop: asyncio.AbstractEventLoop) -> None:
    """Back to the defaults."""
    for signum in (*HEARD, signal.SIGCHLD):
        loop.remove_signal_handler(signum)


def adopt_orphans(wanted: bool) -> None:
    """Linux: become the parent of workers whose nursery has died, so that we learn how they end. Elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def signal_main_thread(pid: int, signum: signal.Signals | int) -> None:
    """As `os.kill`, but to the main thread and to no other. Raises `ProcessLookupError`.

    kill(2) is for a process: where its main thread has another signal pending the kernel picks any thread, and one that answers with the
    stack it stands at would blame whatever an idle thread of a pool waits for.
    """
    try:
        send = ctypes.CDLL(None).tgkill  # Linux, where a main thread has the number of its process
    except AttributeError:  # another system, or musl
        os.kill(pid, signum)
        return
    if send(pid, pid, int(signum)) != 0:
        raise ProcessLookupError(pid)
