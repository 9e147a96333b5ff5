"""Tables and grammars of header fields, shared by all engines.

Names, methods and status lines come from tables, so that the usual request allocates none of them. The tables of names learn:
an unknown name is checked once and kept, up to a bound that no peer can push over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from cavalcade import limits
from cavalcade.errors import AppProtocolError, NotImplementedByServer, PeerError

TABLE_MAX = 4096  # learnt entries of one table; at about 150 bytes each it stays under 1 MiB

# RFC 9110 section 5.6.2: token
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 section 7.2 with RFC 3986 section 3.2.2: uri-host [ ":" port ]; no user information. It may be empty.
_IP_LITERAL = rb"\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]"
_REG_NAME = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
HOST = re.compile(rb"(?:" + _IP_LITERAL + rb"|" + _REG_NAME + rb")(?::[0-9]{0,5})?")

# Kinds of fields that the engine itself must know.
PLAIN, HOST_FIELD, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, CONNECTION, DATE, SERVER, FORWARDING = range(9)

_KINDS = {
    b"host": HOST_FIELD,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"expect": EXPECT,
    b"connection": CONNECTION,
    b"date": DATE,
    b"server": SERVER,
}

# What proxies say of the client and of its connection to them.
FORWARDING_NAMES = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"forwarded")
_REQUEST_KINDS = _KINDS | dict.fromkeys(FORWARDING_NAMES, FORWARDING)

_COMMON = (
    b"Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length Content-Type Cookie DNT Date "
    b"ETag Expect Forwarded Host If-Match If-Modified-Since If-None-Match If-Range Keep-Alive Origin Pragma Priority Range "
    b"Referer Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Server TE Traceparent Transfer-Encoding Upgrade "
    b"Upgrade-Insecure-Requests User-Agent Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto "
    b"X-Real-IP X-Request-ID X-Requested-With"
).split()

# As it stands on the wire -> (in lower case, kind).
REQUEST_NAMES: dict[bytes, tuple[bytes, int]] = {}
for _name in _COMMON:
    _lower = _name.lower()
    REQUEST_NAMES[_lower] = REQUEST_NAMES[_name] = (_lower, _REQUEST_KINDS.get(_lower, PLAIN))

# As an app gives it -> (what goes before the value, the end of the line before included; kind).
RESPONSE_NAMES: dict[bytes, tuple[bytes, int]] = {}

# A whole field of a response, (name, value), that has been checked -> (its line, with the line end before it; kind; Content-Length or -1).
RESPONSE_FIELDS: dict[object, tuple[bytes, int, int]] = {}
RESPONSE_FIELD_KEPT_BYTES = 64  # of a value; longer ones are rarely the same again

METHODS: dict[bytes, str] = {name.encode(): name for name in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]}

# Without the line end: every field line brings the one before it.
STATUS_LINES: dict[int, bytes] = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()) for status in HTTPStatus if status >= 200
}

# The values of Content-Length that apps give, as numbers.
LENGTHS: dict[bytes, int] = {}


def learn_request_name(name: bytes) -> tuple[bytes, int]:
    """The entry of a name that is not in the table yet; the parser has checked that it is a token."""
    lower = name.lower()
    entry = (lower, _REQUEST_KINDS.get(lower, PLAIN))
    if len(REQUEST_NAMES) < TABLE_MAX and len(name) <= 64:
        REQUEST_NAMES[name] = entry
    return entry


def kind_of(name: bytes) -> int:
    """What the engines must know of the field of this name, which is in lower case."""
    return _KINDS.get(name, PLAIN)


def read_method(method: bytes) -> str:
    """A method that is not in the table. Raises `PeerError` for those that no origin server has."""
    if method == b"CONNECT":
        raise NotImplementedByServer("CONNECT: this is no proxy")
    return method.decode("ascii")


def learn_response_name(name: object) -> tuple[bytes, int]:
    """The entry of a name that an app used for the first time. Raises `AppProtocolError` when it is no field name."""
    if not isinstance(name, bytes):
        cause = f"header name {name!r} is {type(name).__name__}, not bytes"
        raise AppProtocolError(cause, fix="ASGI header names and values are byte strings")
    if not TOKEN.fullmatch(name):
        raise AppProtocolError(f"header name {name!r} has a character that is not allowed in one (RFC 9110 section 5.1)")
    entry = (b"\r\n" + name + b": ", _KINDS.get(name.lower(), PLAIN))
    if len(RESPONSE_NAMES) < TABLE_MAX and len(name) <= 64:
        RESPONSE_NAMES[name] = entry
    return entry


def learn_response_field(field: Any) -> tuple[bytes, int, int]:
    """The entry of a field that is not in the table, as an app gives it. Raises `AppProtocolError` where it cannot go onto the wire."""
    try:
        name, value = field
    except (TypeError, ValueError):
        raise explain_bad_headers([]) from None
    prefix, kind = RESPONSE_NAMES.get(name) or learn_response_name(name)
    try:
        line = prefix + value
    except TypeError:
        raise explain_bad_headers([(name, value)]) from None
    # The line end before it is ours, and the only one that is allowed.
    if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line or (kind and not isinstance(value, bytes)):
        raise explain_bad_headers([(name, value)])
    entry = (line, kind, response_length(value) if kind == CONTENT_LENGTH else -1)
    if type(field) is tuple and type(value) is bytes and len(value) <= RESPONSE_FIELD_KEPT_BYTES:
        if len(RESPONSE_FIELDS) >= TABLE_MAX:
            RESPONSE_FIELDS.clear()
        RESPONSE_FIELDS[field] = entry
    return entry


def plain_status(status: object) -> int:
    """A status given as an enum, as a plain int. Raises `AppProtocolError` for what is no int."""
    if not isinstance(status, int) or isinstance(status, bool):
        raise AppProtocolError(f"status {status!r} is {type(status).__name__}, not int")
    return int(status)


def status_line(status: int) -> bytes:
    """The status line for a final response. Raises `AppProtocolError` for anything but an int from 200 to 999."""
    if not 200 <= status <= 999:
        raise AppProtocolError(f"status {status} is not a final HTTP status: an int from 200 to 599")
    line = STATUS_LINES.get(status)
    if line is None:
        # RFC 9112 section 4: the reason phrase may be empty, the space before it may not.
        line = STATUS_LINES[status] = b"HTTP/1.1 %d " % status
    return line


def response_length(value: object) -> int:
    """The number in an app's Content-Length. Raises `AppProtocolError` when it is none."""
    length = LENGTHS.get(value) if isinstance(value, bytes) else None
    if length is None:
        if not isinstance(value, bytes):
            raise explain_bad_headers([(b"content-length", value)])
        if not value.isdigit() or len(value) > 16 or int(value) > limits.LENGTH_MAX:
            raise AppProtocolError(f"content-length {value!r} is not a number of bytes")
        if len(LENGTHS) >= TABLE_MAX:
            LENGTHS.clear()
        length = LENGTHS[value] = int(value)
    return length


known_hosts: set[bytes] = set()


def check_host(value: bytes) -> None:
    """Raise `PeerError` unless `value` is a Host field value (RFC 9110 section 7.2)."""
    if value in known_hosts:
        return
    if not HOST.fullmatch(value):
        raise PeerError("the Host header is not a host name")
    if len(known_hosts) >= TABLE_MAX:
        known_hosts.clear()
    if len(value) <= 255:
        known_hosts.add(value)


# RFC 9110 section 6.5.1: what frames, routes, authenticates, asks for or tells how to read a message comes too late behind its body.
_NOT_IN_TRAILERS = frozenset(
    b"age authorization cache-control connection content-encoding content-length content-range content-type cookie date expires host "
    b"keep-alive location proxy-authenticate proxy-authorization proxy-connection retry-after set-cookie te trailer transfer-encoding "
    b"upgrade vary www-authenticate".split()
)


def check_trailers(trailers: Iterable[tuple[object, object]]) -> None:
    """Raise `AppProtocolError` for fields that cannot be, or must not be, trailers."""
    for name in check_fields(trailers):
        if name in _NOT_IN_TRAILERS:
            cause = f"{name.decode()} is not allowed as a trailer: it comes too late behind the body (RFC 9110 section 6.5.1)"
            raise AppProtocolError(cause, fix="Send it with http.response.start.")


def check_fields(headers: Iterable[tuple[object, object]]) -> list[bytes]:
    """The names, in lower case, of fields that are not those of a response head. Raises `AppProtocolError` for what is none."""
    names: list[bytes] = []
    for header in headers:
        try:
            name, value = header
        except (TypeError, ValueError):
            raise explain_bad_headers([]) from None
        learn_response_name(name)
        if not isinstance(value, bytes) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise explain_bad_headers([(name, value)])
        assert isinstance(name, bytes)
        names.append(name.lower())
    return names


def explain_bad_headers(headers: Sequence[tuple[object, object]]) -> AppProtocolError:
    """Which header of an app cannot go onto the wire, and why."""
    for name, value in headers:
        if not isinstance(value, bytes):
            cause = f"value of header {name!r} is {type(value).__name__}, not bytes"
            return AppProtocolError(cause, fix="ASGI header names and values are byte strings")
        for char, what in ((b"\r", "a carriage return"), (b"\n", "a line feed"), (b"\0", "a NUL")):
            if char in value:
                return AppProtocolError(f"value of header {name!r} has {what} in it; a client could forge headers with it")
    return AppProtocolError("headers are not a list of (name, value) pairs of byte strings")
