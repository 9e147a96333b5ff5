"""What the command line prints about itself: errors, and the steps of a check. In the format that was asked for, so that with
`--log-format json` a program that reads the output never meets a line that is not JSON.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from cavalcade.config.options import Settings
from cavalcade.errors import CavalcadeError, ConfigError
from cavalcade.observe import logs
from cavalcade.observe.report import explain, is_plain

log = logging.getLogger("cavalcade")


class Screen:
    """Where a command speaks to its user. `log_format` is a guess until the settings are known."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.log_format = environ.get("CAVALCADE_LOG_FORMAT", "auto")
        for index, argument in enumerate(arguments):
            if argument == "--log-format":
                self.log_format = "".join(arguments[index + 1 : index + 2])
            elif argument.startswith("--log-format="):
                self.log_format = argument.partition("=")[2]

    def error(self, error: CavalcadeError) -> None:
        """Show an error with its fix and its trace."""
        if isinstance(error, ConfigError):
            self.log_format = error.log_format
        if self.log_format == "json":
            _log_json(error)
            return
        plain = is_plain(sys.stderr, self._environ, self.log_format)
        click.echo(explain(error.cause, error.fix, error.trace, plain=plain), err=True, color=not plain)

    def unexpected(self, error: BaseException) -> None:
        """Show an error of ours that nothing foresaw, with its whole traceback."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        self.error(CavalcadeError(f"Cavalcade itself failed: {type(error).__name__}: {error}", fix="Please report this.", trace=trace))

    def step(self, text: str) -> None:
        """Say that one step of a check went well."""
        if self.log_format == "json":
            log.info(text)
            return
        plain = is_plain(sys.stdout, self._environ, self.log_format)
        click.echo(f"ok  {text}" if plain else f"\x1b[32m✓\x1b[0m {text}", color=not plain)

    def note(self, text: str) -> None:
        """Say what the user ought to know, without being asked."""
        if self.log_format == "json":
            log.info(text)
        else:
            click.echo(f"note: {text}", err=True)


def _log_json(error: CavalcadeError) -> None:
    """One object for each problem; the fix and the traceback are fields of it."""
    logs.configure(Settings(log_format="json"))
    problems = error.problems if isinstance(error, ConfigError) else [error.cause]
    for problem in problems:
        log.error("%s", problem, extra={key: text for key, text in (("fix", error.fix), ("trace", error.trace)) if text})


def screen() -> Screen:
    """A screen for a program that has no command line of ours: `cavalcade.run()`."""
    return Screen((), os.environ)
