"""Where metrics are pushed to, as gunicorn's hands write it."""

from __future__ import annotations

import pytest

from cavalcade.config.statsd import address


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("127.0.0.1:8125", "127.0.0.1:8125"),
        ("localhost", "localhost:8125"),
        ("[::1]:9125", "[::1]:9125"),
        ("::1", "[::1]:8125"),
        ("unix:/run/statsd.sock", "unix:/run/statsd.sock"),
        ("unix:///run/statsd.sock", "unix:/run/statsd.sock"),
    ],
)
def test_an_address_is_read(text: str, canonical: str) -> None:
    assert address(text) == canonical


@pytest.mark.parametrize("text", ["fd://3", "unix:/s?mode=660", "a b", "127.0.0.1:0", "http://x:1"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        address(text)
