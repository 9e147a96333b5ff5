"""What this copy of Cavalcade is: its version, and whether its hot modules are compiled.

The hot modules are plain Python that Cython may compile when the package is built. Both builds are supported products; the
server's start line and `cavalcade --version` say which one is running, because it explains a factor in speed.
"""

from __future__ import annotations

import importlib.machinery
from pathlib import Path

VERSION = "0.1.0"

# Those with an augmenting .pxd beside them are compiled. setup.py reads this table too, so it stays a literal.
HOT_MODULES = (
    "wire.sink",
    "wire.h1_response",
    "wire.h1",
    "wire.h1_plain",
    "wire.ws",
    "wire.h2_budget",
    "wire.h2_frames",
    "wire.h2_hpack",
    "wire.h2_request",
    "wire.h2_stream",
    "wire.h2_response",
    "wire.h2_outgoing",
    "wire.h2",
    "apps.tasks",
    "apps.stream",
    "apps.asgi.scope",
    "apps.asgi.exchange",
    "apps.asgi.websocket",
    "apps.wsgi.environ",
    "apps.wsgi.headers",
    "apps.wsgi.call",
    "apps.wsgi.inline",
    "board.row",
    "board.ledger",
    "observe.lines",
    "board.siblings",
    "observe.access",
    "net.transport",
    "net.context",
    "net.link",
    "net.websocket",
    "net.connection",
    "net.gate",
    "net.tls_transport",
    "net.h2_stream",
    "net.h2",
)

NOTE_FILE = "build_note.txt"  # one line, written by setup.py beside this file: what was built, or why it was not

_HERE = Path(__file__).parent


def compiled_modules() -> list[str]:
    """Those of `HOT_MODULES` that run compiled here.

    An extension module beside its source wins on import, so looking for the file is enough; nothing is imported.
    """
    return [name for name in HOT_MODULES if _extension(name)]


def kind() -> str:
    """ "compiled", "pure Python", or "partly compiled (...)" where a module that can be compiled was not."""
    compiled = compiled_modules()
    if not compiled:
        return "pure Python"
    missing = [name for name in HOT_MODULES if name not in compiled and _source(name).with_suffix(".pxd").exists()]
    return f"partly compiled (not: {', '.join(missing)})" if missing else "compiled"


def describe() -> str:
    """For `cavalcade --version`: the kind, the compiled modules, or the reason why there are none where it is known."""
    compiled = compiled_modules()
    if compiled:
        return f"{kind()}: {', '.join(compiled)}"
    reason = _note().removeprefix("pure Python").strip(" :\n")
    return f"pure Python: {reason}" if reason else "pure Python"


def _source(name: str) -> Path:
    return _HERE.joinpath(*name.split(".")).with_suffix(".py")


def _extension(name: str) -> bool:
    stem = _HERE.joinpath(*name.split("."))
    return any(stem.with_name(stem.name + suffix).exists() for suffix in importlib.machinery.EXTENSION_SUFFIXES)


def _note() -> str:
    try:
        return (_HERE / NOTE_FILE).read_text("utf-8")
    except OSError:
        return ""
