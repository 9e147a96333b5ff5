"""`cavalcade health`: how the running server is, as an exit code, for container checks."""

from __future__ import annotations

from typing import Any

import click

from cavalcade.cli.control import find_chosen, takes_choice
from cavalcade.errors import ControlError
from cavalcade.supervisor.state import Stage
from cavalcade.supervisor.status import Status

QUESTIONS = ("ready", "started", "live")
_NOT_STARTED = (Stage.NEW.value, Stage.STARTING.value)


@click.command(
    "health",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    short_help="Is the running server well? As an exit code, for container checks.",
    epilog="Exit codes: 0 yes; 1 no, or no server is to be reached; 2 it makes no sense.",
)
@click.argument("question", type=click.Choice(QUESTIONS), default="ready")
@takes_choice
def health(question: str, **choice: Any) -> None:
    """Ask the supervisor, which never waits behind the app.

    \b
    ready    requests should be sent to it: not before the first worker is ready, not while it stops
    started  it has been ready once
    live     the supervisor answers
    """
    status = find_chosen(**choice).status
    if not _is(status, question):
        raise ControlError(f"{status.name} is not {question}: {_summary(status)}.")
    click.echo(f"{question}: {_summary(status)}")


def _is(status: Status, question: str) -> bool:
    if question == "ready":
        return status.ready
    return question == "live" or status.stage not in _NOT_STARTED


def _summary(status: Status) -> str:
    return f"{status.stage}, {status.workers_ready} of {status.workers_wanted} workers ready"
