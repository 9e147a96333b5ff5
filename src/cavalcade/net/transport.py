"""The transport of every client connection, on either loop: the loop only says when the socket is ready, the rest is done here.

The loops have transports of their own. This one begins without a task: what a new client has sent already is read at once, and one that
asks for one thing and leaves is often served and closed before the loop has ever watched its socket. What is written in one turn of the
loop goes out at the end of it, for all connections one after the other: a kernel that has to wake somebody up for each write does so
once, and several writes to one connection are one. Pausing and giving the descriptor away are trivial.

It does what an asyncio transport does (asyncio, "Transports and Protocols"), as far as the protocols here ask for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from cavalcade import limits
from cavalcade.net import syscalls
from cavalcade.observe.access import AccessLog

HOLD_BYTES = limits.WRITE_HOLD_BYTES
READ_BYTES = limits.READ_BYTES
READ_MAX_BYTES = limits.READ_MAX_BYTES
READS = 4  # one after the other, where the loop may not tell again
MORE = getattr(socket, "MSG_MORE", 0)  # Linux: what is sent waits for what follows, and leaves together with it


class Turn:
    """What the transports of one loop do at the end of its turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: list[Transport] = []
        self.access: AccessLog | None = None  # there when lines are due
        # libuv ends its watch of a socket that was reset with one last call: what is there, and the error, must be read in that.
        self.tells_once = type(loop).__module__.partition(".")[0] == "uvloop"

    def add(self, transport: Transport) -> None:
        """Call its `end_turn()`. At most once for each turn, which the transport knows."""
        if not self.waiting and self.access is None:
            self.loop.call_soon(self.end)
        self.waiting.append(transport)

    def add_lines(self, access: AccessLog) -> None:
        """Write the lines of this turn, after all that clients wait for."""
        if not self.waiting and self.access is None:
            self.loop.call_soon(self.end)
        self.access = access

    def end(self) -> None:
        waiting = self.waiting
        self.waiting = []
        for transport in waiting:
            try:
                transport.end_turn()
            except Exception as error:  # noqa: BLE001  the border of one connection: it must not be the end of the others
                transport.fail(error)
        access = self.access
        if access is not None:
            self.access = None
            access.flush()


class Transport:
    """Over the descriptor of a connected stream socket, which is non-blocking and its own from now on; and over the `sock` that has it,
    where there is one: Python's object costs as much as the kernel takes for accepting, and few connections ever need it."""

    def __init__(self, turn: Turn, fd: int, protocol: Any, sock: socket.socket | None = None) -> None:
        self.turn = turn
        self.loop = turn.loop
        self.sock = sock
        self.fd = fd  # -1 once it is closed: its number may be another's then
        self.protocol = protocol
        self.in_turn = False  # `end_turn` will be called
        self.taken = False  # the kernel has taken something since the last read, so the client had not reset it before that
        self.wanted = True  # the protocol wants to read
        self.watching = False  # the loop tells when there is something
        self.left_off = False  # a read ended with a pause, and the loop may not tell of what was left
        self.eof_seen = False
        self.blocked = False  # the socket is full; the loop tells when it is no longer
        self.closing = False
        self.lost = False  # it has told so, or will in this turn
        self.eof_due = False  # our side ends behind what is held
        self.eof_sent = False
        self.error: BaseException | None = None
        self.read_bytes = READ_BYTES
        self.held: list[bytes | memoryview] = []
        self.size = 0  # of what is held
        self.high = limits.WRITE_HIGH_BYTES
        self.low = limits.WRITE_HIGH_BYTES // 4
        self.paused = False  # the protocol was told to write no more

    def start(self) -> None:
        """Tell the protocol, read what is there already, then watch."""
        try:
            self.protocol.connection_made(self)
        except Exception as error:  # noqa: BLE001  the border of one connection: it must not be the end of the others
            self.fail(error)
        if self.wanted and not self.closing:
            self.read()
        self.watch()

    # -- what is asked of any transport ----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name != "socket" or self.fd < 0:
            return default
        if self.sock is None:
            self.sock = socket.socket(fileno=self.fd)
        return self.sock

    def fileno(self) -> int:
        return self.fd

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closing

    # -- reading -----------------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """The watch goes on until it tells of something: mostly the protocol reads on before that, and to end and begin a watch costs
        system calls."""
        self.wanted = False

    def resume_reading(self) -> None:
        self.wanted = not self.eof_seen
        if self.left_off:
            self.left_off = False
            self.loop.call_soon(self.read)
        self.watch()

    def watch(self) -> None:
        if self.wanted and not self.watching and not self.closing:
            self.watching = True
            self.loop.add_reader(self.fd, self.read)

    def unwatch(self) -> None:
        if self.watching:
            self.watching = False
            self.loop.remove_reader(self.fd)

    def read(self) -> None:
        if self.closing or not self.wanted:
            self.unwatch()
            return
        for _ in range(READS):
            if not self.read_once():
                self.left_off = self.turn.tells_once and self.watching and not self.wanted
                return
        if self.watching:  # others have their turn; and should the watch be over, it begins anew
            self.loop.remove_reader(self.fd)
            self.loop.add_reader(self.fd, self.read)

    def read_once(self) -> bool:
        """Whether to do so again at once. Not where something was written since, or will be in this turn, which fails after a reset: a
        request that is answered at once is read once."""
        size = self.read_bytes
        self.taken = False
        try:
            data = syscalls.receive(self.fd, size)
        except OSError as error:
            self.lose(error)
            return False
        if data is None:
            return False
        try:
            if data:
                if len(data) == self.read_bytes and len(data) < READ_MAX_BYTES:
                    self.read_bytes *= 2  # it has much to say
                self.protocol.data_received(data)
            else:
                self.eof_seen = True
                self.pause_reading()
                self.unwatch()
                if not self.protocol.eof_received():
                    self.close()
        except Exception as error:  # noqa: BLE001  the border of one connection: it must not be the end of the others
            self.fail(error)
        return self.turn.tells_once and self.wanted and self.watching and (len(data) == size or not (self.in_turn or self.taken))

    # -- writing -----------------------------------------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        return self.size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = limits.WRITE_HIGH_BYTES if high is None else high
        self.low = self.high // 4 if low is None else low
        self.tell_size()

    def write(self, data: bytes | memoryview) -> None:
        if self.closing or self.eof_due or not data:
            return
        self.held.append(data)
        self.size += len(data)
        if self.blocked:
            self.tell_size()
        elif self.size > HOLD_BYTES:
            self.push()
        elif not self.in_turn:
            self.in_turn = True
            self.turn.add(self)

    def push(self) -> None:
        """Give the kernel what is held, now."""
        held = self.held
        while held and not self.blocked:
            if len(held) > 1 and self.size <= limits.JOIN_BYTES:
                held[:] = [b"".join(held)]
            first = held[0]
            try:
                if len(held) == 1:
                    sent = syscalls.give(self.fd, first) if type(first) is bytes else os.write(self.fd, first)
                else:
                    sent = os.writev(self.fd, held[: limits.WRITE_PIECES])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self.lose(error)
                return
            if sent:
                self.taken = True
            if sent == self.size:
                held.clear()
                self.size = 0
            else:
                self.drop(sent)
        if self.eof_due and not self.eof_sent and not held:
            self.send_eof()
        self.tell_size()

    def send_file(self, file: int, offset: int, count: int) -> int:
        """Give the kernel what is held and, behind that, a file: how many of its `count` bytes it has taken at once. The head of a response
        and a file that is not large leave together."""
        if self.blocked or self.closing or self.eof_due:
            return 0
        held = self.held
        try:
            if held:
                if len(held) > 1:
                    held[:] = [b"".join(held)]
                sent = self.get_extra_info("socket").send(held[0], MORE)
                self.taken = True
                if sent != self.size:
                    self.drop(sent)
                    return 0
                held.clear()
                self.size = 0
                self.tell_size()
            sent = os.sendfile(self.fd, file, offset, count)
            self.taken = True
            return sent
        except OSError:
            return 0  # whoever sends the rest will find the cause again

    def drop(self, sent: int) -> None:
        """The kernel has taken so much of what is held; it takes no more for now if that is not all that it was given."""
        held = self.held
        self.size -= sent
        pieces = 0
        for piece in held[: limits.WRITE_PIECES]:
            if sent < len(piece):
                break
            sent -= len(piece)
            pieces += 1
        given = min(len(held), limits.WRITE_PIECES)
        del held[:pieces]
        if pieces < given:
            held[0] = memoryview(held[0])[sent:]
            self.blocked = True
            self.loop.add_writer(self.fd, self.on_room)

    def on_room(self) -> None:
        """The socket is no longer full."""
        self.unblock()
        try:
            self.push()
        except Exception as error:  # noqa: BLE001  the border of one connection: it must not be the end of the others
            self.fail(error)
        if self.closing and not self.size:
            self.lose(None)

    def unblock(self) -> None:
        if self.blocked:
            self.blocked = False
            self.loop.remove_writer(self.fd)

    def tell_size(self) -> None:
        """Tell the protocol when too much is held, and when that is over."""
        if self.paused:
            if self.size <= self.low:
                self.paused = False
                self.protocol.resume_writing()
        elif self.size > self.high:
            self.paused = True
            self.protocol.pause_writing()

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """End our side behind what was written, and read on."""
        if not self.closing and not self.eof_due:
            self.eof_due = True
            self.push()

    def send_eof(self) -> None:
        self.eof_sent = True
        try:
            self.get_extra_info("socket").shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the client is gone, and we shall read so

    def close(self) -> None:
        """Close after what was written has gone out."""
        if not self.closing:
            self.closing = True
            self.pause_reading()
            self.push()
            if not self.size:
                self.lose(None)

    def abort(self) -> None:
        """Close now; what the kernel does not take at once is lost."""
        if not self.lost:
            self.closing = True
            self.push()
            self.lose(None)

    def lose(self, error: BaseException | None) -> None:
        """It is over; the protocol is told at the end of the turn, and not from inside of something that it does."""
        if self.lost:
            return
        self.lost = self.closing = True
        self.error = error
        self.pause_reading()
        self.unwatch()
        self.unblock()
        self.held.clear()
        self.size = 0
        self.paused = False
        if not self.in_turn:
            self.in_turn = True
            self.turn.add(self)

    def fail(self, error: BaseException) -> None:
        """The protocol has failed, which should not happen."""
        message = "a connection of ours failed"
        self.loop.call_exception_handler({"message": message, "exception": error, "transport": self, "protocol": self.protocol})
        self.lose(error)

    def end_turn(self) -> None:
        self.in_turn = False
        if not self.lost:
            self.push()
            return
        try:
            self.protocol.connection_lost(self.error)
        finally:
            self.protocol = self.error = None  # no circle, which only the garbage collector could undo
            fd, self.fd = self.fd, -1
            if self.sock is not None:
                self.sock.close()
            else:
                os.close(fd)
