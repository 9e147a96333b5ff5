"""`cavalcade status`, `reload`, `scale`, `recycle` and `stop`: what is done with a server that runs, over its control socket."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import psutil

from cavalcade.cli.instances import Choice, Instance, find
from cavalcade.config.sources import resolve
from cavalcade.errors import ConfigError
from cavalcade.supervisor.spans import span
from cavalcade.supervisor.status import Status

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EXITS = "Exit codes: 0 done; 1 no server to be reached, or it stops; 2 it makes no sense; 3 refused, and the server goes on as it was."


def takes_choice(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which server is meant."""
    for option in (
        click.option(
            "--control",
            metavar="PATH",
            envvar="CAVALCADE_CONTROL",
            default="",
            help="The server's control socket; else the configured one.",
        ),
        click.option("-n", "--name", metavar="NAME", default="", help="The server's --name, or its app; else the configured name."),
        click.option("-p", "--pid", metavar="PID", type=click.IntRange(min=1), help="The process id of the server's supervisor."),
    ):
        command = option(command)
    return command


def find_chosen(control: str, name: str, pid: int | None) -> Instance:
    """The server that the command line means, else the one that the project's configuration names."""
    if control in ("", "auto", "off") and not name and not pid:
        return find(_configured(), os.environ)
    return find(Choice("" if control in ("auto", "off") else control, pid or 0, name), os.environ)


def _configured() -> Choice:
    """The `control` and `name` that a server started here would have. A configuration that is broken by now must not keep anybody from
    stopping the server that was started with it."""
    try:
        resolved = resolve({}, cwd=Path.cwd(), environ=os.environ)
    except ConfigError as error:
        screen = click.get_current_context().obj
        screen.note(f"the configuration here is not used to find the server: {error.problems[0]}")
        return Choice()
    settings, origins = resolved.settings, resolved.origins
    if settings.control not in ("auto", "off"):
        return Choice(control=settings.control, origin=f"control in {origins['control']}")
    return Choice(name=settings.name, origin=f"name in {origins['name']}") if settings.name else Choice()


def _command(name: str, short_help: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    return click.command(name, context_settings=_SETTINGS | settings, short_help=short_help, epilog=_EXITS)


END_S = 5.0  # from the last answer to the end of the process
POLL_S = 0.01

_wait = click.option("--wait/--no-wait", default=True, help="Wait until it is done. On by default.")


@_command("status", "How the running server is, worker by worker.")
@takes_choice
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool, **choice: Any) -> None:
    """Show how the running server is, worker by worker."""
    instance = find_chosen(**choice)
    if as_json:
        click.echo(msgspec.json.format(instance.raw.rstrip()).decode())
        return
    for line in describe(instance.status):
        click.echo(line)


@_command("reload", "Reload the app of the running server without losing a request.")
@takes_choice
@_wait
def reload(wait: bool, **choice: Any) -> None:
    """Reload the app of the running server, worker by worker, without losing a request.

    Where the new code does not start, the old goes on serving; its traceback is shown, and the exit code is 3.
    """
    click.echo(find_chosen(**choice).post("reload", wait=wait).text)


@_command("scale", "Change the number of workers of the running server.", ignore_unknown_options=True)  # -1 is no option
@click.argument("workers", metavar="N|+N|-N", type=click.UNPROCESSED)
@takes_choice
@_wait
def scale(workers: str, wait: bool, **choice: Any) -> None:
    """Change the number of workers: N, or so many more or fewer."""
    if not re.fullmatch(r"[+-]?[0-9]{1,6}", workers):
        raise click.UsageError(f"How many workers? {workers!r} is no number: 4, +1, -1")
    click.echo(find_chosen(**choice).post("scale", wait=wait, workers=workers).text)


@_command("recycle", "Replace a worker of the running server, or all of them, one by one.")
@click.argument("worker", metavar="WORKER|all")
@takes_choice
@_wait
def recycle(worker: str, wait: bool, **choice: Any) -> None:
    """Replace a worker by its number in `cavalcade status`, or all of them, one by one. The successor is ready before it leaves."""
    if worker != "all" and not (worker.isascii() and worker.isdigit()):
        raise click.UsageError(f"Which worker? {worker!r} is neither a number nor all")
    click.echo(find_chosen(**choice).post("workers", worker, "recycle", wait=wait).text)


@_command("stop", "Stop the running server, as SIGTERM does.")
@takes_choice
@_wait
def stop(wait: bool, **choice: Any) -> None:
    """Stop the running server as SIGTERM does: what is in flight is finished. Waits until it is gone."""
    instance = find_chosen(**choice)
    try:
        process = psutil.Process(instance.status.pid)
    except psutil.Error:  # it lives in another container: its pid means nothing here
        process = None
    click.echo(instance.post("stop", wait=wait).text)
    # The answer comes a moment before the end. Whoever starts the next server right after this wants the port to be free.
    until = time.monotonic() + END_S
    while wait and process is not None and _runs(process) and time.monotonic() < until:
        time.sleep(POLL_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# -- a status for people -------------------------------------------------------------------------------------------------


def describe(status: Status) -> list[str]:
    """The lines of `cavalcade status`."""
    title = status.name if status.name == status.app else f"{status.name} ({status.app})"
    state = f"{status.stage}, degraded" if status.degraded else status.stage
    lines = [
        f"{title}: {state}, up {span(status.uptime_s)}, pid {status.pid}, cavalcade {status.version} ({status.build})",
        f"listening on {', '.join(status.listeners)}",
        f"{status.workers_ready} of {status.workers_wanted} workers ready, generation {status.generation}"
        + (f", generation {status.reloading} on its way" if status.reloading else ""),
        f"{status.totals.get('requests', 0)} requests, {status.in_flight} in flight, {status.connections} connections",
    ]
    if status.last_reload is not None:
        first, *_ = status.last_reload.text.splitlines()
        lines.append(f"last reload {span(status.last_reload.ago_s)} ago: {first}")
    head = ("worker", "pid", "gen", "phase", "age", "requests", "in flight", "connections", "")
    rows = [
        (
            str(worker.id),
            str(worker.pid or "-"),
            str(worker.generation),
            worker.phase,
            span(worker.age_s),
            str(worker.requests),
            str(worker.in_flight),
            str(worker.connections),
            f"retires: {worker.retiring}" if worker.retiring else "",
        )
        for worker in status.workers
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    lines.append("")
    for row in (head, *rows):
        cells = [cell.rjust(width) if name != "phase" else cell.ljust(width) for cell, width, name in zip(row, widths, head, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines
