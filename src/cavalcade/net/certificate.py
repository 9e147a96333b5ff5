"""What a certificate says of itself: its names, its serial number, and from when until when it is good (RFC 5280 section 4.1).

Python's ssl module shows the certificate of a peer, but not its own. So the few fields that a person wants to see are taken out of
the DER here. Nothing is judged: whether a certificate and its key can be used is for OpenSSL to say.
"""

from __future__ import annotations

import binascii
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_NAMES_SHOWN = 3

# DER tags
_OID, _SEQUENCE, _UTC_TIME = 0x06, 0x30, 0x17
_VERSION, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0xA0, 0xA3, 0x82, 0x87
_COMMON_NAME, _SUBJECT_ALT_NAME = b"\x55\x04\x03", b"\x55\x1d\x11"


@dataclass(frozen=True)
class Certificate:
    """`not_before` and `not_after` are seconds since the epoch; `names` are host names and addresses, or the common name."""

    names: tuple[str, ...]
    serial: int
    not_before: float
    not_after: float

    @property
    def shown_names(self) -> str:
        """The first few names, for a line of the log."""
        more = len(self.names) - _NAMES_SHOWN
        return (", ".join(self.names[:_NAMES_SHOWN]) or "no name") + (f" and {more} more" if more > 0 else "")

    def __str__(self) -> str:
        return f"{self.shown_names}, serial {self.serial:x}, good until {day(self.not_after)}"


def day(seconds: float) -> str:
    """A moment, to the minute, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def warn(certificate: Certificate, now: float | None = None) -> str:
    """What is the matter with its time, or "": past, not come yet, or nearly over, which is when a tenth of its life is left."""
    now = time.time() if now is None else now
    if now >= certificate.not_after:
        return f"has expired on {day(certificate.not_after)}"
    if now < certificate.not_before:
        return f"is good from {day(certificate.not_before)} only"
    if certificate.not_after - now < (certificate.not_after - certificate.not_before) / 10:
        hours = (certificate.not_after - now) / 3600
        left = f"{hours / 24:.0f} days" if hours > 48 else f"{hours:.0f} h"
        return f"expires in {left}, on {day(certificate.not_after)}"
    return ""


def first(text: str) -> str:
    """The first certificate of a PEM file, which is the server's own, as PEM; "" where there is none of the usual form."""
    _, begin, rest = text.partition(_BEGIN)
    return f"{_BEGIN}{rest.partition(_END)[0]}{_END}\n" if begin else ""


def read(pem: str) -> Certificate | None:
    """The certificate of a PEM text; None for one that is not X.509 as we know it."""
    try:
        return _read(ssl.PEM_cert_to_DER_cert(pem))
    except (ValueError, IndexError, OverflowError, StopIteration, binascii.Error):
        return None


def _read(der: bytes) -> Certificate:
    fields = _fields(_first(_first(der, _SEQUENCE), _SEQUENCE))
    tag, value = next(fields)
    if tag == _VERSION:
        tag, value = next(fields)
    serial = int.from_bytes(value, "big")
    next(fields)  # the algorithm of the signature
    next(fields)  # the issuer
    begin, end = (_time(*field) for field in _fields(next(fields)[1]))
    subject = next(fields)[1]
    names = [name for tag, value in fields if tag == _EXTENSIONS for name in _alternative_names(value)]
    return Certificate(tuple(names or _common_names(subject)), serial, begin, end)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a constructed DER value: tag and content."""
    place = 0
    while place < len(data):
        tag, size = data[place], data[place + 1]
        place += 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[place : place + width], "big")
            place += width
        if place + size > len(data):
            raise ValueError("cut short")
        yield tag, data[place : place + size]
        place += size


def _first(data: bytes, wanted: int) -> bytes:
    tag, value = next(_fields(data))
    if tag != wanted:
        raise ValueError(f"tag {tag:#x} instead of {wanted:#x}")
    return value


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280 section 4.1.2.5.1: two digits, 50 is 1950
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _alternative_names(extensions: bytes) -> Iterator[str]:
    for _, extension in _fields(_first(extensions, _SEQUENCE)):
        parts = list(_fields(extension))  # the OID, perhaps "critical", the value in an octet string
        if parts[0] == (_OID, _SUBJECT_ALT_NAME):
            for tag, value in _fields(_first(parts[-1][1], _SEQUENCE)):
                if tag == _DNS_NAME:
                    yield value.decode("ascii", "replace")
                elif tag == _IP_ADDRESS and len(value) == 4:
                    yield ".".join(str(byte) for byte in value)


def _common_names(subject: bytes) -> Iterator[str]:
    for _, relative in _fields(subject):
        for _, attribute in _fields(relative):
            oid, value = _fields(attribute)
            if oid == (_OID, _COMMON_NAME):
                yield value[1].decode("utf-8", "replace")
