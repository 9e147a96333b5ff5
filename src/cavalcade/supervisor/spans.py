"""How an exit status and a length of time are written in a line."""

from __future__ import annotations

import signal


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


def span(seconds: float) -> str:
    """ "0.4 s", "35 s", "4 min 5 s", "3 h 20 min", "2 d 5 h": two units at most."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    for big, big_s, small, small_s in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= big_s:
            rest = whole % big_s // small_s
            return f"{whole // big_s} {big} {rest} {small}" if rest else f"{whole // big_s} {big}"
    return f"{whole} s"
