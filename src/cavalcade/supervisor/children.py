"""The supervisor's side of its children: a nursery with its control socket, a worker with its channel."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cavalcade.board import layout
from cavalcade.board.ledger import Ledger
from cavalcade.board.row import Row
from cavalcade.observe.blackbox import BlackBox
from cavalcade.worker import channel
from cavalcade.worker import nursery_channel as say

RECEIVE_BYTES = 65536


class Link:
    """One end of a stream of lines, read and written by the event loop without ever waiting.

    `on_line` gets every line; `on_end` is called once, when the other end is closed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_line: Callable[[bytes], object], on_end: Callable[[], object]
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_line = on_line
        self._on_end = on_end
        self._lines = channel.Lines()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()  # a line, and the descriptors that go with it
        self.ended = False
        loop.add_reader(sock, self.read)

    def read(self) -> None:
        """Take all that is there."""
        while not self.ended:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            for line in self._lines.feed(data):
                self._on_line(line)
            if not data:
                self.ended = True
                self._loop.remove_reader(self._sock)
                self._on_end()

    def send(self, line: bytes, *fds: int) -> None:
        """Send a line, with descriptors if any are given; those are closed here afterwards. To a closed end nothing is sent."""
        self._outbox.append((line, list(fds)))
        self._write()

    def _write(self) -> None:
        self._loop.remove_writer(self._sock)
        while self._outbox:
            line, fds = self._outbox.popleft()
            try:
                sent = socket.send_fds(self._sock, [line], fds) if fds else self._sock.send(line)
            except BlockingIOError:
                self._outbox.appendleft((line, fds))
                self._loop.add_writer(self._sock, self._write)
                return
            except OSError:  # the other end is gone, and `read` will say so
                sent = len(line)
            for fd in fds:
                os.close(fd)
            if sent < len(line):
                self._outbox.appendleft((line[sent:], []))

    def close(self) -> None:
        """Close our end, if it is open. The callbacks are not called any more."""
        if self._sock.fileno() < 0:
            return
        self.ended = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()
        self._sock.close()


class NurseryChild:
    """A nursery's process and the link to it."""

    def __init__(self, generation: int, process: subprocess.Popen[bytes], link: Link, crash: int) -> None:
        self.generation = generation
        self.crash = crash  # the file that faulthandler writes its last stack to
        self.process = process
        self.link = link
        self.pid = process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been reaped."""
        return self.process.returncode is None

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)

    def gone(self, status: int) -> None:
        """It has been reaped. `Popen` must know, or it would wait for a pid that is somebody else's by now."""
        self.process.returncode = status
        self.close()

    def close(self) -> None:
        """Let go of the link and the file, not of the process."""
        self.link.close()
        if self.crash >= 0:
            os.close(self.crash)
            self.crash = -1


class WorkerChild:
    """A worker's process and the link to it. The pid is 0 until it is known. `box` is None where none could be made."""

    def __init__(self, worker_id: int, nursery: NurseryChild, row: Row, ledger: Ledger, link: Link, box: BlackBox | None) -> None:
        self.worker_id = worker_id
        self.nursery = nursery
        self.row = row
        self.ledger = ledger
        self.link = link
        self.box = box
        self.pid = 0
        self.doomed = False  # to be killed as soon as its pid is known

    def find_pid(self) -> int:
        """The pid, from the worker's own row of the board if its nursery has died before it could tell."""
        if not self.pid and self.row.get(layout.WORKER_ID) == self.worker_id:
            self.pid = self.row.get(layout.PID)
        return self.pid

    def close(self) -> None:
        """Let go of the link and the box."""
        self.link.close()
        if self.box is not None:
            self.box.close()


def spawn_nursery(control: socket.socket, inherited: Sequence[int], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a nursery: a fresh interpreter, with the flags of this one, that inherits `control` and the given descriptors.
    `environ` is laid over the environment.

    Raises `OSError` where the kernel refuses.
    """
    # -P: the directory we were started in must not come before the standard library, or a file named types.py there would
    # break the nursery. The loader puts the app's own directory there when it is time.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    argv = [sys.executable, *flags, "-P", "-m", "cavalcade.nursery", str(control.fileno())]
    return subprocess.Popen(argv, env={**os.environ, **environ}, pass_fds=[control.fileno(), *inherited])


def order_line(order: channel.Order) -> bytes:
    """An order to a worker, as it goes over its channel."""
    return channel.encode(order)


def fork_line(worker_id: int, slot: int, *, boxed: bool, shared: bool) -> bytes:
    """An order to a nursery, as it goes over its control socket."""
    return say.encode(say.ForkWorker(worker_id, slot, boxed, shared))
