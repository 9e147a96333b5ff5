"""`cavalcade reload`, `scale`, `recycle`, `drain`, `stop` and `log-level`: orders to a server that runs."""

from __future__ import annotations

import re
import time
from typing import Any, get_args

import click
import msgspec
import psutil

from cavalcade.admin.answers import Reply
from cavalcade.cli.choice import command, find_chosen, print_json, takes_choice, takes_json
from cavalcade.config.options import LogLevel

END_S = 5.0  # from the last answer to the end of the process
POLL_S = 0.01

_wait = click.option("--wait/--no-wait", default=True, help="Wait until it is done. On by default.")


@command("reload", "Reload the app of the running server without losing a request.")
@takes_choice
@_wait
@takes_json()
def reload(wait: bool, as_json: bool, **choice: Any) -> None:
    """Reload the app of the running server, worker by worker, without losing a request.

    Where the new code does not start, the old goes on serving; its traceback is shown, and the exit code is 3.
    """
    _tell(find_chosen(**choice).post("reload", wait=wait), as_json)


@command("scale", "Change the number of workers of the running server.", ignore_unknown_options=True)  # -1 is no option
@click.argument("workers", metavar="N|+N|-N", type=click.UNPROCESSED)
@takes_choice
@_wait
@takes_json()
def scale(workers: str, wait: bool, as_json: bool, **choice: Any) -> None:
    """Change the number of workers: N, or so many more or fewer."""
    if not re.fullmatch(r"[+-]?[0-9]{1,6}", workers):
        raise click.UsageError(f"How many workers? {workers!r} is no number: 4, +1, -1")
    _tell(find_chosen(**choice).post("scale", wait=wait, workers=workers), as_json)


@command("recycle", "Replace a worker of the running server, or all of them, one by one.")
@click.argument("worker", metavar="WORKER|all")
@takes_choice
@_wait
@takes_json()
def recycle(worker: str, wait: bool, as_json: bool, **choice: Any) -> None:
    """Replace a worker by its number in `cavalcade status`, or all of them, one by one. The successor is ready before it leaves."""
    if worker != "all" and not (worker.isascii() and worker.isdigit()):
        raise click.UsageError(f"Which worker? {worker!r} is neither a number nor all")
    _tell(find_chosen(**choice).post("workers", worker, "recycle", wait=wait), as_json)


@command("drain", "Take the running server out of rotation: not ready any more, but serving; or back in.")
@click.option("--undo", is_flag=True, help="Back into rotation.")
@takes_choice
@takes_json()
def drain(undo: bool, as_json: bool, **choice: Any) -> None:
    """Take the running server out of rotation: /readyz and `cavalcade health` say no, responses say Connection: close, and whoever comes
    all the same is served. `cavalcade stop` ends it, `cavalcade drain --undo` takes it back."""
    _tell(find_chosen(**choice).post("drain", off=int(undo)), as_json)


@command("log-level", "Change the log level of the running server.")
@click.argument("level", type=click.Choice(get_args(LogLevel), case_sensitive=False))
@takes_choice
@takes_json()
def log_level(level: str, as_json: bool, **choice: Any) -> None:
    """Change the log level of the running server, in every process and those to come, until it is restarted."""
    _tell(find_chosen(**choice).post("log-level", level=level), as_json)


@command("stop", "Stop the running server, as SIGTERM does.")
@takes_choice
@_wait
@takes_json()
def stop(wait: bool, as_json: bool, **choice: Any) -> None:
    """Stop the running server as SIGTERM does: what is in flight is finished. Waits until it is gone."""
    instance = find_chosen(**choice)
    try:
        process = psutil.Process(instance.status.pid)
    except psutil.Error:  # it lives in another container: its pid means nothing here
        process = None
    _tell(instance.post("stop", wait=wait), as_json)
    # The answer comes a moment before the end. Whoever starts the next server right after this wants the port to be free.
    until = time.monotonic() + END_S
    while wait and process is not None and _runs(process) and time.monotonic() < until:
        time.sleep(POLL_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _tell(reply: Reply, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.json.encode(reply))
    else:
        click.echo(reply.text)
