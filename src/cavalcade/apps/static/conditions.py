"""What the fields of a request ask of a file: validators, ranges and content codings (RFC 9110 sections 8.8, 12.5.3, 13 and 14).

Nothing here does I/O. Values are as they came; what makes no sense is ignored, as the RFC has it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from email.utils import mktime_tz, parsedate_tz

from cavalcade.types import Headers

# What is preferred where the client has no preference, and the name that the sibling of a file has behind its own.
CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

UNSATISFIABLE = (-1, -1)

_RANGE = re.compile(rb"bytes=[ \t]*([0-9]{0,30})-([0-9]{0,30})[ \t]*", re.IGNORECASE)
_ETAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_CODING = re.compile(rb"[ \t]*([^;, \t]+)[ \t]*(?:;[ \t]*[qQ]=([01](?:\.[0-9]{0,3})?)[ \t]*)?")
_ALIASES = {"x-gzip": "gzip"}


def fields_of(headers: Headers, name: bytes) -> bytes | None:
    """All values of a field as one list (RFC 9110 section 5.3); None where there is none."""
    values = [value for other, value in headers if other == name]
    return b", ".join(values) if values else None


def matches(value: bytes, etag: bytes, *, weak: bool) -> bool:
    """Is `etag`, which is a strong one, among those of an If-Match or, compared weakly, If-None-Match?"""
    if value.strip() == b"*":
        return True
    tags = _ETAG.findall(value)
    return etag in tags or (weak and b"W/" + etag in tags)


def read_date(value: bytes) -> int | None:
    """An HTTP-date, in any of its three forms, in seconds since 1970; None for what is none (RFC 9110 section 5.6.7)."""
    try:
        parsed = parsedate_tz(value.decode("ascii"))
        return None if parsed is None else int(mktime_tz(parsed))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def precondition(headers: Headers, etag: bytes, modified: int) -> int:
    """304, 412, or 200 for a GET or HEAD that is to be answered as if it had no conditions (RFC 9110 section 13.2.2)."""
    value = fields_of(headers, b"if-match")
    if value is not None:
        if not matches(value, etag, weak=False):
            return 412
    else:
        value = fields_of(headers, b"if-unmodified-since")
        date = read_date(value) if value is not None else None
        if date is not None and modified > date:
            return 412
    value = fields_of(headers, b"if-none-match")
    if value is not None:
        return 304 if matches(value, etag, weak=True) else 200
    value = fields_of(headers, b"if-modified-since")
    date = read_date(value) if value is not None else None
    return 304 if date is not None and modified <= date else 200


def chosen_range(headers: Headers, etag: bytes, modified: int, size: int, now: float) -> tuple[int, int] | None:
    """(first, end) of the bytes that a GET asks for, `UNSATISFIABLE`, or None for all of them.

    Several ranges at once are answered with the whole file: RFC 9110 section 14.2 leaves that to the server, hardly a client asks so, and
    many small ranges are an attack.
    """
    value = fields_of(headers, b"range")
    if value is None:
        return None
    condition = fields_of(headers, b"if-range")
    if condition is not None and not _still_the_same(condition.strip(), etag, modified, now):
        return None
    match = _RANGE.fullmatch(value)
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        count = int(last)
        return (max(0, size - count), size) if count and size else UNSATISFIABLE
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        return UNSATISFIABLE
    return start, min(size, int(last) + 1) if last else size


def _still_the_same(condition: bytes, etag: bytes, modified: int, now: float) -> bool:
    """If-Range: a strong comparison (RFC 9110 section 13.1.5)."""
    if condition.endswith(b'"'):
        return condition == etag
    # Section 8.8.2.2: a date says nothing of a file that may have changed twice within its second.
    return read_date(condition) == modified and now - modified >= 2


def choose_coding(value: bytes | None, available: Collection[str]) -> str:
    """The coding of those `available` that the client likes most; "" for none (RFC 9110 section 12.5.3)."""
    if value is None or not available:
        return ""
    asked = _read_codings(value)
    best, liked = "", asked.get("identity", 0.0)  # the file as it is comes last, unless the client says otherwise
    for coding in CODINGS:
        weight = asked.get(coding, asked.get("*", 0.0))
        if coding in available and weight > 0.0 and (weight > liked or (weight == liked and not best)):
            best, liked = coding, weight
    return best


def _read_codings(value: bytes) -> dict[str, float]:
    asked: dict[str, float] = {}
    for item in value.split(b","):
        match = _CODING.fullmatch(item)
        if match is not None:
            name = match[1].decode("latin-1").lower()
            asked[_ALIASES.get(name, name)] = min(1.0, float(match[2])) if match[2] else 1.0
    return asked


def etag_of(modified_ns: int, size: int, coding: str) -> bytes:
    """A strong entity tag: each coding of a file has its own (RFC 9110 section 8.8.3.3)."""
    return f'"{modified_ns:x}-{size:x}{"-" + coding if coding else ""}"'.encode()
