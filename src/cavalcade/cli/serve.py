"""`cavalcade serve`, and `cavalcade.run()`, which is the same from Python.

An app that is named by an import string is served by the supervisor and its workers. An app object cannot be sent to another
process, so `run(app)` serves it here, in one event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cavalcade import limits
from cavalcade.admin.front import Front
from cavalcade.apps import loader
from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.options import Settings
from cavalcade.config.sources import Resolved, resolve
from cavalcade.errors import CavalcadeError, ConfigError, UsageError
from cavalcade.observe import logs
from cavalcade.supervisor import start as supervisor
from cavalcade.supervisor import upgrade
from cavalcade.types import App
from cavalcade.worker.entry import new_event_loop
from cavalcade.worker.server import Server

log = logging.getLogger("cavalcade")


@click.command("serve", cls=OptionsCommand, context_settings=SETTINGS, short_help="Serve APP; what `cavalcade APP` is short for.")
@takes_options
@click.pass_obj
def serve(screen: Screen, /, **values: Any) -> int:
    """Serve APP: module:attribute, a module, a file, or nothing to have the project looked through."""
    resolved = settle(given(values), cwd=Path.cwd(), environ=os.environ)
    screen.log_format = resolved.settings.log_format
    return _supervise(resolved.settings, resolved)


def run(app: str | App = "", **options: object) -> None:
    """Serve an app until a signal stops the server; returns after a clean stop.

    `app` is an import string such as "main:app", which is served by a supervisor and `workers` processes, or an app object, which
    is served in this process by one event loop. Without it the project is looked through, as `cavalcade` does. Options are
    those of the command line by their Python names (`workers=4`, `keep_alive="30s"`, `config="prod.toml"`); they win over the
    environment and the files, which are read as usual.

    Raises `ConfigError` for unknown or bad options, `UsageError` where it is called from a place it cannot work in, and
    `SystemExit` with the exit code of the command line where the server fails; the reason has been logged then.
    """
    _check_place()
    environ = os.environ
    if isinstance(app, str):
        try:
            resolved = settle({**options, "app": app or None}, cwd=Path.cwd(), environ=environ, origin_of=_as_argument)
        except CavalcadeError as error:
            upgrade.tell_predecessor(environ, error.cause, error.fix, error.trace)
            raise
        settings = _beside_script(resolved)
        code = _guarded(settings, lambda: _supervise(settings, resolved))
    else:
        resolved = _alone(resolve(options, cwd=Path.cwd(), environ=environ, origin_of=_as_argument))
        code = _guarded(resolved.settings, lambda: _run_object(app, resolved))
    if code:
        raise SystemExit(code)


def _supervise(settings: Settings, resolved: Resolved) -> int:
    asked = _bind_asked(resolved)
    return supervisor.run(settings, notes=resolved.notes, bind_asked=asked, origins=resolved.origins, new_front=Front)


def _bind_asked(resolved: Resolved) -> bool:
    """Has somebody said where to listen? What a platform or nobody says gives way to sockets that are open already."""
    return resolved.origins["bind"] not in ("default", "PORT")


def _as_argument(name: str) -> str:
    return f"run({name}=...)"


def _check_place() -> None:
    """Raises `UsageError` where a server cannot be run from."""
    importing = loader.being_imported()
    if importing:
        cause = f"cavalcade.run() was called while {importing} was being imported by the server itself."
        raise UsageError(cause, fix='Put the call under:  if __name__ == "__main__":')
    if threading.current_thread() is not threading.main_thread():
        cause = "cavalcade.run() was called outside the main thread, where no signal can be handled."
        raise UsageError(cause, fix="Embed it instead: async with cavalcade.Server(app) as server: ...")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    cause = "cavalcade.run() was called inside a running event loop, which it would block."
    raise UsageError(cause, fix="Embed it instead: async with cavalcade.Server(app) as server: ...")


def _beside_script(resolved: Resolved) -> Settings:
    """The settings, with the app imported from the script's directory where it is there and nobody said otherwise.

    `python src/main.py` with `run("main:app")` means the main beside it; workers are processes of their own and would look in
    the current directory only.
    """
    settings = resolved.settings
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if resolved.origins["app_dir"] != "default" or script is None:
        return settings
    top = settings.app.partition(":")[0].partition(".")[0]
    here, beside = Path.cwd() / settings.app_dir, Path(script).resolve().parent
    if _has(here, top) or not _has(beside, top):
        return settings
    return dataclasses.replace(settings, app_dir=str(beside))


def _has(directory: Path, module: str) -> bool:
    return (directory / f"{module}.py").is_file() or (directory / module).is_dir()


def _guarded(settings: Settings, serve_it: Callable[[], int]) -> int:
    """The exit code of a server; an error that it ends with is shown."""
    screen = Screen((), os.environ)
    screen.log_format = settings.log_format
    try:
        return serve_it()
    except CavalcadeError as error:
        screen.error(error)
        upgrade.tell_predecessor(os.environ, error.cause, error.fix, error.trace)
        return error.exit_code


# -- an app object -------------------------------------------------------------------------------------------------------


def _alone(resolved: Resolved) -> Resolved:
    """One worker, because an app object cannot be sent to another. Raises `ConfigError` where more were asked for."""
    origin, workers = resolved.origins["workers"], resolved.settings.workers
    if workers == 1:
        return resolved
    if not origin.startswith("WEB_CONCURRENCY"):
        problem = f"{origin}: {workers} workers need an import string: an app object cannot be sent to another process"
        fix = 'cavalcade.run("module:app", workers=...) with the name of the module that defines the app'
        raise ConfigError([problem], log_format=resolved.settings.log_format, fix=fix)
    note = f'WEB_CONCURRENCY={workers} is not used: run(app) serves in this process; run("module:app") has workers'
    notes = [each for each in resolved.notes if not each.startswith("WEB_CONCURRENCY")]
    return dataclasses.replace(resolved, settings=dataclasses.replace(resolved.settings, workers=1), notes=[*notes, note])


def _run_object(app: App, resolved: Resolved) -> int:
    settings = resolved.settings
    logs.configure(settings)
    for note in resolved.notes:
        log.warning("%s", note)
    loaded = loader.usable(app, "the app", settings)
    for note in loaded.notes:
        log.warning("%s", note)
    with asyncio.Runner(loop_factory=lambda: new_event_loop(settings)) as runner:
        runner.run(_serve_here(Server(loaded.app, settings=settings), settings))
    return 0


async def _serve_here(server: Server, settings: Settings) -> None:
    """Serve until TERM or INT; a second signal does not wait for what is in flight."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.on_loop_error)
    leave = asyncio.Event()
    grace = settings.graceful_timeout
    delaying = False

    def on_signal(signum: signal.Signals) -> None:
        nonlocal grace, delaying
        if leave.is_set():
            server.hurry()
        elif signum is signal.SIGINT:
            grace = min(grace, limits.INTERRUPT_GRACE_S)
        elif settings.drain_delay and starting.done() and not delaying:
            delaying = True
            log.info("SIGTERM: draining, still serving for %g s (drain_delay); SIGTERM to stop now", settings.drain_delay)
            server.announce_stop()
            loop.call_later(settings.drain_delay, leave.set)
            return
        leave.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal, signum)
    starting, leaving = loop.create_task(server.start()), loop.create_task(leave.wait())
    try:
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return
        starting.result()
        log.info("ready: %s (one event loop in this process, pid %d)", ", ".join(server.urls), os.getpid())
        await leaving
        log.info("stopping: up to %g s for what is in flight", grace)
        left = await server.stop(grace)
        for request in left:
            log.warning("cancelled after %g s: %s", grace, request)
        log.info("stopped")
    finally:
        leaving.cancel()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)
