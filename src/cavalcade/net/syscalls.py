"""Reading from and writing to a socket that does not block, as cheaply as the build allows.

This file is what the pure build does. Compiled modules take the same two from syscalls.pxd instead, which call the kernel without a
lock given back and taken again for a call that never waits, and without an exception for "not now". No other place has pointers.
"""

from __future__ import annotations

import os


def receive(fd: int, size: int) -> bytes | None:
    """At most `size` bytes of what is there; b"" at the end, None when there is nothing now. Raises `OSError` when the connection is
    broken."""
    try:
        return os.read(fd, size)
    except (BlockingIOError, InterruptedError):
        return None


def give(fd: int, data: bytes) -> int:
    """How many bytes of `data` the kernel has taken, 0 when it takes none now. Raises `OSError` when the connection is broken."""
    try:
        return os.write(fd, data)
    except (BlockingIOError, InterruptedError):
        return 0
