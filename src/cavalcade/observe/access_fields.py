"""What each name of an access format stands for. A format is compiled once, at start, into a function that makes the line of an entry."""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cavalcade.config import access_formats
from cavalcade.config.access_formats import Piece
from cavalcade.observe.escape import quoted
from cavalcade.observe.logs import stamp, this_worker
from cavalcade.observe.requests import Seen, find, trace_id


@dataclass(slots=True)
class Entry:
    """One finished request. `at` is when its line is written, in seconds since the epoch."""

    client: str
    method: str
    target: str
    version: str
    status: int
    sent_bytes: int
    seconds: float
    seen: Seen
    at: float = 0.0


Get = Callable[[Entry], Any]
Line = Callable[[Entry], str]


def compile_format(text: str) -> Line:
    """The function that makes lines of this format, each without its end. Raises `ValueError`."""
    pieces, rest = access_formats.parse(text)
    parts = [(piece.before, _writer(piece)) for piece in pieces]

    def line(entry: Entry) -> str:
        return "".join([before + write(entry) for before, write in parts]) + rest

    return line


def _writer(piece: Piece) -> Callable[[Entry], str]:
    """A piece's value as text. Whatever a peer may have chosen is escaped, so that it cannot end the line or a quote."""
    get = _getter(piece)
    spec, absent = piece.spec, "" if piece.atom and piece.name == "q" and not piece.kind else "-"  # as gunicorn has it: %(U)s?%(q)s

    def write(entry: Entry) -> str:
        value = get(entry)
        if value is None or value == "":
            return absent
        if isinstance(value, str):
            value = quoted(value)
        try:
            return spec % value if piece.atom else format(value, spec)
        except (TypeError, ValueError):  # `%(b)d` of a "-", `{queue_ms:.1f}` where there is none
            return str(value)

    return write


def _getter(piece: Piece) -> Get:
    if piece.kind == "i":
        return _request_header(piece.name)
    if piece.kind == "o":
        return _response_header(piece.name)
    if piece.kind == "e":
        return _variable(piece.name)
    return (_ATOMS if piece.atom else _FIELDS)[piece.name]


def _request_header(name: str) -> Get:
    wanted = name.lower().encode("latin-1", "replace")
    return lambda entry: entry.seen.header(wanted)


def _response_header(name: str) -> Get:
    wanted = name.lower().encode("latin-1", "replace")
    if wanted == b"x-request-id":
        return lambda entry: find(entry.seen.response_headers, wanted) or entry.seen.request_id
    return lambda entry: find(entry.seen.response_headers, wanted)


def _variable(name: str) -> Get:
    """Of the WSGI environ; gunicorn's atoms are in lower case. An ASGI app has none, but what would be in it is known."""
    wanted = name.upper()
    header = wanted.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1", "replace")

    def get(entry: Entry) -> Any:
        environ = entry.seen.environ
        if environ is not None:
            value = environ.get(wanted, environ.get(name))
            return value if isinstance(value, str | int | float) else None
        if wanted.startswith("HTTP_"):
            return entry.seen.header(header)
        plain = _CGI.get(wanted)
        return None if plain is None else plain(entry)

    return get


def _host(entry: Entry) -> str:
    client = entry.client
    host, colon, port = client.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else client


def _path(entry: Entry) -> str:
    return entry.target.partition("?")[0]


def _query(entry: Entry) -> str:
    return entry.target.partition("?")[2]


def user(entry: Entry) -> str:
    """Who a Basic authorization is of."""
    scheme, _, rest = entry.seen.header(b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[0].decode("utf-8", "backslashreplace")
    except (binascii.Error, ValueError):
        return ""


_CGI: dict[str, Get] = {
    "REQUEST_METHOD": lambda entry: entry.method,
    "PATH_INFO": _path,
    "QUERY_STRING": _query,
    "REMOTE_ADDR": _host,
    "SERVER_PROTOCOL": lambda entry: f"HTTP/{entry.version}",
    "CONTENT_TYPE": lambda entry: entry.seen.header(b"content-type"),
    "CONTENT_LENGTH": lambda entry: entry.seen.header(b"content-length"),
}

_ATOMS: dict[str, Get] = {
    "h": _host,
    "l": lambda entry: None,
    "u": user,
    "t": lambda entry: time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(entry.at)),
    "r": lambda entry: f"{entry.method} {entry.target} HTTP/{entry.version}",
    "m": lambda entry: entry.method,
    "U": _path,
    "q": _query,
    "H": lambda entry: f"HTTP/{entry.version}",
    "s": lambda entry: entry.status,
    "B": lambda entry: entry.sent_bytes,
    "b": lambda entry: entry.sent_bytes or None,
    "f": lambda entry: entry.seen.header(b"referer"),
    "a": lambda entry: entry.seen.header(b"user-agent"),
    "T": lambda entry: int(entry.seconds),
    "M": lambda entry: int(entry.seconds * 1000),
    "D": lambda entry: int(entry.seconds * 1_000_000),
    "L": lambda entry: f"{entry.seconds:.6f}",
    "p": lambda entry: f"<{os.getpid()}>",
}

_FIELDS: dict[str, Get] = {
    "time": lambda entry: stamp(entry.at),
    "client": lambda entry: entry.client,
    "method": lambda entry: entry.method,
    "target": lambda entry: entry.target,
    "path": _path,
    "query": _query,
    "http_version": lambda entry: entry.version,
    "status": lambda entry: entry.status,
    "bytes": lambda entry: entry.sent_bytes,
    "received_bytes": lambda entry: entry.seen.received,
    "duration_s": lambda entry: round(entry.seconds, 6),
    "duration_ms": lambda entry: round(entry.seconds * 1000, 1),
    "ttfb_s": lambda entry: round(entry.seen.ttfb_s, 6),
    "ttfb_ms": lambda entry: round(entry.seen.ttfb_s * 1000, 1),
    "queue_s": lambda entry: None if entry.seen.queue_s < 0 else round(entry.seen.queue_s, 6),
    "queue_ms": lambda entry: None if entry.seen.queue_s < 0 else round(entry.seen.queue_s * 1000, 1),
    "worker": lambda entry: this_worker(),
    "pid": lambda entry: os.getpid(),
    "request_id": lambda entry: entry.seen.request_id,
    "trace_id": lambda entry: trace_id(entry.seen.request_headers),
    "route": lambda entry: entry.seen.route,
    "client_left": lambda entry: "left" if entry.seen.left else None,
    "user": user,
    "referer": lambda entry: entry.seen.header(b"referer"),
    "user_agent": lambda entry: entry.seen.header(b"user-agent"),
}
