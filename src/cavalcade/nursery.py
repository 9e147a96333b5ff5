"""The nursery: the process that forks workers and tells of their ends. One for each generation of the code, started as a fresh
interpreter (`python -m cavalcade.nursery FD`), so that new code never meets what the old has left in memory.

It has one thread and no event loop, because fork() copies only the thread that calls it. With `preload` it imports the app once
and freezes the heap, so that the workers share its memory; without, it has imported at least all of Cavalcade, so that a worker
is there within milliseconds.

Signals that go to the whole process group (Ctrl-C, `kill -TERM -PGID`, a platform that signals every process) must not end it
before its workers are done: it answers them with nothing. With a handler that does nothing, not with SIG_IGN: what is ignored
stays ignored in every program that the app starts later, and such a child could not be terminated.

It ends with its last worker once it is told to quit, or once the supervisor is gone. In that last case it is also the one that
ends workers which would stay for ever: nobody else is left to do it.
"""

from __future__ import annotations

import array
import ctypes
import dataclasses
import faulthandler
import gc
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from pathlib import Path

import msgspec
import setproctitle

from cavalcade import limits
from cavalcade.apps import loader
from cavalcade.apps.loader import LoadedApp
from cavalcade.board import layout
from cavalcade.board.siblings import Siblings
from cavalcade.board.view import Board
from cavalcade.errors import CavalcadeError, TlsError
from cavalcade.net import listener
from cavalcade.net.tls import Tls
from cavalcade.observe import logs
from cavalcade.observe.blackbox import BlackBox
from cavalcade.worker import channel, entry, witness
from cavalcade.worker import nursery_channel as say
from cavalcade.worker.entry import Post

log = logging.getLogger("cavalcade")

CANNOT_IMPORT = 3
LINES_BYTES = 65536
FDS_AT_ONCE = 64
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1


class Nursery:
    """The running nursery."""

    def __init__(self, control: socket.socket, setup: say.Setup) -> None:
        self._control = control
        self._lines = channel.Lines()
        self._setup = setup
        self._settings = setup.settings
        for fd in (setup.board, setup.give, setup.take, *([setup.crash] if setup.crash >= 0 else [])):
            os.set_inheritable(fd, False)  # or every program that the app starts would hold our port open
        self._listeners = [listener.restore(each) for each in setup.listeners]
        self._give = socket.socket(fileno=setup.give)
        self._take = socket.socket(fileno=setup.take)
        self._board = Board.from_fd(setup.board, setup.slots)
        self._app: LoadedApp | None = None
        self._tls: Tls | None = None
        self._ends: deque[int] = deque()  # workers' ends of their channels and their black boxes, received and not yet given away
        self._children: dict[int, int] = {}  # their numbers by pid
        self._quitting = False
        self._kill_at = math.inf
        self._warned = False
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)

    # -- life ------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Import, then fork on order until told to quit. Returns the exit code."""
        began = time.monotonic()
        try:
            if self._settings.ssl_certfile:
                self._tls = Tls(self._settings)  # before the workers: they share its ticket keys
            if self._settings.preload:
                self._app = self._import()
        except CavalcadeError as error:
            self._report(say.CannotImport(error.cause, error.fix, error.trace))
            return CANNOT_IMPORT
        if self._app is not None and self._setup.generation == 1:
            for note in self._app.notes:
                log.info("%s", note)
        self._listen_for_signals()  # after the import: the app may have installed its own
        gc.collect()
        gc.freeze()  # a collection in a worker would write to every object's header and so copy every shared page
        self._report(say.CanFork(time.monotonic() - began if self._settings.preload else 0.0))
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        while not (self._quitting and not self._children):
            for fd, _ in poll.poll(self._poll_ms()):
                if fd == self._wake_r:
                    self._empty_pipe()
                elif not self._read_orders():
                    poll.unregister(self._control)
            self._reap()
            self._maybe_kill()
        return 0

    def _import(self) -> LoadedApp:
        """The app, from its module. Raises `CavalcadeError`."""
        if self._setup.crash >= 0:
            faulthandler.enable(self._setup.crash)
        _die_with(self._setup.supervisor_pid)  # an import that hangs must not outlive the server
        try:
            return loader.load(self._settings)
        finally:
            _die_with(None)

    def _listen_for_signals(self) -> None:
        quietly_ignore_group_signals()
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)

    def _poll_ms(self) -> int | None:
        if self._kill_at == math.inf:
            return None
        return max(0, math.ceil((self._kill_at - time.monotonic()) * 1000))

    def _empty_pipe(self) -> None:
        try:
            while os.read(self._wake_r, 4096):
                pass
        except BlockingIOError:
            pass

    # -- orders ----------------------------------------------------------------------------------------------------------

    def _read_orders(self) -> bool:
        """Obey what there is; False when the supervisor's end is closed."""
        try:
            data, fds = _receive(self._control)
        except ConnectionError:
            data, fds = b"", []
        self._ends.extend(fds)
        if not data:
            self._supervisor_gone()
            return False
        for line in self._lines.feed(data):
            self._obey(line)
        return True

    def _obey(self, line: bytes) -> None:
        try:
            order = say.decode_order(line)
        except msgspec.DecodeError as error:
            log.error("nursery: an order that makes no sense (%s): %r", error, line[:200])
            return
        match order:
            case say.ForkWorker():
                end = self._ends.popleft()
                self._fork(order, end, self._ends.popleft() if order.boxed else -1)
            case say.Quit():
                self._quitting = True
            case say.RenewCertificates():
                self._renew_certificates()
            case say.ReopenLogs():
                logs.reopen()
            case say.SetLogLevel():
                self._settings = dataclasses.replace(self._settings, log_level=logs.level(order.level))
                logs.set_level(self._settings.log_level)
            case say.Setup():  # the first line, and only that
                log.error("nursery: set up twice")

    def _renew_certificates(self) -> None:
        try:
            if self._tls is not None and self._tls.reload():
                log.debug("nursery: new certificates for workers that are forked from now on")
        except TlsError as error:
            log.error("nursery: TLS: %s", error.cause, extra={"fix": error.fix})

    def _supervisor_gone(self) -> None:
        self._quitting = True
        if self._children:
            self._kill_at = time.monotonic() + self._settings.graceful_timeout + limits.KILL_AFTER_S

    def _maybe_kill(self) -> None:
        """The workers drain when the supervisor is gone; one that hangs must not stay behind as an orphan."""
        if time.monotonic() >= self._kill_at:
            self._kill_at = math.inf
            for pid, worker_id in self._children.items():
                log.warning("worker %d (pid %d) has not left after the supervisor had gone: killed", worker_id, pid)
                os.kill(pid, signal.SIGKILL)

    # -- forking ---------------------------------------------------------------------------------------------------------

    def _fork(self, order: say.ForkWorker, end: int, box: int) -> None:
        self._warn_of_threads()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which we have named ourselves
                pid = os.fork()
        except OSError as error:
            _close(end, box)
            self._report(say.ForkRefused(order.worker_id, error.strerror or str(error)))
            return
        if pid == 0:
            code = 1
            try:
                code = self._be_worker(order, end, box)
            finally:
                os._exit(code)  # never back into the nursery's own stack
        _close(end, box)
        self._children[pid] = order.worker_id
        self._report(say.Forked(order.worker_id, pid))

    def _be_worker(self, order: say.ForkWorker, end: int, box: int) -> int:
        if box >= 0:
            witness.answer_dumps(BlackBox(box))
        else:
            faulthandler.disable()  # the nursery's file is not this worker's
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        # Ends of other workers' channels: held here, they would hide those workers' deaths from the supervisor.
        for fd in (self._wake_r, self._wake_w, *self._ends):
            os.close(fd)
        row = self._board.row(order.slot)
        row.set(layout.WORKER_ID, order.worker_id)
        row.set(layout.GENERATION, self._setup.generation)
        row.set(layout.STARTED_NS, time.monotonic_ns())
        row.set(layout.PHASE, layout.Phase.BOOTING)
        row.set(layout.PID, os.getpid())
        post = Post(
            worker_id=order.worker_id,
            slot=order.slot,
            generation=self._setup.generation,
            settings=self._settings,
            listeners=self._listeners,
            channel=socket.socket(fileno=end),
            row=row,
            ledger=self._board.ledger(order.slot),
            siblings=Siblings(self._board, order.slot),
            give=self._give,
            take=self._take,
            app=self._app,
            tls=self._tls,
            box=BlackBox(box) if box >= 0 else None,
            shared=order.shared,
        )
        code = entry.main(post)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # closed by the app, or nobody reads it any more
                pass
        logs.flush()
        return code

    def _warn_of_threads(self) -> None:
        """Say once which threads a fork will lose: what they would do does not happen in any worker, locks they hold stay held."""
        if self._warned:
            return
        self._warned = True
        names = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
        native = len(_thread_names()) - 1 - len(names)
        if native > 0:
            names.append(f"{native} of C libraries ({', '.join(sorted(set(_thread_names()[1:])))})")
        if names:
            log.warning(
                "preload: importing %s has started threads, which do not exist in the workers: %s; start them in the lifespan instead",
                self._settings.app,
                ", ".join(names),
            )

    # -- reports ---------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        # One by one and by pid: a child that the app has started while it was imported is its own to wait for.
        for pid, worker_id in list(self._children.items()):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody in this process has waited for everything
                found, status = pid, 0
            if found:
                del self._children[pid]
                self._report(say.Exited(worker_id, os.waitstatus_to_exitcode(status)))

    def _report(self, report: say.Report) -> None:
        try:
            self._control.sendall(say.encode(report))
        except OSError:  # the supervisor is gone; the end of its orders will say so
            pass


def quietly_ignore_group_signals() -> None:
    """See the top of this file."""
    for signum in GROUP_SIGNALS:
        signal.signal(signum, _nothing)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _nothing(signum: int, frame: object) -> None:
    pass


def _first_line(control: socket.socket) -> bytes:
    """The line that says what we are, and not a byte more: descriptors may come with the next. b"" at the end of the stream."""
    line = b""
    while not line.endswith(b"\n"):
        byte = control.recv(1)
        if not byte:
            return b""
        line += byte
    return line


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes and the descriptors that came with them, none of which a program started later inherits."""
    fds = array.array("i")
    room = socket.CMSG_SPACE(FDS_AT_ONCE * fds.itemsize)
    data, ancillary, _, _ = control.recvmsg(LINES_BYTES, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds)


def _die_with(parent: int | None) -> None:
    """Linux: be killed when the parent dies; None takes it back. Elsewhere it does nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL if parent is not None else 0, 0, 0, 0)
    if parent is not None and os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _thread_names() -> list[str]:
    """What the kernel calls the threads of this process, the main thread first. Empty where there is no /proc."""
    try:
        tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name))
        return [(task / "comm").read_text().strip() for task in tasks]
    except OSError:
        return []


def main() -> int:
    """`python -m cavalcade.nursery FD`: FD is the control socket. Returns the exit code."""
    quietly_ignore_group_signals()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    first = _first_line(control)
    if not first:
        return 0  # the supervisor has changed its mind
    setup = say.decode_order(first)
    if not isinstance(setup, say.Setup):
        raise TypeError(f"the first order must be the setup, not {first!r}")
    settings = setup.settings
    setproctitle.setproctitle(f"cavalcade: nursery g{setup.generation} [{settings.name or settings.app}]")
    logs.configure(settings)
    return Nursery(control, setup).run()


if __name__ == "__main__":
    sys.exit(main())
