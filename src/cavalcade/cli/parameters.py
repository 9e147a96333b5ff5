"""The command line's options, made from `Settings`, and the help text around them.

click only cuts the arguments apart: every value stays the text it was, so that `config/sources.py` can judge all of them together
and report every problem at once, unknown options included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from cavalcade.config.values import OPTIONS, Option, show

SIGNALS = (
    ("TERM", "Stop: after --drain-delay, finish what is in flight within --graceful-timeout. A second one: stop at once."),
    ("INT", "Ctrl-C: the same with a short grace and no delay. A second one: stop at once."),
    ("HUP", "Reload: new workers with the code as it is now, one by one; where it fails, the old ones go on serving."),
    ("USR1", "Open log files anew that logrotate has moved away."),
    ("USR2", "Upgrade: a new server, of whatever version is installed now, takes the sockets over; where it fails, this one serves on."),
    ("TTIN, TTOU", "One worker more, one fewer."),
)
EXIT_CODES = (
    ("0", "A clean stop."),
    ("2", "The command line or a config file is wrong."),
    ("3", "The app or the server could not start; a reload or another change was refused."),
    ("1", "Anything else."),
)
_SOURCES = (
    "Every option can also be given as CAVALCADE_<NAME> in the environment, and as a key of cavalcade.toml or of [tool.cavalcade] in "
    "pyproject.toml. The command line wins over the environment, that over the files, those over PORT and WEB_CONCURRENCY. "
    "Times: 30s, 250ms, 5m, or seconds. Sizes: 64KiB, 1M (1024 each), 10MB (1000 each), or bytes."
)
_WIDTH = 100
SETTINGS: Mapping[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": _WIDTH,
    "ignore_unknown_options": True,
    "allow_extra_args": True,
}


class OptionsCommand(click.Command):
    """A command that takes every option of `Settings` and shows them in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(formatter)


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The options in their groups, with defaults."""
    groups: dict[str, list[tuple[str, str]]] = {}
    others: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Argument):
            continue
        option = OPTIONS.get(parameter.name or "")
        if option is not None and option.name != "app":
            groups.setdefault(option.info.group, []).append((_written(option), _about(option)))
        elif record := parameter.get_help_record(ctx):
            others.append(record)
    for group, rows in groups.items():
        with formatter.section(f"{group.capitalize()} options"):
            formatter.write_dl(rows)
    with formatter.section("Other options"):
        formatter.write_dl(others)


def write_epilog(formatter: click.HelpFormatter) -> None:
    """Where options come from, the signal map and the exit codes."""
    with formatter.section("Where options come from"):
        formatter.write_text(_SOURCES)
    with formatter.section("Signals to the supervisor"):
        formatter.write_dl(SIGNALS)
    with formatter.section("Exit codes"):
        formatter.write_dl(EXIT_CODES)


def takes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument APP, `--config` and every option of `Settings`."""
    for option in reversed(list(OPTIONS.values())):
        if option.name != "app":
            command = _parameter(option)(command)
    command = click.option("-c", "--config", metavar="FILE", help="Read this file instead of cavalcade.toml.")(command)
    return click.argument("app", nargs=-1, type=click.UNPROCESSED)(command)


def given(values: Mapping[str, Any]) -> dict[str, object]:
    """What was on the command line: names and raw values for `resolve`. Unknown options keep their dashes and are reported there.

    Raises `click.UsageError` for more than one APP.
    """
    arguments = {name: value for name, value in values.items() if value is not None and value != () and name != "app"}
    words = [str(word) for word in values["app"]]
    unknown = [word for word in words if word.startswith("-") and word != "-"]
    if unknown:
        return arguments | {word.partition("=")[0]: "" for word in unknown}
    if len(words) > 1:
        raise click.UsageError(f"One APP, not {len(words)}: {' '.join(words)}")
    return arguments | ({"app": words[0]} if words else {})


def _parameter(option: Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    names = [_flag(name) for name in (option.name, *option.info.aliases)]
    if option.kind == "flag":
        declarations = [f"{name}/--no-{name.removeprefix('--')}" for name in names]
        return click.option(option.name, *declarations, default=None)
    shorts = [option.info.short] if option.info.short else []
    several = option.kind == "texts"
    return click.option(option.name, *shorts, *names, type=click.UNPROCESSED, multiple=several, metavar=option.metavar, default=None)


def _written(option: Option) -> str:
    flag = _flag(option.name)
    if option.kind == "flag":
        return f"{flag} / --no-{flag.removeprefix('--')}"
    return f"{f'{option.info.short}, ' if option.info.short else ''}{flag} {option.metavar}"


def _about(option: Option) -> str:
    notes: list[str] = []
    if option.default not in ("", (), False):
        notes.append(f"default: {'on' if option.default is True else show(option, option.default)}")
    notes += [f"env: {variable}" for variable in option.info.env]
    notes += [f"also {_flag(alias)}" for alias in option.info.aliases]
    return option.info.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
