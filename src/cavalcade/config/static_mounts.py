"""The values of `static`: `/prefix=directory`, files that are served without the app."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cavalcade.config.options import Settings

_PREFIX = re.compile(r"(?:/[^/%?#=\\\x00-\x20\x7f]+)*/?")


def parse(text: str) -> tuple[str, str]:
    """(prefix without a slash at its end, directory). Raises `ValueError` with what to write instead."""
    prefix, equals, folder = text.partition("=")
    if not equals or not folder:
        raise ValueError(f'"{text}" is not /prefix=directory, such as /static=./public')
    if not prefix.startswith("/"):
        raise ValueError(f'"{text}" must start with "/": write "/{prefix}={folder}"')
    segments = prefix.split("/")
    if not _PREFIX.fullmatch(prefix) or "." in segments or ".." in segments:
        raise ValueError(f'"{prefix}" is no path prefix: segments between single slashes, without ., .. and percent-encoding')
    return prefix.rstrip("/"), folder


def canonical(text: str) -> str:
    """One value as it is shown. Raises `ValueError`."""
    prefix, folder = parse(text)
    return f"{prefix or '/'}={folder}"


def placed(text: str, cwd: Path) -> str:
    """A value that was read before, with an absolute directory: the app may change the current one."""
    prefix, folder = parse(text)
    return f"{prefix or '/'}={cwd / folder}"


def check(settings: Settings, complain: Callable[[str, str], None]) -> None:
    """What one value alone does not tell. Their directories are absolute by now."""
    prefixes: list[str] = []
    for text in settings.static:
        prefix, folder = parse(text)
        if not Path(folder).is_dir():
            complain("static", f'"{folder}" is not a directory')
        if prefix in prefixes:
            complain("static", f"{prefix or '/'} is given twice")
        prefixes.append(prefix)
