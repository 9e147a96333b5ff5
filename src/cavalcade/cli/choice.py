"""Which running server a command means, and what all such commands have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from cavalcade.cli.instances import Choice, Instance, find
from cavalcade.cli.report import Screen
from cavalcade.config.sources import resolve
from cavalcade.errors import ConfigError

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EXITS = "Exit codes: 0 done; 1 no server to be reached, or it stops; 2 it makes no sense; 3 refused, and the server goes on as it was."


def command(name: str, short_help: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command for a running server."""
    return click.command(name, context_settings=_SETTINGS | settings, short_help=short_help, epilog=_EXITS)


def _speak_json(ctx: click.Context, parameter: click.Parameter, asked: bool) -> bool:
    screen = ctx.obj
    if asked and isinstance(screen, Screen):
        screen.log_format = "json"  # errors too
    return asked


def takes_json(help: str = "Print one JSON object; errors are JSON too, on stderr.") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_speak_json, help=help)


def print_json(encoded: bytes) -> None:
    """JSON for a person and a program."""
    click.echo(msgspec.json.format(encoded.strip()).decode())


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
