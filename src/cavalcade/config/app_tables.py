"""`[[app]]` tables: several apps in one server, each for hosts, for a path prefix, or for both.

Problems are returned, all of them, with the table and key they are in; tables are counted from 1."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from cavalcade.config.options import AppTable, Settings
from cavalcade.config.values import OPTIONS, quote, read

KEYS = ("app", "host", "path", "app_dir", "factory", "interface", "lifespan", "threads")

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PATH = re.compile(r"(?:/[^/%?#\\\x00-\x20\x7f]+)*/?")


def read_tables(tables: list[Any], origin_of: Callable[[int], str]) -> tuple[tuple[AppTable, ...], list[str]]:
    """The tables, and the problems of those that are none. `origin_of` is where the table of this number stands."""
    found: list[AppTable] = []
    problems: list[str] = []
    taken: dict[tuple[str, str], int] = {}
    for number, raw in enumerate(tables, start=1):
        place = f"{origin_of(number)}: app[{number}]"
        if not isinstance(raw, dict):
            problems.append(f"{place} must be a table, not {quote(raw)}")
            continue
        values: dict[str, Any] = {}
        for key, value in raw.items():
            try:
                values[key] = _read(key, value)
            except ValueError as problem:
                problems.append(f"{place}.{key} {problem}")
        if not values.get("app") and (raw.get("app", "") == ""):
            problems.append(f'{place}.app is missing: app = "module:attribute"')
        table = AppTable(**{"app": "", **values})
        found.append(table)
        if values.keys() & {"host", "path"} != raw.keys() & {"host", "path"}:
            continue  # where it was meant to be is not known
        for host in table.host or ("",):
            other = taken.setdefault((host, table.path), number)
            if other != number:
                problems.append(f"{place} is for {host or 'every host'} at {table.path or '/'}, and so is app[{other}]: keep one of them")
    return tuple(found), problems


def alone(settings: Settings, table: AppTable) -> Settings:
    """The settings of one of several apps, as if it were the only one; where it is mounted is not in them."""
    own = {key: getattr(table, key) for key in KEYS if key not in ("app", "host", "path")}
    given = {key: value for key, value in own.items() if value is not None}
    return dataclasses.replace(settings, app=table.app, apps=(), **given)


def _read(key: str, value: Any) -> Any:
    """The value of one key. Raises `ValueError` with what is wrong."""
    if key not in KEYS:
        near = difflib.get_close_matches(key.lower().replace("-", "_"), KEYS, n=1)
        raise ValueError(f"is unknown; did you mean {near[0]}?" if near else f"is unknown: a table has {', '.join(KEYS)}")
    if key == "host":
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            raise ValueError(f"must be a host name or a list of them, not {quote(value)}")
        return tuple(dict.fromkeys(_host(item) for item in items))
    if key == "path":
        return _path(value)
    return read(OPTIONS[key], value, typed=True)


def _host(text: str) -> str:
    """A host as `host_of` has those of requests."""
    plain = text.strip().lower().rstrip(".")
    if plain == "*":
        raise ValueError('"*" is every host: leave host out')
    if ":" in plain:
        try:
            return str(ipaddress.IPv6Address(plain.strip("[]")))
        except ValueError:
            pass
        raise ValueError(f'"{text}" must be a host without a port and a scheme; the ports are those of bind')
    if not plain.isascii():
        raise ValueError(f'"{text}" must be written as clients send it, in ASCII: xn--...')
    if not _HOST.fullmatch(plain):
        raise ValueError(f'"{text}" is not a host name such as example.org or *.example.org')
    return plain


def _path(value: Any) -> str:
    """A path prefix without a slash at its end; "" for the root."""
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {quote(value)}")
    if value and not value.startswith("/"):
        raise ValueError(f'"{value}" must start with "/": write "/{value}"')
    segments = value.split("/")
    if not _PATH.fullmatch(value) or "." in segments or ".." in segments:
        raise ValueError(f'"{value}" is no path prefix: segments between single slashes, without ., .. and percent-encoding')
    return value.rstrip("/")
