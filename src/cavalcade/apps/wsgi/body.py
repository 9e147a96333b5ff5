"""`wsgi.input` where it is not simply all in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cavalcade import limits

if TYPE_CHECKING:
    from cavalcade.apps.wsgi.threaded import ThreadCall


class Arriving(io.RawIOBase):
    """A request body of which more may come: reading waits for it. Below an `io.BufferedReader`, which has all the ways to read."""

    def __init__(self, call: ThreadCall) -> None:
        super().__init__()
        self._call: ThreadCall | None = call
        self._left: memoryview | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for at least one byte. 0 at the end of the body. Raises `ClientDisconnected`."""
        data = self._left
        if data is None:
            if self._call is None:
                raise ValueError("the request is over")
            chunk = self._call.take_chunk()
            if not chunk:
                return 0
            data = memoryview(chunk)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        self._left = data[size:] if size < len(data) else None
        return size

    def let_go(self) -> None:
        """The request is over: an app that has kept this can read no more from it."""
        self._call = None


def arriving(call: ThreadCall) -> tuple[io.BufferedReader, Arriving]:
    """The stream for an app, and its lower end."""
    raw = Arriving(call)
    return io.BufferedReader(raw, limits.BODY_BUFFER_BYTES), raw
