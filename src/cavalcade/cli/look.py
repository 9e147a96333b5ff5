"""`cavalcade ps`, `status`, `inspect` and `logs`: what servers that run tell of themselves."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, get_args

import click
import msgspec

from cavalcade.cli import describe
from cavalcade.cli.choice import command, find_chosen, print_json, takes_choice, takes_json
from cavalcade.cli.instances import look_through
from cavalcade.cli.report import Screen
from cavalcade.config.options import LogLevel
from cavalcade.errors import ControlError
from cavalcade.observe import logs as log_lines
from cavalcade.observe.report import is_plain
from cavalcade.supervisor.inspector import Inspection
from cavalcade.supervisor.journal import Entry


@command("ps", "Every running server of this user.")
@takes_json("Print a JSON array of what `status --json` prints; errors are JSON too, on stderr.")
@click.pass_obj
def ps(screen: Screen, /, as_json: bool) -> None:
    """List every running server of this user whose control socket is in a runtime directory."""
    instances, silent = look_through(os.environ)
    if as_json:
        print_json(b"[%b]" % b",".join(instance.raw for instance in instances))
    elif instances:
        click.echo("\n".join(describe.list_instances(instances)))
    else:
        click.echo("No server of this user is running.")
    for path, reason in silent.items():
        screen.note(f"{path} does not answer ({reason}); if its server is gone, the next one that starts removes it")


@command("status", "How the running server is, worker by worker.")
@takes_choice
@takes_json()
def status(as_json: bool, **choice: Any) -> None:
    """Show how the running server is, worker by worker."""
    instance = find_chosen(**choice)
    if as_json:
        print_json(instance.raw)
    else:
        click.echo("\n".join(describe.describe(instance.status)))


@command("inspect", "What a worker is at: every request, and where it stands in the app.")
@click.argument("worker", metavar="WORKER", type=click.IntRange(min=1))
@click.option("--limit", metavar="N", type=click.IntRange(min=0, max=500), default=50, help="So many requests, the oldest. 50 by default.")
@click.option("--full", is_flag=True, help="Every frame, those of libraries too.")
@takes_choice
@takes_json()
def inspect(worker: int, limit: int, full: bool, as_json: bool, **choice: Any) -> None:
    """Show what a worker is at, by its number in `cavalcade status`: every request with its age, its client and the `await` it stands at.

    Where its loop is blocked, the stack of its thread.
    """
    found = find_chosen(**choice).get("workers", str(worker), "stack", limit=limit)
    if as_json:
        print_json(found)
        return
    for line in describe.describe_inspection(msgspec.json.decode(found, type=Inspection), full=full):
        click.echo(log_lines.printable(line))


@command("logs", "The last lines of the log of the running server and its workers.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until the server stops.")
@click.option("--lines", metavar="N", type=click.IntRange(min=0), default=50, help="So many lines at most. 50 by default.")
@click.option("--level", type=click.Choice(get_args(LogLevel), case_sensitive=False), default="debug", help="Least important level.")
@click.option("--worker", metavar="N", type=click.IntRange(min=0), help="Of this worker only; 0 is the supervisor.")
@takes_choice
@takes_json("Print one JSON object a line; errors are JSON too, on stderr.")
def logs(follow: bool, lines: int, level: str, worker: int | None, as_json: bool, **choice: Any) -> None:
    """Show the last lines that the supervisor and the workers have logged. They are kept in memory, 1000 of them; where the log itself
    goes to is another matter."""
    instance = find_chosen(**choice)
    query = {"lines": lines, "level": level.lower(), **({} if worker is None else {"worker": worker})}
    show = _show_json if as_json else _Lines()
    if not follow:
        for entry in msgspec.json.decode(instance.get("logs", **query), type=list[Entry]):
            show(entry)
        return
    ended = False
    for name, data in instance.follow("logs", **query, follow=1):
        ended = name == "bye"
        if name == "entry":
            show(msgspec.json.decode(data, type=Entry))
    if not ended:
        raise ControlError(f"{instance.label}: the connection has ended in the middle.", fix="Look at the log itself")


def _show_json(entry: Entry) -> None:
    click.echo(msgspec.json.encode(entry))


class _Lines:
    """Entries as the log has them."""

    def __init__(self) -> None:
        self._colour = not is_plain(sys.stdout, os.environ, "auto")
        self._lines = log_lines.TextLines(None, colour=self._colour)

    def __call__(self, entry: Entry) -> None:
        known = {"created": entry.time, "process": entry.pid, "msg": "%s", "args": (entry.text,)}
        extras = {"levelname": entry.level.upper(), "levelno": logging.getLevelNamesMapping()[entry.level.upper()]}
        record = logging.makeLogRecord({**known, **extras, "fix": entry.fix, "trace": entry.trace})
        click.echo(self._lines.format(record), color=self._colour)
