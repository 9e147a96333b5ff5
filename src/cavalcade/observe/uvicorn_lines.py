"""What a logging configuration written for uvicorn names as its formatters, for machines where uvicorn is not installed: the same
arguments, the same fields in the format (`levelprefix`; `client_addr`, `request_line`, `status_code` and others).
"""

from __future__ import annotations

import copy
import http
import logging
import sys
from typing import Literal

_COLOURS = {logging.DEBUG: "36", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "91"}


class DefaultFormatter(logging.Formatter):
    """Knows `%(levelprefix)s`: "INFO:     "."""

    def __init__(
        self, fmt: str | None = None, datefmt: str | None = None, style: Literal["%", "{", "$"] = "%", use_colors: bool | None = None
    ) -> None:
        super().__init__(fmt, datefmt, style)
        self._colours = sys.stderr.isatty() if use_colors is None else use_colors

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        level = record.levelname
        padding = " " * (8 - len(level))
        colour = _COLOURS.get(record.levelno, "") if self._colours else ""
        record.levelprefix = f"\x1b[{colour}m{level}\x1b[0m:{padding}" if colour else f"{level}:{padding}"
        return super().formatMessage(record)


class AccessFormatter(DefaultFormatter):
    """Takes the arguments of an access record apart."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 5:
            record = copy.copy(record)
            client, method, target, version, status = arguments
            try:
                phrase = http.HTTPStatus(int(str(status))).phrase
            except ValueError:
                phrase = ""
            record.client_addr, record.method, record.full_path, record.http_version = client, method, target, version
            record.request_line = f"{method} {target} HTTP/{version}"
            record.status_code = f"{status} {phrase}".rstrip()
        return super().formatMessage(record)
