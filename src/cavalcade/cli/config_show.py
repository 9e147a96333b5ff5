"""`cavalcade config show`: every effective value and where it came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.values import OPTIONS, show, visible


@click.group("config", context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Look at the configuration: `cavalcade config show`."""


@config.command("show", cls=OptionsCommand, context_settings=SETTINGS)
@takes_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: option to value and origin.")
@click.pass_obj
def show_command(screen: Screen, /, as_json: bool, **values: Any) -> None:
    """Print every effective value and where it came from, as `cavalcade APP` with the same options would see it."""
    resolved = settle(given(values), cwd=Path.cwd(), environ=os.environ, need_app=False)
    if as_json:
        shown = {name: visible(option, getattr(resolved.settings, name)) for name, option in OPTIONS.items()}
        table = {name: {"value": value, "origin": resolved.origins[name]} for name, value in shown.items()}
        if resolved.settings.apps:
            table["apps"] = {"value": resolved.settings.apps, "origin": resolved.origins["app"]}
        click.echo(msgspec.json.format(msgspec.json.encode(table)).decode())
        return
    rows = [(name, show(option, getattr(resolved.settings, name)) or "-", resolved.origins[name]) for name, option in OPTIONS.items()]
    rows += [(f"app[{n}]", str(each), resolved.origins["app"]) for n, each in enumerate(resolved.settings.apps, start=1)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, origin in rows:
        click.echo(f"{name:<{first}}  {value:<{second}}  {origin}")
    for note in resolved.notes:
        screen.note(note)
