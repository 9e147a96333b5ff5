"""What an app hands to `start_response`, checked while the app still runs, and put into bytes (PEP 3333, "The start_response Callable")."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from cavalcade.errors import AppProtocolError
from cavalcade.wire.fields import TABLE_MAX, TOKEN, response_length

# Their meaning ends with the connection, which is the server's (PEP 3333, "Other HTTP Features": an app must not send them).
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailers", b"transfer-encoding", b"upgrade"}
)

LENGTH = b"content-length"

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# As an app gives it -> (the number, its reason phrase where that is not the usual one).
STATUSES: dict[str, tuple[int, bytes]] = {}

# As an app gives it -> in lower case, in bytes.
NAMES: dict[str, bytes] = {}

# Whole fields, as an app gives them -> (as they go onto the wire, the length that they state or -1). Most apps give the same few again
# and again. Bounded, and only short ones.
FIELDS: dict[tuple[str, str], tuple[tuple[bytes, bytes], int]] = {}
FIELD_KEPT_CHARS = 64


def learn_status(status: object) -> tuple[int, bytes]:
    """The entry of a status that is not in the table yet. Raises `AppProtocolError` for what is no final status."""
    if not isinstance(status, str):
        raise AppProtocolError(f"status {status!r:.80} is {type(status).__name__}, not str", fix='A WSGI status is text, as "200 OK".')
    digits, _, reason = status.partition(" ")
    if len(digits) != 3 or not (digits.isascii() and digits.isdigit()):
        raise AppProtocolError(f"status {status!r:.80} does not begin with three digits and a space", fix='Write it as "200 OK".')
    code = int(digits)
    if code < 200:
        raise AppProtocolError(f"status {status!r:.80} is not a final HTTP status: from 200 on")
    if not reason.isprintable():
        raise AppProtocolError(f"status {status!r:.80} has a control character in it")
    try:
        phrase = reason.encode("latin-1")
    except UnicodeEncodeError as error:
        raise AppProtocolError(f"status {status!r:.80} has a character beyond latin-1") from error
    entry = (code, b"" if reason == _PHRASES.get(code, "") else phrase)
    if len(STATUSES) < TABLE_MAX and len(status) <= 64:
        STATUSES[status] = entry
    return entry


def learn_name(name: object) -> bytes:
    """The entry of a field name that an app used for the first time. Raises `AppProtocolError` for what is none, or is not the app's."""
    if not isinstance(name, str):
        raise AppProtocolError(f"header name {name!r:.80} is {type(name).__name__}, not str")
    try:
        lower = name.encode("ascii").lower()
    except UnicodeEncodeError:
        lower = b""
    if not TOKEN.fullmatch(lower):
        raise AppProtocolError(f"header name {name!r:.80} has a character that is not allowed in one (RFC 9110 section 5.1)")
    if lower in HOP_BY_HOP:
        cause = f"header {name} is hop-by-hop: it concerns the connection, which is the server's (PEP 3333)"
        raise AppProtocolError(cause, fix=f"Leave {name} out.")
    if len(NAMES) < TABLE_MAX and len(name) <= 64:
        NAMES[name] = lower
    return lower


def read_headers(headers: Any, out: list[tuple[bytes, bytes]]) -> int:
    """Put the fields into `out` as bytes. Returns the Content-Length, or -1 where there is none. Raises `AppProtocolError`."""
    length = -1
    try:
        for pair in headers:
            entry = FIELDS.get(pair) if type(pair) is tuple else None
            if entry is None:
                entry = read_field(pair)
            out.append(entry[0])
            if entry[1] >= 0:
                length = entry[1]
    except (TypeError, ValueError, AttributeError) as error:
        raise explain(headers) from error
    return length


def read_field(pair: Any) -> tuple[tuple[bytes, bytes], int]:
    """The entry of a field that is not in the table. Raises `AppProtocolError`, and as `explain` is there for: `TypeError`, `ValueError`,
    `AttributeError`."""
    name, value = pair
    lower = NAMES.get(name)
    if lower is None:
        lower = learn_name(name)
    data = value.encode("latin-1")
    if not value.isprintable():
        check_value(name, value)
    entry = ((lower, data), response_length(data) if lower == LENGTH else -1)
    # A cookie is one client's secret, and of no use for the next.
    if len(value) <= FIELD_KEPT_CHARS and len(name) <= FIELD_KEPT_CHARS and lower != b"set-cookie" and type(pair) is tuple:
        if len(FIELDS) >= TABLE_MAX:
            FIELDS.clear()
        FIELDS[pair] = entry
    return entry


def check_value(name: str, value: str) -> None:
    """Raise `AppProtocolError` for control characters; others than the printable are allowed (RFC 9110 section 5.5)."""
    for char in value:
        if (char < " " and char != "\t") or char == "\x7f":
            raise AppProtocolError(f"value of header {name!r:.80} has {char!r} in it; a client could forge headers with it")


def explain(headers: object) -> AppProtocolError:
    """Which header of an app cannot go onto the wire, and why."""
    cause = f"the headers are {type(headers).__name__}, not a list of (name, value) pairs"
    if isinstance(headers, list | tuple):
        for pair in headers:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                cause = f"header {pair!r:.80} is not a pair of name and value"
                break
            name, value = pair
            if not isinstance(name, str):
                cause = f"header name {name!r:.80} is {type(name).__name__}, not str"
                break
            if not isinstance(value, str):
                cause = f"value of header {name!r:.80} is {type(value).__name__}, not str"
                break
            if any(char > "\xff" for char in value):
                cause = f"value of header {name!r:.80} has a character beyond latin-1: {value!r:.80}"
                fix = "Encode it: RFC 8187 for parameters, percent-encoding for a Location."
                return AppProtocolError(cause, fix=fix)
    return AppProtocolError(cause, fix="WSGI headers are a list of (str, str).")


def as_bytes(piece: object) -> bytes:
    """A piece of body that is not exactly `bytes`. Raises `AppProtocolError` where it is none at all."""
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise AppProtocolError(f"the body is made of {type(piece).__name__}, not of bytes: {piece!r:.80}")
