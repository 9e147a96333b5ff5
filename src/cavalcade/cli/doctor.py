"""`cavalcade doctor`: examine APP on this machine, and say what will hurt."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.app_tables import alone
from cavalcade.config.sources import Resolved, resolve
from cavalcade.doctor.client import Request
from cavalcade.doctor.examination import examine
from cavalcade.doctor.report import as_data, draw
from cavalcade.errors import UsageError
from cavalcade.observe.report import is_plain

REQUESTS = 50
REQUESTS_MAX = 1000

EXIT_CODES = (
    ("0", "Healthy: no finding is a problem."),
    ("1", "There are problems, or the server died under the examination."),
    ("2", "The command line or a config file is wrong."),
    ("3", "The app does not start; why, is said as `cavalcade APP` says it."),
)


class DoctorCommand(OptionsCommand):
    """Has exit codes of its own."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


@click.command(
    "doctor", cls=DoctorCommand, context_settings=SETTINGS, short_help="Does APP stay asynchronous? What will hurt? Try it, and say."
)
@takes_options
@click.option("--path", "paths", metavar="PATH", multiple=True, help="What to ask for; by default / and what the app names. Repeatable.")
@click.option(
    "--requests", metavar="N", type=click.IntRange(2, REQUESTS_MAX), default=REQUESTS, help=f"How many at once; {REQUESTS} by default."
)
@click.option("--method", metavar="METHOD", default="GET", help="How to ask; GET by default.")
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Send this header field too. Repeatable.")
@click.option("--data", metavar="TEXT|@FILE", default="", help="Send this as the body.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(
    screen: Screen, /, paths: tuple[str, ...], requests: int, method: str, headers: tuple[str, ...], data: str, as_json: bool, **values: Any
) -> int:
    """Start APP with one worker on a free port of this machine, send it requests one by one and many at once, and say whether they
    overlap and what stands in the way; then look at limits, settings and certificates. Nothing that runs already is touched.
    """
    wanted = _requests(paths, method, headers, data)
    resolved = _settle(given(values))
    settings = resolved.settings
    screen.log_format = settings.log_format
    for note in resolved.notes:
        screen.note(note)
    tell = (lambda text: click.echo(f"  {text} ...", err=True)) if sys.stderr.isatty() and not as_json else _silent
    report = asyncio.run(examine(settings, wanted, requests, tell))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_data(report)), indent=2))
    else:
        plain = is_plain(sys.stdout, os.environ, settings.log_format)
        click.echo(draw(report, plain=plain), color=not plain)
    return 1 if report.problems else 0


def _settle(arguments: dict[str, object]) -> Resolved:
    """The settings to examine the app with: those of its table where it is one of several. Raises `ConfigError` or `UsageError`."""
    resolved = resolve({key: value for key, value in arguments.items() if key != "app"}, cwd=Path.cwd(), environ=os.environ)
    tables = resolved.settings.apps
    if tables and "app" not in arguments:
        cause = f"{resolved.origins['app']} names several apps, and one is examined at a time."
        raise UsageError(cause, fix=f"Say which: cavalcade doctor {' | '.join(dict.fromkeys(table.app for table in tables))}")
    for number, table in enumerate(tables, start=1):
        if table.app == arguments["app"]:
            note = f"with what {resolved.origins['app']} says of app[{number}] ({table}); it is examined alone, at the root"
            return Resolved(alone(resolved.settings, table), resolved.origins, [*resolved.notes, note])
    return settle(arguments, cwd=Path.cwd(), environ=os.environ)


def _requests(paths: tuple[str, ...], method: str, headers: tuple[str, ...], data: str) -> list[Request]:
    """What to send, one for each path; one without a path where the app is to choose. Raises `UsageError`."""
    if not method.isascii() or not method.isalpha():
        raise UsageError(f'"{method}" is not a method.', fix="Say --method GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS")
    fields = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip() or any(char in header for char in "\r\n"):
            raise UsageError(f'"{header}" is not a header field.', fix="Write it as curl does: --header 'Authorization: Bearer ...'")
        fields.append((name.strip(), value.strip()))
    for path in paths:
        if not path.startswith("/"):
            raise UsageError(f'"{path}" is not a path.', fix=f"A path begins with a slash: --path /{path}")
    body = data.encode()
    if data.startswith("@"):
        try:
            body = Path(data[1:]).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{data[1:]} cannot be read: {error.strerror}.", fix="Name a file after the @, or write the body itself"
            ) from error
    return [Request(path, method.upper(), tuple(fields), body) for path in paths or ("",)]


def _silent(text: str) -> None:
    pass
