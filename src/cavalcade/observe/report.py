"""An error as a block of text that a person reads: the cause first, the fix after it, the user's frames between.

    ✗ Port 8000 on 127.0.0.1 is in use by pid 4121 (uvicorn main:app, up 3 h).
      → cavalcade --port 8001 ..., or stop it: kill 4121

The command line draws it on its terminal, the supervisor and the workers log it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

_RED, _DIM, _CYAN, _END = "\x1b[31;1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"


def explain(cause: str, fix: str = "", trace: str = "", *, plain: bool) -> str:
    """The block, without a newline at its end. `plain` is ASCII without colours.

    A cause of several lines is several problems, and each gets its mark; so does each line of the fix.
    """
    mark, dim, arrow, end = ("x ", "", "  -> ", "") if plain else (f"{_RED}✗{_END} ", _DIM, f"  {_CYAN}→{_END} ", _END)
    lines = [f"{mark}{line}" for line in cause.splitlines()]
    lines += [f"{dim}    {line}{end}" for line in trace.splitlines()]
    lines += [f"{arrow}{line}" for line in fix.splitlines()]
    return "\n".join(lines)


def is_plain(stream: TextIO, environ: Mapping[str, str], log_format: str = "auto") -> bool:
    """Whether text for this stream has to do without colours and UTF-8.

    `text` and `plain` decide by themselves; else NO_COLOR (https://no-color.org), FORCE_COLOR, and whether it is a terminal.
    """
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    if log_format == "plain" or encoding != "utf8":
        return True
    if log_format == "text" or environ.get("FORCE_COLOR"):
        return False
    return bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb" or not stream.isatty()
