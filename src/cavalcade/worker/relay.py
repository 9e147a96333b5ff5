"""A copy of the worker's log for the supervisor, which keeps the last lines of everybody: `cavalcade logs`, the dashboard.

It never waits. What the supervisor cannot take at once, or comes faster than anybody reads, is left out of the copy and counted; the
log itself has it all.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from cavalcade import limits
from cavalcade.observe import logs
from cavalcade.worker import channel

_formatter = logging.Formatter()


class Relay(logging.Handler):
    """`offer` sends a line, or returns False; it is called in the loop's thread only. Made in that thread."""

    def __init__(self, offer: Callable[[channel.Logged], bool], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._offer = offer
        self._loop = loop
        self._thread = threading.get_ident()
        self._budget = float(limits.RELAY_BURST)
        self._filled_at = time.monotonic()
        self._left_out = 0

    def start(self) -> None:
        """From now on, as long as the process lives."""
        logging.getLogger(logs.LOGGER).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self._thread:
            self._relay(describe(record))
            return
        try:
            self._loop.call_soon_threadsafe(self._relay, describe(record))
        except RuntimeError:  # the loop is closed: the process ends
            pass

    def _relay(self, line: channel.Logged) -> None:
        now = time.monotonic()
        self._budget = min(limits.RELAY_BURST, self._budget + (now - self._filled_at) * limits.RELAY_PER_S)
        self._filled_at = now
        if self._left_out and self._budget >= 2:
            left_out, self._left_out = self._left_out, 0
            self._send(channel.Logged(line.time, "warning", f"{left_out} lines of this worker's log are left out here; its log has them"))
        if self._budget < 1 or not self._send(line):
            self._left_out += 1

    def _send(self, line: channel.Logged) -> bool:
        self._budget -= 1
        return self._offer(line)


def describe(record: logging.LogRecord) -> channel.Logged:
    """A log record as one line of the channel, cut to a length that can be kept by the thousand."""
    trace = getattr(record, "trace", "")
    if record.exc_info and record.exc_info[0] is not None:
        trace = _formatter.formatException(record.exc_info)
    return channel.Logged(
        time=record.created,
        level=record.levelname.lower(),
        text=_cut(record.getMessage(), limits.JOURNAL_TEXT_CHARS),
        event=str(getattr(record, "event", "")),
        fix=_cut(str(getattr(record, "fix", "")), limits.JOURNAL_TEXT_CHARS),
        trace=_cut(str(trace), limits.JOURNAL_TRACE_CHARS),
    )


def _cut(text: str, chars: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= chars else f"{text[:chars]} [...]"
