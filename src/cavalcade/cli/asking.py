"""HTTP over a unix socket, with the standard library: the client's side of the control socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

ANSWER_S = 10.0  # for what is answered at once; a supervisor never waits for anything


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, timeout: float | None = ANSWER_S) -> tuple[int, bytes]:
    """Status and body of the answer. Raises `OSError` or `HTTPException`."""
    connection = _Connection(path, timeout)
    try:
        connection.request(method, target, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def follow(path: Path, target: str) -> Iterator[tuple[str, bytes]]:
    """The events of a stream and their data, until the server ends it. Raises `OSError` or `HTTPException`, also where there is none."""
    connection = _Connection(path, None)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status != 200:
            raise http.client.HTTPException(response.read().decode("utf-8", "replace"))
        name = ""
        for line in response:
            field, _, value = line.rstrip(b"\r\n").partition(b": ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                yield name, value
    finally:
        connection.close()
