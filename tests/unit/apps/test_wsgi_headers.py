"""What an app gives to `start_response`, which is mostly what it gave before."""

from __future__ import annotations

from typing import Any

import pytest

from cavalcade.apps.wsgi.headers import read_headers
from cavalcade.errors import AppProtocolError
from cavalcade.wire.fields import TABLE_MAX


def read(*headers: Any) -> tuple[list[tuple[bytes, bytes]], int]:
    out: list[tuple[bytes, bytes]] = []
    return out, read_headers(list(headers), out)


def test_what_comes_again_is_read_as_the_first_time() -> None:
    for _ in range(3):
        assert read(("Content-Length", "12"), ("X-Thing", "a")) == ([(b"content-length", b"12"), (b"x-thing", b"a")], 12)
        assert read(("X-Thing", "b"), ("x-thing", "a")) == ([(b"x-thing", b"b"), (b"x-thing", b"a")], -1)
        assert read(["CONTENT-LENGTH", "7"], ("X", "\xe9\t")) == ([(b"content-length", b"7"), (b"x", b"\xe9\t")], 7)


def test_more_different_fields_than_are_kept_are_read_too() -> None:
    for number in range(TABLE_MAX + 10):
        assert read(("X-Number", str(number))) == ([(b"x-number", b"%d" % number)], -1)


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        (("X", "a\nb"), "a client could forge headers"),
        (("X", "a\0b"), "a client could forge headers"),
        (("X y", "a"), "not allowed in one"),
        (("Connection", "close"), "hop-by-hop"),
        (("Content-Length", "1x"), "is not a number of bytes"),
        (("X", "\u20ac"), "beyond latin-1"),
        (("X", b"a"), "is bytes, not str"),
        (("X", ["a"]), "is list, not str"),
        (("X", "a", "b"), "is not a pair"),
        ((b"X", "a"), "is bytes, not str"),
        (3, "is not a pair"),
    ],
)
def test_what_is_refused_is_refused_each_time(header: Any, cause: str) -> None:
    for _ in range(3):
        with pytest.raises(AppProtocolError) as caught:
            read(("Content-Type", "text/plain"), header)
        assert cause in caught.value.cause
