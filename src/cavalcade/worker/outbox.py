"""The worker's side of its channel, outgoing. What is said must arrive, if the supervisor lives; what is offered may be left out."""

from __future__ import annotations

import asyncio
import select
import socket

from cavalcade.worker import channel

SEND_WAIT_S = 1.0  # a supervisor that does not read for this long is not waited for


class Outbox:
    """Lines go out whole and in their order. If the supervisor is gone, the closed channel says so on its own."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._loop = loop
        self._rest = b""  # of a line that has gone out in part
        self._watching = False

    def say(self, report: channel.Report) -> None:
        """Send, and wait for a supervisor that is behind."""
        data = self._rest + channel.encode(report)
        while data := self._write(data):
            if not select.select([], [self._sock], [], SEND_WAIT_S)[1]:
                break
        self._keep(data)

    def offer(self, report: channel.Report) -> bool:
        """Send if that can be done at once; False where it was not."""
        self._keep(self._write(self._rest))
        if self._rest:
            return False
        data = channel.encode(report)
        rest = self._write(data)
        if len(rest) == len(data):
            return False
        self._keep(rest)
        return True

    def _write(self, data: bytes) -> bytes:
        """Send what fits; the rest is returned."""
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                return data
            except OSError:
                return b""
        return data

    def _keep(self, rest: bytes) -> None:
        """The other end must see the end of a line that it has the beginning of, even if nothing more is ever said."""
        self._rest = rest
        if bool(rest) != self._watching:
            self._watching = bool(rest)
            if rest:
                self._loop.add_writer(self._sock.fileno(), self._go_on)
            else:
                self._loop.remove_writer(self._sock.fileno())

    def _go_on(self) -> None:
        self._keep(self._write(self._rest))
