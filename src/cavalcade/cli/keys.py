"""Keys, one by one, from a terminal."""

from __future__ import annotations

import os
import re
import select
import termios
import tty
from types import TracebackType
from typing import IO, Self

_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|.", re.DOTALL)
_NAMES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b": "escape", "\r": "enter", "\n": "enter"}
_READ_BYTES = 1024


class Keys:
    """As a context: keys come at once and are not shown. Where the input is no terminal there are none."""

    def __init__(self, source: IO[str]) -> None:
        self._fd = source.fileno() if source.isatty() else -1
        self._before: list[int | list[bytes | int]] = []
        self._waiting: list[str] = []

    def __enter__(self) -> Self:
        if self._fd >= 0:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._fd >= 0:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def wait(self, timeout_s: float) -> str:
        """The next key, by name or as itself; "" where none comes in time."""
        if not self._waiting:
            ready, _, _ = select.select([self._fd] if self._fd >= 0 else [], [], [], max(0.0, timeout_s))
            if not ready:
                return ""
            text = os.read(self._fd, _READ_BYTES).decode("utf-8", "replace")
            if not text:  # the terminal has gone
                raise EOFError
            self._waiting = [_NAMES.get(key, key) for key in _KEY.findall(text)]
        return self._waiting.pop(0)
