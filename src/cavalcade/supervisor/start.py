"""The beginning of a server: sockets first, before any user code runs, then the board and the loop; and what is let go of at the end."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import os
import platform
from collections.abc import Mapping, Sequence

import setproctitle

from cavalcade import build
from cavalcade.board.view import Board
from cavalcade.config.options import Settings
from cavalcade.errors import StartupError
from cavalcade.net import sockets
from cavalcade.net.handover import make_queue
from cavalcade.net.listener import Listener, with_scheme
from cavalcade.net.tls import Tls
from cavalcade.observe import logs
from cavalcade.supervisor import systemd
from cavalcade.supervisor.desk import Facing, NewFront
from cavalcade.supervisor.loop import Supervisor
from cavalcade.supervisor.pidfile import PidFile
from cavalcade.supervisor.state import Rules, State
from cavalcade.supervisor.systemd import Notifier
from cavalcade.supervisor.upgrade import Holdings, Predecessor

log = logging.getLogger("cavalcade")


def run(
    settings: Settings,
    *,
    notes: Sequence[str] = (),
    bind_asked: bool = True,
    origins: Mapping[str, str] | None = None,
    new_front: NewFront | None = None,
) -> int:
    """The whole life of a server, from the sockets to the exit code: 0 clean, 3 the app did not start, 1 anything else.

    Only in the main thread; it takes the signals of the process over, and waits for every child that the process has. `notes`
    are lines for the log that came up while the settings were read; `bind_asked` says whether somebody asked for these addresses,
    or they are the default; `origins` says where each option came from; `new_front` makes what answers for the server to whoever
    steers it. Raises `BindError` or another `StartupError` where it cannot even begin; nothing is left behind then.
    """
    logs.configure(settings)
    facing = Facing(origins or {}, new_front)
    log.addHandler(facing.journal)
    try:
        return _run(settings, notes, bind_asked, facing)
    finally:
        log.removeHandler(facing.journal)


def _run(settings: Settings, notes: Sequence[str], bind_asked: bool, facing: Facing) -> int:
    notifier = Notifier(os.environ)
    predecessor = Predecessor.maybe_take(os.environ)
    if predecessor is not None:
        try:
            return _take_over(settings, predecessor, notifier, notes, facing)
        except StartupError as error:
            predecessor.failed(error.cause, error.fix, error.trace)
            raise
        finally:
            predecessor.close()
    # First of all, before any user code runs: a bad certificate and a port in use are known at once, and not after a long import.
    tls = Tls(settings) if settings.ssl_certfile else None
    listeners, more_notes = _listen(settings, bind_asked)
    holdings = Holdings(listeners, make_queue())
    try:
        if settings.pid:
            pid_file = PidFile(settings.pid)
            pid_file.write()
            holdings.pid_file = pid_file
        return _supervise(settings, holdings, notifier, [*notes, *more_notes], None, tls, facing)
    finally:
        holdings.release()
        notifier.close()
        logs.flush()


def _take_over(settings: Settings, predecessor: Predecessor, notifier: Notifier, notes: Sequence[str], facing: Facing) -> int:
    """Be the new server of an upgrade: nothing is bound, and what is inherited is ours only when the old one says so."""
    holdings = predecessor.holdings
    tls = Tls(settings) if settings.ssl_certfile else None
    holdings.listeners = [with_scheme(listener, "https" if tls else "http") for listener in holdings.listeners]
    holdings.pid_file = PidFile(settings.pid) if settings.pid else None
    offer = predecessor.offer
    notes = [f"upgrade: taking over from pid {offer.pid}", *notes]
    if list(settings.bind) != offer.bind:
        was, now = ", ".join(offer.bind), ", ".join(settings.bind)
        notes.append(f"upgrade: still listening on {was}, not on {now}: an upgrade keeps the sockets, a restart opens others")
    try:
        return _supervise(settings, holdings, notifier, notes, predecessor, tls, facing)
    finally:
        holdings.release()
        notifier.close()
        logs.flush()


def _listen(settings: Settings, bind_asked: bool) -> tuple[list[Listener], list[str]]:
    """The sockets to serve on, with what is to be said about them: systemd's where it has opened any, else our own."""
    scheme = "https" if settings.ssl_certfile else "http"
    inherited = [with_scheme(listener, scheme) for listener in systemd.take_sockets(os.environ)]
    if inherited and not bind_asked:
        return inherited, [f"socket activation: {len(inherited)} inherited from the service manager"]
    used, rest, notes = systemd.choose(inherited, settings.bind)
    bound = sockets.bind_all(rest, settings.backlog)
    return [*used, *(with_scheme(listener, scheme) for listener in bound)], notes


def _supervise(
    settings: Settings,
    holdings: Holdings,
    notifier: Notifier,
    notes: Sequence[str],
    predecessor: Predecessor | None,
    tls: Tls | None,
    facing: Facing,
) -> int:
    name = settings.name or settings.app
    setproctitle.setproctitle(f"cavalcade: supervisor [{name}]")
    rules = Rules(
        workers=int(settings.workers),  # auto has become a number when the settings were read
        app=settings.app,
        preload=settings.preload,
        boot_timeout_s=settings.boot_timeout,
        graceful_timeout_s=settings.graceful_timeout,
        drain_delay_s=settings.drain_delay,
        max_surge=settings.max_surge,
        is_init=os.getpid() == 1,
    )
    log.info("%s", _start_line(settings, rules.workers))
    for note in notes:
        log.info("%s", note)
    for each in holdings.listeners:
        log.info("listening on %s%s", each.url, " (PROXY protocol)" if each.proxy_protocol else "")
    try:
        board = Board.create(rules.slots)
    except OSError as error:
        cause = f"The board, {rules.slots} rows of shared memory, cannot be made: {error.strerror or error}."
        fix = "It needs memfd_create(), or room for a file in a directory that can be written: set TMPDIR, or see ulimit -f"
        raise StartupError(cause, fix=fix) from error
    loop = asyncio.SelectorEventLoop()
    try:
        state = State(rules, shared=predecessor is not None)
        return Supervisor(settings, holdings, board, state, loop, notifier, predecessor, tls, facing).run()
    finally:
        loop.close()
        board.close()


def _start_line(settings: Settings, workers: int) -> str:
    """ "cavalcade 0.1.0 (compiled), CPython 3.13.0, uvloop 0.23.0: main:app, 4 workers, pid 4711"."""
    loop = "asyncio"
    if settings.loop != "asyncio" and importlib.util.find_spec("uvloop") is not None:
        loop = f"uvloop {importlib.metadata.version('uvloop')}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    count = "1 worker" if workers == 1 else f"{workers} workers"
    served = "; ".join(map(str, settings.apps)) or settings.app
    return f"cavalcade {build.VERSION} ({build.kind()}), {python}, {loop}: {served}, {count}, pid {os.getpid()}"
