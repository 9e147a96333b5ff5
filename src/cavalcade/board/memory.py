"""Memory that processes share by a descriptor, and that is gone with the last of them, however they die."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

# Memory too, where there is one: what is mapped from a file on a disk is written back to it, and whoever writes at that moment waits.
MEMORY_DIRECTORY = "/dev/shm"


def new_file(name: str, size_bytes: int) -> int:
    """A descriptor of a file without a name in any file system, all zero, which no program started later inherits. `name` is for those who
    look into /proc.

    It is `memfd_create`'s; where that is refused, as seccomp profiles, sandboxes and old kernels do, an unlinked temporary file's, whose
    room is taken at once: a disk that is full must be an error here, not a SIGBUS at some later write.

    Raises `OSError` where neither can be had.
    """
    if hasattr(os, "memfd_create"):
        try:
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
        except OSError:
            pass
        else:
            return _sized(fd, size_bytes, os.ftruncate)
    try:
        return _temporary(name, size_bytes, MEMORY_DIRECTORY)
    except OSError:  # there is none, it is full, or not ours to write
        return _temporary(name, size_bytes, None)


def _temporary(name: str, size_bytes: int, directory: str | None) -> int:
    with tempfile.TemporaryFile(prefix=f"{name}-", dir=directory) as file:
        return _sized(os.dup(file.fileno()), size_bytes, _reserve)


def _sized(fd: int, size_bytes: int, resize: Callable[[int, int], None]) -> int:
    try:
        resize(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def _reserve(fd: int, size_bytes: int) -> None:
    if size_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size_bytes)
    else:
        os.ftruncate(fd, size_bytes)
