"""`cavalcade check`: everything that can go wrong before the first request, tried once, for CI and for deploy scripts."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import click

from cavalcade.apps import loader
from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.options import Settings
from cavalcade.errors import BootTimeout
from cavalcade.net import sockets
from cavalcade.net.listener import close
from cavalcade.net.tls import Tls
from cavalcade.observe import logs
from cavalcade.worker.entry import new_event_loop
from cavalcade.worker.server import Server

log = logging.getLogger("cavalcade")


@click.command("check", cls=OptionsCommand, context_settings=SETTINGS, short_help="Try config, bind, import and lifespan of APP, and exit.")
@takes_options
@click.pass_obj
def check(screen: Screen, /, **values: Any) -> None:
    """Try the configuration, the addresses, the import and the lifespan of APP; exit with 0, 2 or 3."""
    resolved = settle(given(values), cwd=Path.cwd(), environ=os.environ)
    settings = resolved.settings
    screen.log_format = settings.log_format
    logs.configure(settings)
    for note in resolved.notes:
        screen.note(note)
    screen.step(f"config: {settings.app} from {(Path.cwd() / settings.app_dir).resolve()}")
    if settings.ssl_certfile:
        tls = Tls(settings)
        for identity in tls.identities:
            screen.step(f"tls: {identity.certfile}: {identity.certificate}")
        for warning in tls.warnings():
            screen.note(warning)
    listeners = sockets.bind_all(settings.bind, settings.backlog)
    try:
        screen.step(f"bind: {', '.join(settings.bind)}")
        loaded = loader.load(settings)
        for note in loaded.notes:
            screen.note(note)
        kind = loaded.kind if loaded.interface == "asgi" else f"{loaded.kind.removesuffix(' (WSGI)')}, WSGI"
        screen.step(f"import: {loaded.name} ({kind}) in {loaded.import_s:.2f} s")
        if loaded.interface == "wsgi":
            return  # WSGI has no lifespan
        started = time.perf_counter()
        with asyncio.Runner(loop_factory=lambda: new_event_loop(settings)) as runner:
            runner.run(_live_once(Server(loaded.app, settings=settings), settings))
        screen.step(f"lifespan: started and shut down in {time.perf_counter() - started:.2f} s")
    finally:
        for listener in listeners:
            close(listener)


async def _live_once(server: Server, settings: Settings) -> None:
    """Lifespan startup and shutdown. Raises `LifespanFailed` and `BootTimeout`."""
    try:
        async with asyncio.timeout(settings.boot_timeout):
            await server.boot()
    except TimeoutError:
        cause = f"The app's startup was not complete after {settings.boot_timeout:g} s."
        raise BootTimeout(cause, fix="Raise --boot-timeout, or find out what its lifespan waits for.") from None
    await server.stop(settings.graceful_timeout)
