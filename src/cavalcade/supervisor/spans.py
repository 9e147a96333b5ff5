"""How a length of time is written in a line."""

from __future__ import annotations


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
