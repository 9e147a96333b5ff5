"""`cavalcade health`: how the running server is, as an exit code, for container checks."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from cavalcade.admin.answers import Reply
from cavalcade.cli.choice import find_chosen, print_json, takes_choice, takes_json
from cavalcade.errors import ControlError
from cavalcade.supervisor.status import QUESTIONS, answer


@click.command(
    "health",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    short_help="Is the running server well? As an exit code, for container checks.",
    epilog="Exit codes: 0 yes; 1 no, or no server is to be reached; 2 it makes no sense.",
)
@click.argument("question", type=click.Choice(QUESTIONS), default="ready")
@takes_choice
@takes_json()
def health(question: str, as_json: bool, **choice: Any) -> None:
    """Ask the supervisor, which never waits behind the app.

    \b
    ready    requests should be sent to it: not before the first worker is ready, not while it stops
    started  it has been ready once
    live     the supervisor answers
    """
    status = find_chosen(**choice).status
    yes, line = answer(status, question)
    if not yes:
        raise ControlError(f"{status.name} is not {question}: {line}.")
    if as_json:
        print_json(msgspec.json.encode(Reply("yes", line)))
    else:
        click.echo(f"{question}: {line}")
