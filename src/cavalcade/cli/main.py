"""The command `cavalcade`: `cavalcade APP` is short for `cavalcade serve APP`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from cavalcade.cli.parameters import write_epilog, write_options
from cavalcade.cli.report import Screen
from cavalcade.errors import CavalcadeError, UsageError
from cavalcade.supervisor import upgrade

_OWN_OPTIONS = frozenset({"--help", "-h", "--version", "-V"})

# Where each command is: only the one that is asked for is imported. A health check runs every few seconds.
_PLACES = {
    "serve": "serve",
    "check": "check",
    "config": "config_show",
    "ps": "look",
    "status": "look",
    "top": "top",
    "inspect": "look",
    "logs": "look",
    "health": "health",
    "reload": "steer",
    "scale": "steer",
    "recycle": "steer",
    "drain": "steer",
    "stop": "steer",
    "log-level": "steer",
    "deploy": "deploy",
    "doctor": "doctor",
}


class Commands(click.Group):
    """A group in which a first word that is no command is an APP to serve, and so is nothing at all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in _PLACES else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in _PLACES and args[0] not in _OWN_OPTIONS):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("cavalcade", "[APP] [OPTIONS]")
        formatter.write_usage("cavalcade", "COMMAND ...", prefix="   or: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        write_options(_command("serve"), ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(formatter)


def _command(name: str) -> click.Command:
    command = getattr(importlib.import_module(f"cavalcade.cli.{_PLACES[name]}"), name.replace("-", "_"))
    assert isinstance(command, click.Command)
    return command


def _show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(importlib.import_module("cavalcade.cli.versions").describe())
        ctx.exit()


@click.group("cavalcade", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print versions.")
def cavalcade() -> None:
    """Serve a Python web app: a supervisor, worker processes, an event loop in each.

    APP is module:attribute, such as main:app; a module; a file; or nothing, and the project is looked through.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, `sys.argv` by default, and return its exit code. Shows every error; raises nothing."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    screen = Screen(words, os.environ)
    try:
        code = cavalcade.main(words, prog_name="cavalcade", standalone_mode=False, obj=screen)
        return code if isinstance(code, int) else 0
    except CavalcadeError as error:
        screen.error(error)
        upgrade.tell_predecessor(os.environ, error.cause, error.fix, error.trace)
        return error.exit_code
    except click.ClickException as error:
        usage = UsageError(error.format_message(), fix=_usage_fix(words))
        screen.error(usage)
        upgrade.tell_predecessor(os.environ, usage.cause, usage.fix)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 1
    except Exception as error:  # noqa: BLE001  the last border: a bug of ours gets its own words and exit code
        screen.unexpected(error)
        upgrade.tell_predecessor(os.environ, f"{type(error).__name__}: {error}")
        return 1


def _usage_fix(words: list[str]) -> str:
    """What to do about a command line that cannot be understood; most often a command with a typo."""
    first = words[0] if words else ""
    near = difflib.get_close_matches(first, list(_PLACES), n=1)
    if near and first not in _PLACES:
        return f"Did you mean: cavalcade {' '.join([near[0], *words[1:]])}"
    return "cavalcade --help shows every command and option"
