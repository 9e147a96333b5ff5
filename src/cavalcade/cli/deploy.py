"""`cavalcade deploy TARGET`: files for service managers, orchestrators and proxies that agree with this server's settings."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from cavalcade.cli.parameters import SETTINGS, OptionsCommand, given, takes_options
from cavalcade.cli.report import Screen
from cavalcade.cli.settle import settle
from cavalcade.config.options import Settings
from cavalcade.deploy import plan as plans
from cavalcade.deploy.targets import TARGETS, Choices, File, Target
from cavalcade.errors import UsageError

_OF_TARGETS = ("upstream", "listen", "image", "replicas")


class DeployCommand(OptionsCommand):
    """Shows the targets before the options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Targets"):
            formatter.write_dl([(name, target.about) for name, target in TARGETS.items()])
        super().format_options(ctx, formatter)


@click.command("deploy", cls=DeployCommand, context_settings=SETTINGS, short_help="Print files for Kubernetes, systemd, nginx and others.")
@click.argument("target", metavar="TARGET", required=False)
@takes_options
@click.option("--upstream", metavar="ADDRESS", multiple=True, help="An instance behind the proxy: host:port or unix:/path. Repeatable.")
@click.option("--listen", metavar="ADDRESS", help="Where the proxy listens: port or host:port; 80 by default.")
@click.option("--image", metavar="IMAGE", help="The image that Kubernetes runs.")
@click.option("--replicas", metavar="N", type=click.IntRange(min=1), help="How many pods; 3 by default.")
@click.option("-o", "--output", metavar="DIR", help="Write the files there instead of printing them.")
@click.option("--force", is_flag=True, help="With --output: replace files that are there.")
@click.pass_obj
def deploy(screen: Screen, /, target: str | None, output: str | None, force: bool, **values: Any) -> None:
    """Print files for TARGET that agree with each other and with the settings of APP.

    The settings are read as `cavalcade APP` with the same options would read them; what only this command line or environment says
    is written into the files.
    """
    name, which = _target(target)
    asked = {option: values.pop(option) for option in _OF_TARGETS}
    for option, value in asked.items():
        if value not in (None, ()) and option not in which.takes:
            fit = ", ".join(each for each, other in TARGETS.items() if option in other.takes)
            raise UsageError(f"--{option} means nothing to {name}.", fix=f"It is for {fit}")
    if force and output is None:
        raise UsageError("--force is for --output, and the files are only printed.", fix="Say --output DIR, or leave --force out")
    resolved = settle(given(values), cwd=Path.cwd(), environ=os.environ)
    screen.log_format = resolved.settings.log_format
    plan, notes = plans.make(resolved, cwd=Path.cwd(), config=str(values["config"] or os.environ.get("CAVALCADE_CONFIG", "")))
    choices = Choices(**asked, made_by=_made_by(name, resolved.settings), program=_program())
    files = which.make(plan, choices, notes)
    for note in [*resolved.notes, *notes]:
        screen.note(note)
    if output is None:
        _print(files)
    else:
        for path in _write(files, Path(output), force):
            click.echo(path)


def _target(name: str | None) -> tuple[str, Target]:
    """The target that is meant. Raises `UsageError`."""
    known = ", ".join(TARGETS)
    if name is None:
        raise UsageError("Files for what?", fix=f"cavalcade deploy TARGET [APP], where TARGET is one of {known}")
    if name in TARGETS:
        return name, TARGETS[name]
    near = difflib.get_close_matches(
        {"k8s": "kubernetes", "dockerfile": "docker", "compose": "docker"}.get(name.lower(), name), TARGETS, n=1
    )
    hint = f"Did you mean {near[0]}? The targets" if near else "The targets"
    raise UsageError(f'There is no target "{name}".', fix=f"{hint} are {known}; an APP comes after the target")


def _made_by(target: str, settings: Settings) -> str:
    app = "" if settings.apps else f" {settings.app}"  # several are in a file, and cannot be named
    return f"cavalcade deploy {target}{app}; make it anew when the settings change"


def _program() -> str:
    """Where `cavalcade` is installed: beside the Python that runs this."""
    beside = Path(sys.executable).parent / "cavalcade"
    return str(beside) if beside.is_file() else shutil.which("cavalcade") or str(beside)


def _print(files: list[File]) -> None:
    """One file as it is; several each under its name."""
    for file in files:
        if len(files) > 1:
            click.echo(f"# ==> {file.name} <==")
        click.echo(file.text, nl=False)
        if file is not files[-1]:
            click.echo()


def _write(files: list[File], folder: Path, force: bool) -> list[Path]:
    """All of the files or none. Raises `UsageError`."""
    paths = [folder / file.name for file in files]
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there and not force:
        raise UsageError(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already.", fix="Say --force to replace, or --output another"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, path in zip(files, paths, strict=True):
            path.write_text(file.text, "utf-8")
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}.", fix="Say --output with another directory"
        ) from error
    return paths
