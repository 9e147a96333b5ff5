"""The settings a command works with: every source, and the app, guessed where nobody named it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from cavalcade.apps import discovery
from cavalcade.config.sources import Resolved, flag_of, resolve
from cavalcade.errors import UsageError


def settle(
    arguments: Mapping[str, object],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    origin_of: Callable[[str], str] = flag_of,
    need_app: bool = True,
) -> Resolved:
    """Read every source, then turn the app into `module:attribute`: from a file's name, or by looking through the project.

    Raises `ConfigError`, and `UsageError` where no app was named and none is found; without `need_app` that is a note.
    """
    resolved = resolve(arguments, cwd=cwd, environ=environ, origin_of=origin_of)
    settings = resolved.settings
    if settings.apps:
        return resolved
    directory = (cwd / settings.app_dir).resolve()
    named = bool(settings.app)
    try:
        guess = discovery.from_path(settings.app, directory) if named else discovery.discover(directory, environ)
    except UsageError as error:
        if need_app:
            raise
        return dataclasses.replace(resolved, notes=[*resolved.notes, error.cause])
    if guess is None:
        return resolved
    app_dir = settings.app_dir if guess.directory == directory else _shown(guess.directory, cwd)
    origins = dict(resolved.origins)
    notes = list(resolved.notes)
    if not named:
        origins["app"] = f"found: {guess.how}"
        pin = f"cavalcade {guess.app}" + (f" --app-dir {app_dir}" if app_dir != settings.app_dir else "")
        keys = f'app = "{guess.app}"' + (f', app_dir = "{app_dir}"' if app_dir != settings.app_dir else "")
        notes.insert(0, f"Serving {guess.app}, found as {guess.how}. Pin it: {pin}, or {keys} under [tool.cavalcade] in pyproject.toml")
    if app_dir != settings.app_dir:
        origins["app_dir"] = origins["app"]
    return Resolved(dataclasses.replace(settings, app=guess.app, app_dir=app_dir), origins, notes)


def _shown(directory: Path, cwd: Path) -> str:
    here = cwd.resolve()
    return str(directory.relative_to(here)) if directory.is_relative_to(here) else str(directory)
