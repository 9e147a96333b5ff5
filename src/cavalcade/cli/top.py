"""`cavalcade top`: the running server, live."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from cavalcade.cli import describe
from cavalcade.cli.choice import command, find_chosen, print_json, takes_choice, takes_json
from cavalcade.cli.instances import Instance
from cavalcade.config.checks import installed
from cavalcade.errors import UsageError
from cavalcade.supervisor.status import Status

_PLAINLY = "cavalcade top --once, or --json"


@command("top", "The running server, live: its workers, sorted as you like, and the code that blocks them.")
@click.option("--once", is_flag=True, help="Print it once, as text, and end.")
@click.option("-i", "--interval", metavar="SECONDS", type=click.FloatRange(min=0.1), default=1.0, help="Between two looks. 1 by default.")
@takes_choice
@takes_json("Print one JSON object a look, each on a line; with --once just one. Errors are JSON too, on stderr.")
def top(once: bool, interval: float, as_json: bool, **choice: Any) -> None:
    """Show the running server, live.

    \b
    up, down  choose a worker                  d  its stacks: every request, and where it stands
    s, S      sort by the next column          r  replace it by a new one; asks first
    o         the other way round              q  quit
    """
    try:
        if once or as_json:
            _print(find_chosen(**choice), interval, once, as_json)
        else:
            _watch(lambda: find_chosen(**choice), interval)
    except KeyboardInterrupt:  # the other way to quit
        pass


def _print(instance: Instance, interval: float, once: bool, as_json: bool) -> None:
    raw = instance.raw
    while True:
        if not as_json:
            click.echo("\n".join(describe.describe(msgspec.json.decode(raw, type=Status))))
        elif once:
            print_json(raw)
        else:
            click.echo(raw.strip())
        if once:
            return
        time.sleep(interval)
        raw = instance.get("status")


def _watch(find: Callable[[], Instance], interval: float) -> None:
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("The output is no terminal that top could draw on.", fix=_PLAINLY)
    if not installed("rich"):
        raise UsageError(
            "cavalcade top draws with rich, which is not installed here.", fix=f"pip install 'cavalcade[tui]'; without it: {_PLAINLY}"
        )
    # Rich is for this command only: no server imports it.
    importlib.import_module("cavalcade.cli.top_screen").watch(find, interval)
