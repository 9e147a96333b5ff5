"""The response heads of HTTP/2: checked as those of HTTP/1.1 are, and encoded.

Every field is a literal of its own that uses no dynamic table (RFC 7541 section 6.2.2), so its bytes are the same on every connection:
a field that was encoded once is looked up from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack.table import HeaderTable

from cavalcade.errors import AppProtocolError
from cavalcade.wire import fields
from cavalcade.wire.fields import CONTENT_LENGTH, DATE, PLAIN, SERVER
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2_stream import StreamState

# (name, value) as an app gives it -> (encoded, kind). Bounded, and only short ones.
_ENCODED: dict[tuple[Any, Any], tuple[bytes, int]] = {}
_ENCODED_BYTES = 128
_STATUS: dict[int, bytes] = {}
_LINES: dict[bytes, bytes] = {}

# RFC 9113 section 8.2.2: what is only about one HTTP/1.1 connection is left out.
DROPPED = 100
_DROPPED = (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te")

_STATIC: dict[tuple[bytes, bytes], int] = {}
_STATIC_NAMES: dict[bytes, int] = {}
for _index, _entry in enumerate(HeaderTable.STATIC_TABLE, 1):
    _STATIC.setdefault(_entry, _index)
    _STATIC_NAMES.setdefault(_entry[0], _index)


def integer(number: int, bits: int, pattern: int) -> bytes:
    """RFC 7541 section 5.1: an integer behind a `pattern` that leaves it `bits` of the first byte."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([pattern | number])
    out = bytearray([pattern | most])
    number -= most
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_field(name: bytes, value: bytes) -> bytes:
    """RFC 7541 section 6: an entry of the static table, or a literal without indexing."""
    index = _STATIC.get((name, value))
    if index is not None:
        return integer(index, 7, 0x80)
    index = _STATIC_NAMES.get(name)
    named = integer(index, 4, 0) if index is not None else b"\0" + integer(len(name), 7, 0) + name
    return named + integer(len(value), 7, 0) + value


def encode_status(status: int) -> bytes:
    """Raises `AppProtocolError` for what is no final status."""
    fields.status_line(status)
    block = _STATUS[status] = encode_field(b":status", b"%d" % status)
    return block


def give_head(stream: StreamState, status: Any, headers: Iterable[Any], rules: Rules) -> None:
    """Check a response head and keep it in `stream`; it goes out with the first body. Raises `AppProtocolError`, with nothing kept."""
    if type(status) is not int:
        status = fields.plain_status(status)
    out = [_STATUS.get(status) or encode_status(status)]
    length = -1
    dated = named = False
    try:
        for header in headers:
            entry = _ENCODED.get(header) if type(header) is tuple else None
            if entry is None:
                entry = _learn(header)
            block, kind = entry
            if kind:
                if kind == CONTENT_LENGTH:
                    given = fields.response_length(header[1])
                    if length not in (-1, given):
                        raise AppProtocolError(f"two content-length headers that differ: {length} and {given}")
                    if length == given or status == 204:
                        continue  # once is enough; RFC 9110 section 8.6: no Content-Length in a 204
                    length = given
                elif kind == DATE:
                    dated = True
                elif kind == SERVER:
                    named = True
            out.append(block)
    except (TypeError, ValueError) as error:
        raise AppProtocolError("headers are not a list of (name, value) pairs of byte strings") from error
    if not dated and rules.date:
        out.append(_line(rules.date))
    if not named and rules.server:
        out.append(_line(rules.server))
    stream.response_block = b"".join(out)
    stream.status = status
    stream.length = stream.left = length
    # RFC 9113 section 8.1: as in HTTP/1.1, these never have a body, whatever their fields say.
    stream.bodiless = status == 204 or status == 304 or stream.method == "HEAD"
    stream.head_due = True


def encode_fields(headers: Iterable[Any]) -> bytes:
    """A block of fields that are no head, such as trailers. Raises `AppProtocolError`."""
    try:
        return b"".join([_learn(header)[0] for header in headers])
    except (TypeError, ValueError) as error:
        raise AppProtocolError("headers are not a list of (name, value) pairs of byte strings") from error


def encode_length(size: int) -> bytes:
    """The Content-Length that an app did not give."""
    return encode_field(b"content-length", b"%d" % size)


def _learn(header: Any) -> tuple[bytes, int]:
    """Check and encode a field that is not in the table. Raises `AppProtocolError`."""
    name, value = header
    fields.RESPONSE_NAMES.get(name) or fields.learn_response_name(name)
    if not isinstance(value, bytes) or b"\n" in value or b"\r" in value or b"\0" in value:
        raise fields.explain_bad_headers([(name, value)])
    lower = name.lower()
    if lower in _DROPPED:
        entry = (b"", DROPPED)
    else:
        kind = fields.kind_of(lower)
        entry = (encode_field(lower, value.strip(b" \t")), kind if kind in (CONTENT_LENGTH, DATE, SERVER) else PLAIN)
    if len(name) + len(value) <= _ENCODED_BYTES and lower != b"set-cookie":
        if len(_ENCODED) >= fields.TABLE_MAX:
            _ENCODED.clear()
        _ENCODED[name, value] = entry
    return entry


def _line(line: bytes) -> bytes:
    """A header line of `Rules`, encoded: Date changes once a second, Server never."""
    block = _LINES.get(line)
    if block is None:
        name, _, value = line.strip().partition(b": ")
        if len(_LINES) > 8:
            _LINES.clear()
        block = _LINES[line] = encode_field(name, value)
    return block
