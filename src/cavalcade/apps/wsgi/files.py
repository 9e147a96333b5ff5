"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling")."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

from cavalcade.apps.span import Span

BLOCK_BYTES = 64 * 1024  # what a file that must be read is read in, where the app does not say


class FileWrapper:
    """What an app returns to have a file sent. An iterable too, for a middleware that wants to see the bytes."""

    def __init__(self, filelike: Any, blksize: int = BLOCK_BYTES) -> None:
        self.filelike = filelike
        self.blksize = blksize
        close = getattr(filelike, "close", None)
        if close is not None:
            self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


def maybe_span(filelike: Any) -> Span | None:
    """What of this file is to be sent: from where it stands to its end. None where only reading it tells what is in it."""
    # A descriptor alone proves nothing: that of a GzipFile gives what is compressed. So ask who really reads: the file itself, or one
    # that a wrapper (of `tempfile`, of Django) has given its own method for.
    read = getattr(filelike, "read", None)
    owner: Any = getattr(getattr(read, "__wrapped__", read), "__self__", None)
    raw = owner.raw if isinstance(owner, io.BufferedReader | io.BufferedRandom) else owner
    if type(owner) not in (io.BufferedReader, io.BufferedRandom, io.FileIO) or type(raw) is not io.FileIO:
        return None
    try:
        if isinstance(owner, io.BufferedRandom):
            owner.flush()
        offset = owner.tell()
        info = os.fstat(raw.fileno())
        if not stat.S_ISREG(info.st_mode):
            return None
        return Span(os.dup(raw.fileno()), offset, max(0, info.st_size - offset))
    except (OSError, ValueError):  # not seekable, or closed: reading it says so
        return None
