"""`--log-config`: a file for `logging.config`, as it is or as it was written for uvicorn or gunicorn.

Such a file hangs its handlers on the loggers of those servers: `uvicorn`, `uvicorn.error`, `uvicorn.access`, `gunicorn.error`,
`gunicorn.access`. Where it does not name ours, ours take over what it says of theirs, so that a copied file keeps working. uvicorn's own
formatters, which such files often name, are there even where uvicorn is not installed (uvicorn_lines.py).
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import logging
import logging.config
import os
import tomllib
from pathlib import Path
from typing import Any

from cavalcade.errors import ConfigError

# Whose place each of our loggers takes, the most likely first.
_LENDERS = {
    "cavalcade.access": ("uvicorn.access", "gunicorn.access"),
    "cavalcade": ("uvicorn.error", "uvicorn", "gunicorn.error"),
}
_FORMATTERS = {
    "uvicorn.logging.DefaultFormatter": "cavalcade.observe.uvicorn_lines.DefaultFormatter",
    "uvicorn.logging.ColourizedFormatter": "cavalcade.observe.uvicorn_lines.DefaultFormatter",
    "uvicorn.logging.AccessFormatter": "cavalcade.observe.uvicorn_lines.AccessFormatter",
}

_applied_in: tuple[int, str] | None = None
_named: frozenset[str] = frozenset()  # the loggers that the file names


def apply_once(name: str) -> None:
    """Apply the file unless this very process has; a forked worker does it anew, because handlers may have files and threads.

    Raises `ConfigError` where it cannot be used."""
    global _applied_in
    if _applied_in != (os.getpid(), name):
        _apply(Path(name))
        _applied_in = (os.getpid(), name)


def borrow(logger: logging.Logger) -> None:
    """Let one of our loggers take over what the file says of another server's, if it does not name ours."""
    if logger.name in _named:
        return
    for name in _LENDERS[logger.name]:
        if name not in _named:
            continue
        lender = logging.getLogger(name)
        if lender.level != logging.NOTSET:
            logger.setLevel(lender.level)
        holder: logging.Logger | None = lender
        while holder is not None and holder.name != "root" and not holder.handlers and holder.propagate:
            holder = holder.parent  # `uvicorn.error` has its handlers from `uvicorn`
        if holder is not None and holder.name != "root":
            logger.handlers[:] = holder.handlers
            logger.propagate = holder.propagate
        return


def _apply(path: Path) -> None:
    global _named
    try:
        if path.suffix in (".ini", ".conf", ".cfg"):
            parser = configparser.RawConfigParser()
            parser.read_string(path.read_text("utf-8"), str(path))
            loggers = [section for section in parser.sections() if section.startswith("logger_")]
            _named = frozenset(parser.get(section, "qualname", fallback="") for section in loggers)
            for section in parser.sections():
                if section.startswith("formatter_") and parser.has_option(section, "class"):
                    parser.set(section, "class", _formatter(parser.get(section, "class")))
            # By default fileConfig silences every logger that the file does not name, ours and the app's.
            logging.config.fileConfig(parser, disable_existing_loggers=False)
        else:
            config = _read(path)
            _named = frozenset(config.get("loggers", {}))
            logging.config.dictConfig(config)
    except OSError as exc:
        raise ConfigError([f"log_config: {path} cannot be read: {exc.strerror or exc}"]) from exc
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, configparser.Error, RuntimeError) as exc:
        # What logging.config raises wraps the real reason, often twice.
        reason: BaseException = exc
        while reason.__cause__ is not None:
            reason = reason.__cause__
        also = f" ({reason})" if reason is not exc else ""
        raise ConfigError([f"log_config: {path}: {exc}{also}"]) from exc


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    if path.suffix == ".toml":
        config = tomllib.loads(text)
    elif path.suffix == ".json":
        config = json.loads(text)
    else:
        raise ValueError(f"a file ending in {path.suffix or 'nothing'} is not known here; use .json, .toml or .ini")
    if not isinstance(config, dict):
        raise TypeError("it must hold one object, as logging.config.dictConfig takes it")
    for formatter in config.get("formatters", {}).values():
        for key in ("()", "class"):
            if isinstance(formatter, dict) and isinstance(formatter.get(key), str):
                formatter[key] = _formatter(formatter[key])
    # What a file leaves out gets the value that surprises nobody; dictConfig's own is to silence loggers that exist.
    return {"version": 1, "disable_existing_loggers": False} | config


def _formatter(name: str) -> str:
    """The formatter that is meant by a name, ours in place of uvicorn's where that is not installed."""
    return name if name not in _FORMATTERS or importlib.util.find_spec("uvicorn") is not None else _FORMATTERS[name]
