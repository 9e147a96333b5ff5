"""Files as response bodies. On a plaintext connection the kernel sends them by itself (`sendfile`): their bytes never come into this
process. Elsewhere they are read piece by piece, only as fast as the client takes them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cavalcade import limits
from cavalcade.apps.stream import Stream
from cavalcade.net.link import Link

if TYPE_CHECKING:
    from cavalcade.net.connection import Connection

# The file system, or the kind of file, that the kernel cannot send from.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class KernelSend:
    """The kernel sends a file into a socket. `done(sent)` is called once, also where the file was shorter than `count`; never after
    `stop()`. The descriptor is closed in any case.
    """

    def __init__(self, link: Link, fd: int, offset: int, count: int, sent: int, done: Callable[[int], None]) -> None:
        """So many bytes of it are `sent` already."""
        self._link = link
        self._loop = link.context.loop
        self._fd = fd
        self._offset = offset
        self._count = count
        self._done = done
        self._socket = link.fd
        self._watching = False
        self._sent = sent
        self._progress_until = 0.0
        self._sent_before = sent

    def start(self) -> None:
        """Send, once what the transport holds (the head) is with the kernel."""
        self._progress_until = self._link.context.now + self._link.context.write_s
        transport = self._link.transport
        transport.push()
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)  # "writable" now means that it is empty
            self._link.wait_writable().add_done_callback(self._flushed)
        else:
            self._send()

    def stop(self) -> None:
        """The connection is at its end."""
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._socket)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def on_sweep(self, now: float) -> None:
        """About twice a second: does the client take what it is sent?"""
        if self._sent != self._sent_before:
            self._sent_before = self._sent
            self._progress_until = now + self._link.context.write_s
        elif now > self._progress_until:
            self._link.give_up_writing(now)

    def _flushed(self, ready: object) -> None:
        if self._fd >= 0:
            self._link.transport.set_write_buffer_limits(limits.WRITE_HIGH_BYTES)
            self._send()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.add_writer(self._socket, self._send)

    def _send(self) -> None:
        left = self._count - self._sent
        try:
            sent = os.sendfile(self._socket, self._fd, self._offset + self._sent, min(left, limits.FILE_TURN_BYTES)) if left else 0
        except (BlockingIOError, InterruptedError):
            self._watch()
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                self._link.abort()  # the client is gone
                return
            sent = self._copy(left)
            if sent < 0:
                self._watch()
                return
        self._sent += sent
        if self._sent == self._count or not sent:
            self.stop()
            self._done(self._sent)
        else:
            self._watch()

    def _copy(self, left: int) -> int:
        """What `sendfile` does, with our own hands; -1 where the socket is full."""
        data = os.pread(self._fd, min(left, limits.FILE_READ_BYTES), self._offset + self._sent)
        try:
            return os.write(self._socket, data) if data else 0
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError:
            self._link.abort()
            return -1


class ReadSend:
    """A file is read, and given to `write` only as fast as the client of the stream takes it. `done(sent)` is called once, after the last
    piece; never after `stop()`."""

    def __init__(
        self, stream: Stream, loop: Any, fd: int, offset: int, count: int, write: Callable[[bytes], None], done: Callable[[int], None]
    ) -> None:
        self._stream = stream
        self._loop = loop
        self._fd = fd
        self._offset = offset
        self._left = self._count = count
        self._write = write
        self._done = done

    def start(self) -> None:
        self._go_on(None)

    def stop(self) -> None:
        """The connection is at its end, or the body is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def on_sweep(self, now: float) -> None:
        """Whether the client takes what it is sent, the connection sees by itself."""

    def _go_on(self, ready: object) -> None:
        stream = self._stream
        turn = 0
        while self._fd >= 0:
            if stream.write_paused:
                stream.wait_writable().add_done_callback(self._go_on)
                return
            if turn >= limits.FILE_TURN_BYTES:
                self._loop.call_soon(self._go_on, None)
                return
            data = os.pread(self._fd, min(self._left, limits.FILE_READ_BYTES), self._offset)
            self._offset += len(data)
            self._left -= len(data)
            turn += len(data)
            if data:
                self._write(data)
            if self._fd >= 0 and (not self._left or not data):
                self.stop()
                self._done(self._count - self._left)


class H1File:
    """A file in the response of an HTTP/1 connection: whatever frames it goes before and behind it."""

    def __init__(
        self,
        connection: Connection,
        fd: int,
        offset: int,
        count: int,
        *,
        sent: int,
        last: bool,
        behind: bytes,
        done: Callable[[], None] | None,
    ) -> None:
        self._connection = connection
        self._count = count
        self._last = last
        self._behind = behind
        self._told = done
        self.sending: KernelSend | ReadSend
        if connection.secure:
            loop = connection.context.loop
            self.sending = ReadSend(connection, loop, fd, offset, count, connection.transport.write, self._done)
        else:
            self.sending = KernelSend(connection, fd, offset, count, sent, self._done)

    def start(self) -> None:
        self.sending.start()

    def stop(self) -> None:
        """The connection is at its end."""
        self.sending.stop()

    def on_sweep(self, now: float) -> None:
        self.sending.on_sweep(now)

    def _done(self, sent: int) -> None:
        connection = self._connection
        connection.file = None
        if sent != self._count:
            connection.sent_bytes += sent
            exchange = connection.exchange
            if exchange is not None:
                exchange.complain_short(sent, self._count)
            connection.reset()
            return
        connection.file_sent(sent, self._behind, self._last, self._told)
