"""Whole lines out of the program, without ever waiting for whoever reads them.

A worker has one thread. A terminal that was stopped, a log shipper that hangs or a full disk must not stop it, so a write here
never blocks and never raises: what cannot go out now is kept for the next time, within a limit, and what is over the limit
is dropped by whole lines and counted.

The descriptor itself must stay blocking, because it is shared with the app's own `print`, the other workers and the shell. So
a pipe or a terminal is opened once more through /proc, which gives a description of our own that may be non-blocking; a socket
(journald) is written with MSG_DONTWAIT; a file never blocks. Elsewhere `poll` is asked first.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections import deque

from cavalcade import limits

# A write to a pipe of at most PIPE_BUF bytes is whole or not at all, so lines of several workers never mix (POSIX write(2)).
_PIPE_CHUNK = select.PIPE_BUF


class LineWriter:
    """Writes whole lines to a descriptor. `dropped` counts the lines that were lost, `trouble` says why, or is ""."""

    def __init__(self, fd: int, *, patience_s: float = 0.0) -> None:
        """`patience_s` is how long one write may wait for a slow reader; after it has been used up in vain the writer stops
        waiting until the reader has caught up."""
        self.dropped = 0
        self.trouble = ""
        self._patience_s = patience_s
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._own_fd = -1
        self._socket: socket.socket | None = None
        self._ask_first = False
        self._atomic = False
        self._fd = fd
        self._open(fd)

    @property
    def kept_bytes(self) -> int:
        """What waits for the reader."""
        return self._kept_bytes

    def _open(self, fd: int) -> None:
        try:
            mode = os.fstat(fd).st_mode
        except OSError as exc:
            self.trouble = _name(exc)
            self._fd = -1
            return
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif not stat.S_ISREG(mode):
            self._atomic = stat.S_ISFIFO(mode)
            try:
                self._own_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._fd = self._own_fd
            except OSError:
                # No /proc, a pipe without a reader, or a terminal of another user.
                self._ask_first = True

    def write(self, lines: bytes) -> None:
        """Write one or more whole lines, each with its end. Never blocks beyond the patience, never raises."""
        if not self._kept and (not self._atomic or len(lines) <= _PIPE_CHUNK):
            rest = self._send(lines)
            if not rest:
                return
            self._keep(rest)
        else:
            self._keep(lines)
        self.flush()

    def flush(self) -> None:
        """Try again to write what is kept."""
        while self._kept:
            chunk = self._kept[0]
            rest = self._send(chunk)
            if len(rest) == len(chunk):
                if not self._wait():
                    break
                continue
            self._kept_bytes -= len(chunk) - len(rest)
            if rest:
                self._kept[0] = rest  # begun, so it must go on from here, whatever else is dropped
            else:
                self._kept.popleft()
        if self._kept_bytes > limits.LOG_KEPT_BYTES:
            self._drop()

    def close(self) -> None:
        """Give back what this writer opened. Kept lines get one last chance."""
        self.flush()
        if self._own_fd >= 0:
            os.close(self._own_fd)
            self._own_fd = self._fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._fd = -1

    def _send(self, data: bytes) -> bytes:
        """What is left of `data`; nothing of it where the lines are lost for good, which is counted."""
        if self._fd < 0:
            return self._lose(data)
        try:
            if self._socket is not None:
                sent = self._socket.send(data, socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))
            elif self._ask_first and not self._writable(0.0):
                return data
            else:
                sent = os.write(self._fd, data[:_PIPE_CHUNK] if self._ask_first else data)
        except BlockingIOError:
            return data
        except OSError as exc:  # EPIPE, ENOSPC, EIO: it may be over by the next line, this one is lost
            self.trouble = _name(exc)
            return self._lose(data)
        if self.trouble:
            self.trouble = ""
        return data[sent:]

    def _lose(self, data: bytes) -> bytes:
        self.dropped += data.count(b"\n")
        return b""

    def _keep(self, lines: bytes) -> None:
        self._kept_bytes += len(lines)
        if not self._atomic:
            self._kept.append(lines)
            return
        start = 0
        while start < len(lines):
            # Cut at the last line end that fits; a single line over the chunk goes as it is.
            end = lines.rfind(b"\n", start, start + _PIPE_CHUNK) + 1
            if end <= start:
                end = lines.find(b"\n", start) + 1 or len(lines)
            self._kept.append(lines[start:end])
            start = end

    def _drop(self) -> None:
        """Forget the oldest chunks over the limit, but never the first: half of it may be out already."""
        first = self._kept.popleft()
        while self._kept and self._kept_bytes > limits.LOG_KEPT_BYTES // 2:
            chunk = self._kept.popleft()
            self._kept_bytes -= len(chunk)
            self._lose(chunk)
        self._kept.appendleft(first)
        self.trouble = "nobody reads it"

    def _wait(self) -> bool:
        """Whether the reader took something within the patience."""
        if self._patience_s <= 0 or self.trouble:
            return False
        if self._writable(self._patience_s):
            return True
        self.trouble = "nobody reads it"
        return False

    def _writable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno() if self._socket is not None else self._fd, select.POLLOUT)
        return bool(poll.poll(timeout_s * 1000))


def _name(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__
