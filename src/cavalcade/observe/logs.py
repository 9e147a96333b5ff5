"""The program's own log: the loggers `cavalcade` (to stderr) and `cavalcade.access` (to stdout), and nothing else.

The root logger and everybody else's loggers stay as the app wants them. With handlers of ours a line does not propagate, so it is
printed once whatever the app does with its root logger; with `--log-config` the file rules, and ours only serves a logger that
the file leaves without any handler.

Extras that every format understands: `trace`, a traceback as text, and `fix`, what to do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from typing import IO, Any, Literal, cast, get_args

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.msgspec import MsgspecFormatter

from cavalcade import limits
from cavalcade.config.options import LogLevel, Settings
from cavalcade.errors import ConfigError
from cavalcade.observe import log_config
from cavalcade.observe.lines import LineWriter

Format = Literal["text", "plain", "json"]

LOGGER = "cavalcade"
ACCESS_LOGGER = "cavalcade.access"

STDOUT, STDERR = 1, 2

_LEVEL_COLOURS = {logging.DEBUG: "2", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}

# What a terminal would obey. Line ends and tabs stay: tracebacks have them, and who logs a peer's bytes escapes those itself.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configure(settings: Settings, *, worker: int | None = None) -> None:
    """Set up our two loggers in this process; anything of ours from before is replaced. `worker` goes into every line.

    Raises `ConfigError` where `settings.log_config` cannot be used.
    """
    global _worker
    _worker = worker
    loggers = [logging.getLogger(ACCESS_LOGGER), logging.getLogger(LOGGER)]
    for logger in loggers:
        for handler in [handler for handler in logger.handlers if isinstance(handler, OwnHandler)]:
            logger.removeHandler(handler)
            handler.dispose()
            logger.propagate = True
    if settings.log_config:
        log_config.apply_once(settings.log_config)
    for logger, fd, stream in zip(loggers, (STDOUT, STDERR), (sys.__stdout__, sys.__stderr__), strict=True):
        logger.__class__ = _Undisabled
        if settings.log_config:
            log_config.borrow(logger)
        if logger.level == logging.NOTSET or not settings.log_config:
            logger.setLevel(settings.log_level.upper())
        path = settings.access_logfile if fd == STDOUT and settings.access_log else "-"
        if path != "-":
            logger.handlers[:] = [_file_handler(path, settings, worker)]  # said of the access lines alone, so it wins over log_config
        elif settings.log_config and logger.hasHandlers():
            continue
        else:
            # Without --log-config a handler that the app hung there itself stays beside ours and is the app's business.
            logger.addHandler(OwnHandler(fd if stream is not None else -1, chosen_format(settings, stream), worker))
        logger.propagate = False


def _file_handler(path: str, settings: Settings, worker: int | None) -> OwnHandler:
    """For the access lines of a file. Raises `ConfigError` where it cannot be opened."""
    try:
        fd = _open_file(path)
    except OSError as exc:
        raise ConfigError([f"access_logfile: {path} cannot be written: {exc.strerror or exc}"]) from exc
    return OwnHandler(fd, "json" if settings.log_format == "json" else "plain", worker, path=os.path.abspath(path))


def _open_file(path: str) -> int:
    """A file to add lines to. Each write goes to its end, whoever else has it open (O_APPEND)."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def chosen_format(settings: Settings, stream: IO[str] | None) -> Format:
    """What `--log-format auto` comes to on this stream.

    `NO_COLOR` and `FORCE_COLOR` (no-color.org, force-color.org) decide for auto; a format that was asked for by name is kept.
    """
    if settings.log_format != "auto":
        return settings.log_format
    if os.environ.get("NO_COLOR"):
        return "plain"
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return "text"
    try:
        terminal = stream is not None and stream.isatty()
    except ValueError:  # closed
        terminal = False
    return "text" if terminal and os.environ.get("TERM") != "dumb" else "plain"


_worker: int | None = None


def this_worker() -> int | None:
    """The worker that this process was configured as, or None."""
    return _worker


def level(name: str) -> LogLevel:
    """The level of this name. Raises `ValueError`."""
    for each in get_args(LogLevel):
        if name.strip().lower() == each:
            return cast(LogLevel, each)
    raise ValueError(f'There is no log level "{name}": {", ".join(get_args(LogLevel))}')


def set_level(wanted: LogLevel) -> None:
    """Log what is at least so important, in this process, from now on."""
    for name in (ACCESS_LOGGER, LOGGER):
        logging.getLogger(name).setLevel(wanted.upper())


def flush() -> None:
    """Give lines that are still held for a slow reader their last chance. For processes that end with `os._exit`."""
    for name in (ACCESS_LOGGER, LOGGER):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def reopen() -> None:
    """Open log files anew that have been moved away or removed, as logrotate does; those that are still there stay as they are.

    It means every `logging.FileHandler` of every logger, whoever has made it, and the file of `access_logfile`. One that cannot be opened
    goes on with the old file.
    """
    for handler in logging.getLogger(ACCESS_LOGGER).handlers:
        if isinstance(handler, OwnHandler):
            try:
                handler.reopen()
            except OSError as exc:
                logging.getLogger(LOGGER).warning("log file %s cannot be opened anew: %s", handler.path, exc.strerror or exc)
    loggers = [logging.getLogger(), *(each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    for handler in {handler for logger in loggers for handler in logger.handlers if isinstance(handler, logging.FileHandler)}:
        with handler.lock or contextlib.nullcontext():
            stream = handler.stream
            if stream is None or _is_still(handler.baseFilename, _fileno(stream)):
                continue
            try:
                handler.stream = handler._open()
            except OSError as exc:
                logging.getLogger(LOGGER).warning("log file %s cannot be opened anew: %s", handler.baseFilename, exc.strerror or exc)
                continue
            stream.close()


def _is_still(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _fileno(stream: IO[str]) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler` of a loop of ours: what nobody waits for, such as a lost task's exception, becomes a line of ours.

    asyncio itself logs to the logger `asyncio`. Where the app has given that a handler, even by way of the root, it stays so.
    """
    if logging.getLogger("asyncio").hasHandlers():
        loop.default_exception_handler(context)
        return
    details = [f"{key}: {value!r}" for key, value in context.items() if key not in ("message", "exception", "source_traceback")]
    text = "; ".join([context.get("message") or "unhandled exception in the event loop", *details])
    exc = context.get("exception")
    logging.getLogger(LOGGER).error("%s", text, exc_info=(type(exc), exc, exc.__traceback__) if exc is not None else None)


class _Undisabled(logging.Logger):
    """Our loggers. `dictConfig`, as most apps call it, disables every logger that exists by then and that it does not name. It means
    libraries that talk too much, not the server that reports the app's own errors."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


class OwnHandler(logging.Handler):
    """Our handler: whole lines, never waiting long, never failing."""

    def __init__(self, fd: int, shape: Format, worker: int | None, *, path: str = "") -> None:
        """With a `path` the descriptor is ours to close, and is opened anew by that name."""
        super().__init__()
        self.shape: Format = shape
        self.worker = worker
        self.path = path
        self.place = path or ("stderr" if fd == STDERR else "stdout")
        self._fd = fd
        # Access lines come by the thousand and never wait; one of our own may wait a moment for a slow terminal.
        self.writer = LineWriter(fd, patience_s=limits.LOG_PATIENCE_S if fd == STDERR else 0.0)
        self.setFormatter(JsonLines(worker) if shape == "json" else TextLines(worker, colour=shape == "text"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as exc:  # noqa: BLE001  a bad log call must not take down who made it
            line = self.format(_unformattable(record, exc))
        self.writer.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        self.writer.flush()

    def dispose(self) -> None:
        """Close for good. Not `close()`: `dictConfig`, when an app calls it, closes every handler there is, and ours must outlive it."""
        self.writer.close()
        if self.path and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def reopen(self) -> None:
        """Open the file of this path anew, if it is another than the one that is open. Raises `OSError`; then nothing has changed."""
        if not self.path or _is_still(self.path, self._fd):
            return
        fd = _open_file(self.path)
        before, self._fd = self._fd, fd
        writer = LineWriter(fd)
        writer.dropped = self.writer.dropped
        self.writer.close()
        self.writer = writer
        os.close(before)


class TextLines(logging.Formatter):
    """`2026-11-22 18:36:01.123 +0100 [4121] warning  message`, and under it the fix and the traceback, if any."""

    def __init__(self, worker: int | None, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        message = record.getMessage()
        if self._colour:
            level = f"\x1b[{_LEVEL_COLOURS.get(record.levelno, '0')}m{level:8}\x1b[0m"
            head = f"\x1b[2m{stamp(record.created)} [{record.process}]\x1b[0m {level}"
        else:
            head = f"{stamp(record.created)} [{record.process}] {level:8}"
        lines = [f"{head} {message}"]
        if fix := getattr(record, "fix", ""):
            lines.append(f"  -> {fix}".replace("\n", "\n     "))
        if trace := _trace(record, self):
            lines.append(trace)
        if not self._colour:
            return _CONTROLS.sub(_escape, "\n".join(lines))
        lines[0] = head + " " + _CONTROLS.sub(_escape, message)
        return "\n".join([lines[0], *(_CONTROLS.sub(_escape, line) for line in lines[1:])])


class JsonLines(MsgspecFormatter):
    """One JSON object a line: time, level, logger, message, pid, worker, every extra, and `traceback` where there is one."""

    def __init__(self, worker: int | None) -> None:
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "trace", "taskName"])
        self._worker = worker

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        trace = message_dict.pop("exc_info", "") or getattr(record, "trace", "")
        log_data["time"] = stamp(record.created, "T")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = ""  # here only for its place in the line
        log_data["pid"] = record.process
        if self._worker is not None:
            log_data["worker"] = self._worker
        super().add_fields(log_data, record, message_dict)
        log_data["message"] = record.message.encode("utf-8", "backslashreplace").decode()
        if trace:
            log_data["traceback"] = trace.encode("utf-8", "backslashreplace").decode()


# The last second that was formatted: the busiest caller asks thousands of times within one. (separator, second, text before the
# milliseconds, text after them)
_last: tuple[str, int, str, str] = ("", 0, "", "")


def stamp(moment: float, separator: str = " ") -> str:
    """Local time with milliseconds and offset: `2026-11-22 18:36:01.123 +0100`, with "T" as RFC 3339 has it."""
    global _last
    second = int(moment)
    kind, known, before, after = _last
    if second != known or kind != separator:
        local = time.localtime(second)
        before = time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", local)
        offset = time.strftime("%z", local)
        after = f"{offset[:3]}:{offset[3:5]}" if separator == "T" else f" {offset[:5]}"
        _last = (separator, second, before, after)
    return f"{before}.{int((moment - second) * 1000):03}{after}"


def _trace(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    text = getattr(record, "trace", "")
    if record.exc_info and record.exc_info[0] is not None:
        text = formatter.formatException(record.exc_info)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return str(text).rstrip("\n")


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _unformattable(record: logging.LogRecord, exc: Exception) -> logging.LogRecord:
    text = f"a log call could not be formatted ({type(exc).__name__}: {exc}): {record.msg!r:.200}"
    return logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, text, None, None)
