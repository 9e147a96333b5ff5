"""A worker process, from the fork to its exit code.

BOOTING (import, lifespan startup) -> READY -> DRAINING -> STOPPED. It reports to the supervisor over its channel and obeys orders from
there; when the channel closes, the supervisor is gone and the worker drains and exits, so there are never orphans.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import setproctitle

from cavalcade import limits
from cavalcade.apps import loader
from cavalcade.apps.loader import LoadedApp
from cavalcade.board import layout
from cavalcade.board.ledger import Ledger
from cavalcade.board.row import Row
from cavalcade.board.siblings import Siblings
from cavalcade.config.options import Settings
from cavalcade.errors import StartupError, TlsError
from cavalcade.net.listener import Listener
from cavalcade.net.tls import Tls
from cavalcade.observe import logs
from cavalcade.observe.blackbox import BlackBox
from cavalcade.worker import channel, threads
from cavalcade.worker.inspection import Inspection
from cavalcade.worker.outbox import Outbox
from cavalcade.worker.relay import Relay
from cavalcade.worker.server import Place, Server

try:
    import uvloop
except ImportError:  # not made for this interpreter or platform; asyncio is a first-class loop
    uvloop = None  # type: ignore[assignment]

log = logging.getLogger("cavalcade")

BOOT_FAILED = 3


@dataclass
class Post:
    """Where a worker is put, and with what. `app` is there when the nursery has imported it already."""

    worker_id: int
    slot: int
    generation: int
    settings: Settings
    listeners: list[Listener]
    channel: socket.socket
    row: Row
    ledger: Ledger
    siblings: Siblings | None = None
    give: socket.socket | None = None  # the queue through which connections go from worker to worker: its two ends
    take: socket.socket | None = None
    app: LoadedApp | None = None
    tls: Tls | None = None
    box: BlackBox | None = None
    shared: bool = False  # the listening sockets are another server's too, which goes on if ours fails


def main(post: Post) -> int:
    """Be a worker. Called in the forked process; returns its exit code and never raises."""
    try:
        # Ctrl-C reaches the whole process group; what it means is the supervisor's to decide. A handler that does nothing, not
        # SIG_IGN: what is ignored stays ignored in every program that the app starts.
        signal.signal(signal.SIGINT, lambda signum, frame: None)
        settings = post.settings
        name = settings.name or settings.app
        setproctitle.setproctitle(f"cavalcade: worker {post.worker_id} g{post.generation} [{name}]")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if not faulthandler.is_enabled():  # the nursery has done so, and reads what it writes
                faulthandler.enable()  # a crash in C code prints where it was; there may be no stderr to print it to
        logs.configure(settings, worker=post.worker_id)
        post.row.set(layout.PID, os.getpid())
        post.row.set(layout.PHASE, layout.Phase.BOOTING)
        code = Worker(post).run()
        atexit._run_exitfuncs()
        return code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        log.exception("worker %d: failed", post.worker_id)
        return 1


class Worker:
    """The running worker: a `Server`, and the channel to the supervisor."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._channel = post.channel
        self._lines = channel.Lines()
        self._leaving = asyncio.Event()
        self._grace = post.settings.graceful_timeout
        self._server: Server | None = None
        self._outbox: Outbox
        self._asked_to_leave = False
        self._last = False
        self._heirs = False
        self._executor: ThreadPoolExecutor | None = None
        self._shared = post.shared

    def run(self) -> int:
        loop = new_event_loop(self._post.settings)
        asyncio.set_event_loop(loop)
        self._executor = threads.new_executor()
        loop.set_default_executor(self._executor)
        # The loop is not closed: a thread of the app may still use it, and the process ends right after this.
        return loop.run_until_complete(self._live(loop))

    async def _live(self, loop: asyncio.AbstractEventLoop) -> int:
        post = self._post
        loop.set_exception_handler(logs.on_loop_error)
        self._channel.setblocking(False)
        self._outbox = Outbox(self._channel, loop)
        Relay(self._outbox.offer, loop).start()
        started = time.monotonic()
        try:
            loaded = post.app or loader.load(post.settings)
        except StartupError as error:
            return self._boot_failed(error)
        if post.app is None and post.worker_id == 1:
            for note in loaded.notes:  # the same in every worker, so the first one says it
                log.info("%s", note)
        imported = time.monotonic()
        loop.add_reader(self._channel.fileno(), self._on_orders)
        self._server = server = Server(loaded.app, settings=post.settings)
        server.adopt(
            Place(
                *(
                    post.listeners,
                    post.row,
                    post.ledger,
                    post.siblings,
                    post.give,
                    post.take,
                    self._retire,
                    self._draining,
                    self._send,
                    post.box,
                ),
                executor=self._executor,
                tls=post.tls,
                advise=lambda key, text: self._send(channel.Advice(key, text)),
            )
        )
        boot = loop.create_task(server.boot())
        leave = loop.create_task(self._leaving.wait())
        await asyncio.wait({boot, leave}, return_when=asyncio.FIRST_COMPLETED)
        if not boot.done():
            boot.cancel()
            await asyncio.wait({boot}, timeout=self._grace)
            return 0
        failure = boot.exception()
        if isinstance(failure, StartupError):
            return self._boot_failed(failure)
        if failure is not None:
            raise failure
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        # What was made so far stays for the life of the process: the collector need not look at it again. What is left to it is so little
        # that its thresholds stay as they are: 700, 5,000 or 20,000 make 371,263, 371,017 or 373,096 instructions of a FastAPI GET.
        gc.collect()
        gc.freeze()
        server.open()
        self._send(channel.Ready(import_s=imported - started, startup_s=time.monotonic() - imported))
        await leave
        left = await server.stop(self._grace, last=self._last, heirs=self._heirs)
        self._send(channel.Drained(left=left))
        return 0

    def _boot_failed(self, error: StartupError) -> int:
        self._send(channel.BootFailed(kind=type(error).__name__, cause=error.cause, fix=error.fix, trace=error.trace))
        return BOOT_FAILED

    def _on_sigterm(self) -> None:
        """`kill WORKER` loses nothing: the supervisor is asked for a successor first. A second one is not argued with."""
        if self._asked_to_leave:
            self._leave(self._grace)
        else:
            self._asked_to_leave = True
            self._retire("SIGTERM")

    def _retire(self, reason: str) -> None:
        self._send(channel.Retire(reason))

    def _draining(self) -> None:
        self._send(channel.Draining())

    def _on_orders(self) -> None:
        try:
            data = self._channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            if not self._leaving.is_set():
                log.warning("worker %d: the supervisor is gone; draining", self._post.worker_id)
                self._last = not self._shared  # all siblings leave as well: there is nobody to hand over to, but another server
                self._heirs = self._shared
            self._leave(self._grace)
            return
        for line in self._lines.feed(data):
            self._obey(line)

    def _obey(self, line: bytes) -> None:
        try:
            order = channel.decode_order(line)
        except msgspec.DecodeError as error:
            log.error("worker %d: an order that makes no sense (%s): %r", self._post.worker_id, error, line[:200])
            return
        if isinstance(order, channel.Drain):
            if self._leaving.is_set() and self._server is not None:  # a reload drains it, and now the whole server stops
                self._server.shorten(order.grace_s)
            self._last = order.last
            self._heirs = order.heirs
            self._leave(order.grace_s)
        elif isinstance(order, channel.Sole):
            self._shared = False
        elif isinstance(order, channel.ReopenLogs):
            logs.reopen()
        elif isinstance(order, channel.RenewCertificates):
            self._renew_certificates()
        elif isinstance(order, channel.AnnounceStop):
            if self._server is not None:
                self._server.announce_stop(off=order.off)
        elif isinstance(order, channel.SetLogLevel):
            logs.set_level(logs.level(order.level))
        elif isinstance(order, channel.Inspect):
            self._inspect(order)
        else:
            self._leave(0.0)
            if self._server is not None:
                self._server.hurry()

    def _renew_certificates(self) -> None:
        try:
            if self._post.tls is not None:
                self._post.tls.reload()
        except TlsError as error:  # the supervisor could read them: out of descriptors here, perhaps
            log.error("TLS: the new files are not taken up here: %s", error.cause, extra={"fix": error.fix})
            asyncio.get_running_loop().call_later(limits.CERTIFICATE_RETRY_S, self._renew_certificates)

    def _leave(self, grace_s: float) -> None:
        self._grace = grace_s
        self._leaving.set()

    def _inspect(self, order: channel.Inspect) -> None:
        serving = self._server.serving if self._server is not None else None
        if serving is None:
            self._send(channel.Inspected(order.request, 0))
            return
        self._send(Inspection(serving, self._post.settings.packages).take(order.request, order.limit))

    def _send(self, report: channel.Report) -> None:
        self._outbox.say(report)


def new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """The event loop that the settings ask for."""
    if settings.loop == "asyncio" or (settings.loop == "auto" and uvloop is None):
        return asyncio.new_event_loop()
    if uvloop is None:
        raise StartupError("--loop uvloop: uvloop is not installed", fix="pip install uvloop, or --loop asyncio")
    return uvloop.new_event_loop()


if sys.platform == "win32":
    raise ImportError("Cavalcade needs fork(): it runs on Linux and macOS, and on Windows in WSL")
