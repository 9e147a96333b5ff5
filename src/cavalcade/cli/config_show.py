"""`cavalcade config show`: every effective value and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from cavalcade.cli.choice import find_chosen, print_json, takes_json
from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.values import OPTIONS, show, visible


@click.group("config", context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Look at the configuration: `cavalcade config show`."""


@config.command("show", cls=OptionsCommand, context_settings=SETTINGS)
@takes_options
@click.option("--running", is_flag=True, help="Those of the running server; --control and --name say which.")
@takes_json("Print one JSON object: option to value and origin.")
@click.pass_obj
def show_command(screen: Screen, /, running: bool, as_json: bool, **values: Any) -> None:
    """Print every effective value and where it came from, as `cavalcade APP` with the same options would see it."""
    if running:
        _show_running(given(values), as_json)
        return
    resolved = settle(given(values), cwd=Path.cwd(), environ=os.environ, need_app=False)
    if as_json:
        shown = {name: visible(option, getattr(resolved.settings, name)) for name, option in OPTIONS.items()}
        table = {name: {"value": value, "origin": resolved.origins[name]} for name, value in shown.items()}
        if resolved.settings.apps:
            table["apps"] = {"value": resolved.settings.apps, "origin": resolved.origins["app"]}
        print_json(msgspec.json.encode(table))
        return
    _print((name, show(option, getattr(resolved.settings, name)), resolved.origins[name]) for name, option in OPTIONS.items())
    for note in resolved.notes:
        screen.note(note)


def _show_running(values: dict[str, object], as_json: bool) -> None:
    """The settings of a server that runs."""
    others = [name for name in values if name not in ("control", "name")]
    if others:
        raise click.UsageError(f"With --running nothing is set, so {', '.join(others)} cannot be given")
    table = find_chosen(str(values.get("control", "")), str(values.get("name", "")), None).get("config")
    if as_json:
        print_json(table)
        return
    known = msgspec.json.decode(table, type=dict[str, _Shown])
    _print((name, show(OPTIONS[name], each.value) if name in OPTIONS else str(each.value), each.origin) for name, each in known.items())


class _Shown(msgspec.Struct):
    value: Any
    origin: str


def _print(rows: Iterable[tuple[str, str, str]]) -> None:
    table = [(name, value or "-", origin) for name, value, origin in rows]
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    for name, value, origin in table:
        click.echo(f"{name:<{first}}  {value:<{second}}  {origin}")
