"""One line for each request, written in batches.

The request path only appends a tuple. Once per tick of the loop the batch is formatted and goes out in one write. Where the
user's `--log-config` hangs handlers of its own on `cavalcade.access`, they get real log records instead, with the same facts as
extras: client, method, target, http_version, status, bytes, duration_s, worker.

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
from cavalcade.observe.logs import ACCESS_LOGGER, LOGGER, OwnHandler, stamp, this_worker
from cavalcade.observe.requests import Seen, trace_id

# client, method, target, version, status, bytes, seconds; the request's id, where requests have one; and what else was seen of it
Entry = tuple[Any, ...]

_STATUS_COLOURS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}

_DROPPED_EVERY_S = 60.0
_SMALL = 2048
_NUMBERS = [str(number) for number in range(_SMALL)]
_TENTHS = [f"{number // 10}.{number % 10}" for number in range(_SMALL)]
_KNOWN, _KNOWN_CHARS = 2048, 200  # texts that are remembered as safe or made so, and the longest of them


class AccessLog:
    """The access log of one worker. `pending` tells whether a flush is due."""

    __slots__ = ("_encoder", "_known", "_log", "_logger", "_pid", "_said_dropped", "_say_dropped_at", "_worker", "append", "pending")

    def __init__(self, settings: Settings) -> None:
        """`cavalcade.observe.logs.configure` comes first, in the same process."""
        self.pending: list[Entry] = []
        self.append = self.pending.append
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._log = logging.getLogger(LOGGER)
        self._encoder = msgspec.json.Encoder()
        self._pid = os.getpid()
        self._worker = this_worker()
        self._known: dict[str, str] = {}
        self._say_dropped_at = 0.0
        self._said_dropped = 0

    def add(self, client: str, method: str, target: str, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Remember one finished request. `target` is as it came, with its query; `version` is "1.1"; `seconds` from head to end."""
        self.append((client, method, target, version, status, sent_bytes, seconds))

    def flush(self) -> None:
        """Write what is pending; its time is now, so call this in the tick in which the requests ended."""
        handler = self._own_handler()
        if not self.pending:
            if handler is not None:
                handler.writer.flush()
            return
        batch = self.pending.copy()
        self.pending.clear()  # the list stays: others hold it
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if handler is None:
            for entry in batch:
                self._emit(entry)
            return
        now = time.time()
        if handler.shape == "json":
            lines = self._json_lines(batch, now)
        elif handler.shape == "text":
            lines = self._coloured_lines(batch, now)
        else:
            lines = self._plain_lines(batch, now)
        handler.writer.write(lines)
        if handler.writer.dropped != self._said_dropped:
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

    def _plain_lines(self, batch: list[Entry], now: float) -> bytes:
        head = f"{stamp(now)} [{self._pid}] "
        known, learn = self._known.get, self._learn
        lines = []
        for client, method, target, version, status, size, seconds in batch:
            client = known(client) or learn(client)
            method = known(method) or learn(method)
            target = known(target) or learn(target)
            # Small numbers are looked up: to write a float, and even an int, costs more than the rest of the line.
            tenths = int(seconds * 10000 + 0.5)
            took = _TENTHS[tenths] if tenths < _SMALL else f"{tenths / 10:.1f}"
            length = _NUMBERS[size] if size < _SMALL else str(size)
            lines.append(f'{client} "{method} {target} HTTP/{version}" {_NUMBERS[status]} {length}B {took}ms\n')
        return (head + head.join(lines)).encode("ascii")

    def _learn(self, text: str) -> str:
        """`text` as it may stand in a line. The same clients, methods and targets come again and again, and looking up is cheaper."""
        safe = quoted(text)
        if len(text) <= _KNOWN_CHARS:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[text] = safe
        return safe

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

    def add(self, client: str, method: str, target: str, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        self.append((client, method, target, version, status, sent_bytes, seconds, self.request_id))

    def _plain_lines(self, batch: list[Entry], now: float) -> bytes:
        return _named(AccessLog._plain_lines(self, [entry[:7] for entry in batch], now), batch)

    def _coloured_lines(self, batch: list[Entry], now: float) -> bytes:
        return _named(AccessLog._coloured_lines(self, [entry[:7] for entry in batch], now), batch)


def _named(lines: bytes, batch: list[Entry]) -> bytes:
    return b"".join([b"%b [%b]\n" % (line, entry[7].encode("ascii")) for line, entry in zip(lines.split(b"\n"), batch, strict=False)])


class DetailedAccessLog(NamedAccessLog):
    """With all that connections which are watched have `seen` of the request that is added next."""

    __slots__ = ("_every", "_line", "_named", "_skipped", "seen")

    def __init__(self, settings: Settings) -> None:
        NamedAccessLog.__init__(self, settings)
        self.seen = Seen([])
        self._line = access_fields.compile_format(settings.access_log_format) if settings.access_log_format else None
        self._named = settings.request_id != "off"
        self._every = settings.access_log_sample
        self._skipped = self._every - 1  # the first is logged

    def add(self, client: str, method: str, target: str, version: str, status: int, sent_bytes: int, seconds: float) -> None:
        seen = self.seen
        if self._every > 1 and status < 400 and not seen.left:
            self._skipped += 1
            if self._skipped < self._every:
                return
            self._skipped = 0
        seen.request_id = self.request_id
        self.append((client, method, target, version, status, sent_bytes, seconds, self.request_id, seen))

    def _plain_lines(self, batch: list[Entry], now: float) -> bytes:
        base = NamedAccessLog if self._named else AccessLog
        return self._own_lines(batch, now) or base._plain_lines(self, _cut(batch, self._named), now)

    def _coloured_lines(self, batch: list[Entry], now: float) -> bytes:
        base = NamedAccessLog if self._named else AccessLog
        return self._own_lines(batch, now) or base._coloured_lines(self, _cut(batch, self._named), now)

    def _own_lines(self, batch: list[Entry], now: float) -> bytes:
        """Those of the user's format, if there is one."""
        line = self._line
        if line is None:
            return b""
        return "".join([f"{line(_request(entry, now))}\n" for entry in batch]).encode("utf-8", "backslashreplace")

    def _message(self, entry: Entry, now: float) -> str:
        return AccessLog._message(self, entry, now) if self._line is None else self._line(_request(entry, now))

    def _record_text(self, entry: Entry) -> tuple[str, tuple[Any, ...]]:
        if self._line is None:
            return AccessLog._record_text(self, entry)
        return self._line(_request(entry, time.time())), ()


def _cut(batch: list[Entry], named: bool) -> list[Entry]:
    return [entry[: 8 if named else 7] for entry in batch]


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
