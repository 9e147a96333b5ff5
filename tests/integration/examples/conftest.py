"""The HTTP/2 client of nghttp2, where it is installed."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def nghttp() -> str:
    """The program."""
    found = shutil.which("nghttp")
    if found is None:
        pytest.skip("nghttp is not installed (Debian's nghttp2-client)")
    return found
