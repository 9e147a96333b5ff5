"""Request heads that leave no doubt, read without a parser.

Clients say the same again and again: the same request lines, and line by line the same fields. So a head is cut at its line ends, and each
line is looked up as it stands; only one that is not in the table is read. What is read here is a subset of what RFC 9112 allows, drawn so
narrowly that no two readers of it can differ. Whatever is outside of it is no error here: `None` means that llhttp and the policy behind
it decide, as they do for every head that does not come in one piece. So nothing is refused here, and nothing taken that they would refuse
or read differently; tests/wire/test_plain.py holds the two against each other.

This file is plain Python and, compiled with the h1_plain.pxd beside it, an extension module.
"""

from __future__ import annotations

import re

from cavalcade import limits
from cavalcade.wire import fields
from cavalcade.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDING,
    HOST_FIELD,
    METHODS,
    REQUEST_NAMES,
    TABLE_MAX,
    TRANSFER_ENCODING,
)
from cavalcade.wire.target import TARGET_KEPT_BYTES, split_target

# A request line without its end -> (method, target, path, raw path, query).
LINES: dict[bytes, tuple[str, bytes, str, bytes, bytes]] = {}
# A field line without its end -> (the field as an app gets it; its kind; the Content-Length, or for Connection 1 where it says close).
FIELDS: dict[bytes, tuple[tuple[bytes, bytes], int, int]] = {}

# All fields of a head: the list for the app; the length of the body, -2 for none given; keep-alive; does a proxy speak of the client in
# them; was much of it not in the table.
Known = tuple[list[tuple[bytes, bytes]], int, bool, bool, bool]
NO_BLOCK = b"-"  # that of no head: where there are fields they begin with a line end
NOTHING_KNOWN: Known = ([], -2, True, False, False)

# One space, the target in origin form and without a fragment, one space.
_LINE = re.compile(rb"([A-Z]+) (/[!-\"$-~]*) HTTP/1\.1")
# RFC 9110 section 5.5: what is neither white space nor a visible character nor a byte beyond ASCII.
_NO_TEXT = bytes(byte for byte in range(128) if byte == 127 or (byte < 32 and byte != 9))
# They ask for another protocol, or llhttp takes them for something else than they are.
_DOUBTFUL = (b"upgrade", b"proxy-connection")
# A client says these again and again. The values of others change too often, or are secrets, or only the app knows.
_KEPT = frozenset(
    b"accept accept-encoding accept-language cache-control connection content-type dnt host keep-alive origin pragma priority "
    b"sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user te "
    b"upgrade-insecure-requests user-agent via x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto "
    b"x-requested-with".split()
)


def read_line(line: bytes) -> tuple[str, bytes, str, bytes, bytes] | None:
    """The entry of a request line that is not in the table; `None` where it is not plain."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    method = METHODS.get(match[1])
    if method is None:
        return None
    target = match[2]
    entry = (method, target, *split_target(target))
    if len(target) <= TARGET_KEPT_BYTES:
        if len(LINES) >= TABLE_MAX:
            LINES.clear()
        LINES[line] = entry
    return entry


def read_block(block: bytes, most: int) -> Known | None:
    """Read all fields of a head, each with the line end before it and not the one behind it; `None` where they are not plain, or more
    than `most`."""
    headers: list[tuple[bytes, bytes]] = []
    hosts = 0
    length = -2
    keep_alive = True
    forwarded = False
    new = 0
    for line in block[2:].split(b"\r\n"):
        field = FIELDS.get(line)
        if field is None:
            field = read_field(line)
            if field is None:
                return None
            new += 1
        headers.append(field[0])
        kind = field[1]
        if kind:
            if kind == HOST_FIELD:
                hosts += 1
            elif kind == CONNECTION:
                if field[2]:
                    keep_alive = False
            elif kind == FORWARDING:
                forwarded = True
            elif kind == CONTENT_LENGTH:
                if length != -2:
                    return None
                length = field[2]
    if hosts != 1 or len(headers) > most:
        return None
    return headers, length, keep_alive, forwarded, new * 3 > len(headers)


def read_field(line: bytes) -> tuple[tuple[bytes, bytes], int, int] | None:
    """The entry of a field line that is not in the table; `None` where it is not plain."""
    name, colon, value = line.partition(b":")
    known = REQUEST_NAMES.get(name)
    if known is None:
        if not fields.TOKEN.fullmatch(name):
            return None  # white space before the colon or the name among others: RFC 9112 sections 5.1 and 5.2
        known = fields.learn_request_name(name)
    if not colon or len(value.translate(None, _NO_TEXT)) != len(value):
        return None
    value = value.strip(b" \t")
    lower, kind = known
    number = 0
    if kind == HOST_FIELD:
        if value not in fields.known_hosts and not fields.HOST.fullmatch(value):
            return None
    elif kind == CONTENT_LENGTH:
        if not value.isdigit() or len(value) > 15 or (value[0] == 48 and value != b"0"):
            return None
        number = int(value)
    elif kind == CONNECTION:
        option = value.lower()
        if option == b"close":
            number = 1
        elif option != b"keep-alive":
            return None
    elif kind in (TRANSFER_ENCODING, EXPECT) or lower in _DOUBTFUL:
        return None
    entry = ((lower, value), kind, number)
    if lower in _KEPT and len(line) <= limits.FIELD_KEPT_BYTES:
        if len(FIELDS) >= limits.FIELDS_KEPT:
            FIELDS.clear()
        FIELDS[line] = entry
    return entry
