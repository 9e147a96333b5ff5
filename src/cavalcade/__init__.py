"""One server for Python web apps: a process manager and an async engine in one program.

cavalcade.run("main:app", workers=4)                                 # as the command line does
async with cavalcade.Server(app, bind="127.0.0.1:0") as server:      # inside a running event loop
    print(server.url)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cavalcade.build import VERSION as __version__

if TYPE_CHECKING:
    from cavalcade.cli.serve import run
    from cavalcade.config.options import Settings as Config
    from cavalcade.worker.server import Server

__all__ = ["Config", "Server", "__version__", "run"]

# Looked up on first use: a worker imports this package too, and has no need of the command line and the supervisor.
_PLACES = {
    "Config": ("cavalcade.config.options", "Settings"),
    "Server": ("cavalcade.worker.server", "Server"),
    "run": ("cavalcade.cli.serve", "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
