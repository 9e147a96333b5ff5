"""Every test of WSGI runs with the app in a thread and with the app in the loop, unless it is about one of them."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[0, 1])
def threads(request: pytest.FixtureRequest) -> int:
    """As `--threads` has it."""
    number: int = request.param
    return number
