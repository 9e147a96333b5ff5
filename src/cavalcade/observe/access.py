"""One line for each request, written in batches.

How it works. A usual line is seven pieces of text, and none of them is made for it: clients, methods and targets were made safe when they
were first seen, numbers are in tables. The request path looks the pieces up and appends them to a list. Once per tick of the loop they are
joined and go out in one write.

For all other lines a request leaves a tuple, and its line is made in the same tick: a JSON object, a line of the user's format, one in
colours. Where the user's `--log-config` hangs handlers of its own on `cavalcade.access`, they get real log records instead, with the same
facts as extras: client, method, target, http_version, status, bytes, duration_s, worker.

What costs more is a class of its own, chosen at start: with a format of the user's, JSON, a log config or a sample, connections are watched
(net/observed.py), and `DetailedAccessLog` knows of each request what they have seen.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import msgspec

from cavalcade.config.options import Settings
from cavalcade.observe import access_fields
from cavalcade.observe.escape import quoted, shown
from cavalcade.observe.logs import ACCESS_LOGGER, LOGGER, Format, OwnHandler, stamp, this_worker
from cavalcade.observe.requests import Seen, trace_id

# client, method, target, version, status, bytes, seconds; the request's id, where requests have one; and what else was seen of it
Entry = tuple[Any, ...]

_STATUS_COLOURS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}

_DROPPED_EVERY_S = 60.0
# Small numbers are looked up: to write a float, and even an int, costs more than the rest of the line.
_SMALL = 2048
_SIZES = [f"{number}B " for number in range(_SMALL)]
_TIMES = [f"{number // 10}.{number % 10}ms\n" for number in range(_SMALL)]
_MILLISECONDS = [f"{number:03}" for number in range(1000)]
_KNOWN, _KNOWN_CHARS = 2048, 200  # texts that are remembered as safe or made so, and the longest of them
_PIECES = 7  # of a usual line; the first is the head, which is the same for a whole batch


class AccessLog:
    """The access log of one worker. `pending` tells whether a flush is due."""

    __slots__ = (
        "_after",
        "_answers",
        "_before",
        "_clients",
        "_encoder",
        "_handler",
        "_line",
        "_log",
        "_logger",
        "_methods",
        "_pid",
        "_said_dropped",
        "_say_dropped_at",
        "_second",
        "_targets",
        "_usual",
        "_worker",
        "pending",
    )

    def __init__(self, settings: Settings) -> None:
        """`cavalcade.observe.logs.configure` comes first, in the same process."""
        self.pending: list[Any] = []  # pieces where `_usual`, else entries
        self._usual = False
        self._handler: OwnHandler | None = None
        self._line = access_fields.compile_format(settings.access_log_format) if settings.access_log_format else None
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._log = logging.getLogger(LOGGER)
        self._encoder = msgspec.json.Encoder()
        self._pid = os.getpid()
        self._worker = this_worker()
        self._clients: dict[str, str] = {}
        self._methods: dict[str, str] = {}
        self._targets: dict[bytes, str] = {}
        self._answers: dict[str, list[str]] = {}  # by version and status
        self._second = -1
        self._before = self._after = ""  # the time in the head of a usual line, without its milliseconds
        self._say_dropped_at = 0.0
        self._said_dropped = 0

    def add(self, client: str, method: str, target: bytes, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Remember one finished request. `target` is as it came, with its query; `version` is "1.1"; `seconds` from head to end."""
        if not self.pending:
            self.begin()
        if self._usual:
            self.add_usual(client, method, target, version, status, sent_bytes, seconds)
        else:
            self.pending.append((client, method, _text(target), version, status, sent_bytes, seconds))

    def begin(self) -> None:
        """The first of a batch comes: who gets the lines?"""
        self._handler = handler = self._own_handler()
        self._usual = handler is not None and handler.shape == "plain" and self._line is None

    def add_usual(self, client: str, method: str, target: bytes, version: str, status: int, size: int, seconds: float) -> None:
        answers = self._answers.get(version)
        if answers is None:
            self._answers[version] = answers = [f' HTTP/{version}" {number} ' for number in range(1000)]
        answer = answers[status]
        pieces = self.pending
        pieces.append("")
        pieces.append(self._clients.get(client) or _learn(self._clients, client, quoted(client) + ' "'))
        pieces.append(self._methods.get(method) or _learn(self._methods, method, quoted(method) + " "))
        pieces.append(self._targets.get(target) or _learn(self._targets, target, quoted(_text(target))))
        pieces.append(answer)
        pieces.append(_SIZES[size] if size < _SMALL else f"{size}B ")
        tenths = int(seconds * 10000 + 0.5)
        pieces.append(_TIMES[tenths] if tenths < _SMALL else f"{tenths // 10}.{tenths % 10}ms\n")

    def flush(self) -> None:
        """Write what is pending; its time is now, so call this in the tick in which the requests ended."""
        if not self.pending:
            handler = self._own_handler()
            if handler is not None:
                handler.writer.flush()
            return
        batch = self.pending
        self.pending = []
        logger = self._logger
        if (logger.level or logger.getEffectiveLevel()) > logging.INFO or logger.manager.disable >= logging.INFO:
            return
        handler = self._handler
        if handler is None:
            for entry in batch:
                self._emit(entry)
            return
        now = time.time()
        writer = handler.writer
        writer.write(self._usual_lines(batch, now) if self._usual else self._lines(handler.shape, batch, now))
        if writer.dropped != self._said_dropped:
            self._say_dropped(handler)

    def finish(self) -> None:
        """Write what is pending, and say what was dropped and not told of yet: nothing comes after this."""
        self.flush()
        handler = self._own_handler()
        if handler is not None and handler.writer.dropped != self._said_dropped:
            self._say_dropped_at = 0.0
            self._say_dropped(handler)

    def _own_handler(self) -> OwnHandler | None:
        """Our handler where it is the only one, so that nobody else waits for records."""
        handlers = self._logger.handlers
        if len(handlers) == 1 and not self._logger.propagate and not self._logger.filters:
            handler = handlers[0]
            if type(handler) is OwnHandler and not handler.filters:
                return handler
        return None

    def _usual_lines(self, pieces: list[str], now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second = second
            before, _, after = stamp(second).partition(".000")
            self._before = before + "."
            self._after = f"{after} [{self._pid}] "
        head = self._before + _MILLISECONDS[int((now - second) * 1000)] + self._after
        pieces[::_PIECES] = [head] * (len(pieces) // _PIECES)
        return "".join(pieces).encode("ascii")

    def _lines(self, shape: Format, batch: list[Entry], now: float) -> bytes:
        """Those of entries."""
        return self._json_lines(batch, now) if shape == "json" else self._coloured_lines(batch, now)

    def _coloured_lines(self, batch: list[Entry], now: float) -> bytes:
        head = f"\x1b[2m{stamp(now)} [{self._pid}]\x1b[0m"
        return "".join(
            [
                f'{head} {quoted(client)} "\x1b[1m{quoted(method)} {quoted(target)}\x1b[0m HTTP/{version}" '
                f"\x1b[{_STATUS_COLOURS.get(status // 100, '0')}m{status}\x1b[0m {size}B {seconds * 1000:.1f}ms\n"
                for client, method, target, version, status, size, seconds in batch
            ]
        ).encode("ascii")

    def _json_lines(self, batch: list[Entry], now: float) -> bytes:
        common: dict[str, object] = {"time": stamp(now, "T"), "level": "info", "logger": ACCESS_LOGGER}
        who: dict[str, object] = {"pid": self._pid} if self._worker is None else {"pid": self._pid, "worker": self._worker}
        return self._encoder.encode_lines([{**common, "message": self._message(entry, now), **who, **facts(entry)} for entry in batch])

    def _message(self, entry: Entry, now: float) -> str:
        """What stands for the whole of a line of JSON."""
        return f"{quoted(entry[1])} {quoted(entry[2])} {entry[4]}"

    def _emit(self, entry: Entry) -> None:
        message, arguments = self._record_text(entry)
        extra = {**facts(entry), "worker": self._worker}
        record = self._logger.makeRecord(ACCESS_LOGGER, logging.INFO, __file__, 0, message, arguments, None, extra=extra)
        try:
            self._logger.handle(record)
        except Exception:  # noqa: BLE001  logged, and the requests themselves were answered
            # A user's handler or filter that fails does so for every request.
            self._log.exception("a handler of %s failed", ACCESS_LOGGER)

    def _record_text(self, entry: Entry) -> tuple[str, tuple[Any, ...]]:
        """The message of a log record, and what is filled into it."""
        client, method, target, version, status, size, seconds = entry[:7]
        # The five arguments in this order are what uvicorn's AccessFormatter takes apart; logging set-ups that use it keep working.
        arguments = (quoted(client), quoted(method), quoted(target), version, status)
        return f'%s - "%s %s HTTP/%s" %d {size}B {seconds * 1000:.1f}ms', arguments

    def _say_dropped(self, handler: OwnHandler) -> None:
        now = time.monotonic()
        if now < self._say_dropped_at:
            return
        self._say_dropped_at = now + _DROPPED_EVERY_S
        lost = handler.writer.dropped - self._said_dropped
        self._said_dropped = handler.writer.dropped
        self._log.warning("access log: %d lines dropped, %s: %s", lost, handler.place, handler.writer.trouble or "working again")


class NamedAccessLog(AccessLog):
    """With the id of each request: `request_id` is that of the one which is added next."""

    __slots__ = ("request_id",)

    def __init__(self, settings: Settings) -> None:
        AccessLog.__init__(self, settings)
        self.request_id = ""

    def add(self, client: str, method: str, target: bytes, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        if not self.pending:
            self.begin()
        if self._usual:
            self.add_usual(client, method, target, version, status, sent_bytes, seconds)
            self.pending[-1] = f"{self.pending[-1][:-1]} [{self.request_id}]\n"
        else:
            self.pending.append((client, method, _text(target), version, status, sent_bytes, seconds, self.request_id))

    def _coloured_lines(self, batch: list[Entry], now: float) -> bytes:
        lines = AccessLog._coloured_lines(self, [entry[:7] for entry in batch], now).split(b"\n")
        return b"".join([b"%b [%b]\n" % (line, entry[7].encode("ascii")) for line, entry in zip(lines, batch, strict=False)])


class DetailedAccessLog(NamedAccessLog):
    """With all that connections which are watched have `seen` of the request that is added next."""

    __slots__ = ("_every", "_named", "_skipped", "seen")

    def __init__(self, settings: Settings) -> None:
        NamedAccessLog.__init__(self, settings)
        self.seen = Seen([])
        self._named = settings.request_id != "off"
        self._every = settings.access_log_sample
        self._skipped = self._every - 1  # the first is logged

    def add(self, client: str, method: str, target: bytes, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        seen = self.seen
        if self._every > 1 and status < 400 and not seen.left:
            self._skipped += 1
            if self._skipped < self._every:
                return
            self._skipped = 0
        if not self.pending:
            self.begin()
        if self._usual:
            usual = NamedAccessLog if self._named else AccessLog
            usual.add(self, client, method, target, version, status, sent_bytes, seconds)
        else:
            seen.request_id = self.request_id
            self.pending.append((client, method, _text(target), version, status, sent_bytes, seconds, self.request_id, seen))

    def _lines(self, shape: Format, batch: list[Entry], now: float) -> bytes:
        line = self._line
        if shape == "json":
            return self._json_lines(batch, now)
        if line is not None:
            return "".join([f"{line(_request(entry, now))}\n" for entry in batch]).encode("utf-8", "backslashreplace")
        if self._named:
            return NamedAccessLog._coloured_lines(self, batch, now)
        return AccessLog._coloured_lines(self, [entry[:7] for entry in batch], now)

    def _message(self, entry: Entry, now: float) -> str:
        return AccessLog._message(self, entry, now) if self._line is None else self._line(_request(entry, now))

    def _record_text(self, entry: Entry) -> tuple[str, tuple[Any, ...]]:
        if self._line is None:
            return AccessLog._record_text(self, entry)
        return self._line(_request(entry, time.time())), ()


def _text(target: bytes) -> str:
    return target.decode("ascii", "backslashreplace")


def _learn(known: dict[Any, str], text: str | bytes, safe: str) -> str:
    """Remember what `text` looks like in a line: the same clients, methods and targets come again and again. Returns that."""
    if len(text) <= _KNOWN_CHARS:
        if len(known) >= _KNOWN:
            known.clear()
        known[text] = safe
    return safe


def _request(entry: Entry, now: float) -> access_fields.Entry:
    facts = (*entry[:7], entry[8], now)
    return access_fields.Entry(*facts)


def new_access_log(settings: Settings) -> AccessLog:
    """The one that these settings need."""
    if is_detailed(settings):
        return DetailedAccessLog(settings)
    return (AccessLog if settings.request_id == "off" else NamedAccessLog)(settings)


def is_detailed(settings: Settings) -> bool:
    """Whether more is wanted of a request than its usual line has; then its connection is watched."""
    wants = settings.access_log_format or settings.access_log_sample > 1 or settings.log_format == "json" or settings.log_config
    return settings.access_log and bool(wants)


def facts(entry: Entry) -> dict[str, object]:
    """The fields of an access line, by the names that JSON and log records give them."""
    client, method, target, version, status, sent_bytes, seconds = entry[:7]
    known = {
        "client": client,
        "method": method,
        "target": shown(target),
        "http_version": version,
        "status": status,
        "bytes": sent_bytes,
        "duration_s": round(seconds, 6),
    }
    if len(entry) > 7 and entry[7]:
        known["request_id"] = entry[7]
    if len(entry) > 8:
        known |= _more_facts(entry[8])
    return known


def _more_facts(seen: Seen) -> dict[str, object]:
    """Those of a request that was watched; what there is nothing to say of is left out."""
    more: dict[str, object] = {"ttfb_s": round(seen.ttfb_s, 6), "received_bytes": seen.received}
    if seen.queue_s >= 0:
        more["queue_s"] = round(seen.queue_s, 6)
    if seen.route:
        more["route"] = shown(seen.route)
    if name := trace_id(seen.request_headers):
        more["trace_id"] = name
    if seen.left:
        more["client_left"] = True
    return more
