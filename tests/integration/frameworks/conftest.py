"""Real frameworks in real servers: one process tree per module and event loop, spoken to over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from cavalcade.testing import LiveServer, write_app

Serve = Callable[..., LiveServer]


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop_name(request: pytest.FixtureRequest) -> str:
    """The event loop that the servers of this case run on."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def serve(loop_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a server for an app given as source text; it is stopped, with exit code 0, when the module is done."""
    with ExitStack() as stack:

        def start(source: str, *options: str, name: str = "main", app: str = "main:app") -> LiveServer:
            folder = tmp_path_factory.mktemp("app")
            write_app(folder, source, name)
            return stack.enter_context(LiveServer(app, "--loop", loop_name, *options, cwd=folder))

        yield start


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    """A client of the module's `server`."""
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        yield client
