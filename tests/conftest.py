"""What every test may use: the two event loops, and a way to run a coroutine on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=sorted(LOOPS))
def loop_name(request: pytest.FixtureRequest) -> str:
    """The name of an event loop, as `--loop` takes it; a test that asks for it runs once on each."""
    name: str = request.param
    return name


@pytest.fixture
def run(loop_name: str) -> Run:
    """Run one coroutine to its end on the loop of this case; tasks that are left over are cancelled and waited for."""

    def run_on_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            return runner.run(main)

    return run_on_loop


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    """An authority that signs certificates, and its directory."""
    from cavalcade.testing.certificates import Authority  # not for every test: it takes a while to import

    folder = tmp_path / "tls"
    folder.mkdir()
    return Authority(folder)
