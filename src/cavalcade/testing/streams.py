"""Clients of responses without an end of their own, such as server-sent events: they see whether the end that comes is a good one."""

from __future__ import annotations

import socket
from time import monotonic
from typing import Self

OPEN_S = 20.0
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Streams:
    """So many requests for `path`, all of which have begun to be answered. A context manager that closes them."""

    def __init__(self, address: tuple[str, int], count: int, path: str = "/stream") -> None:
        self._socks = [socket.create_connection(address, timeout=OPEN_S) for _ in range(count)]
        for sock in self._socks:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: streams\r\n\r\n".encode())
        for sock in self._socks:
            begin = sock.recv(65536)
            if not begin.startswith(b"HTTP/1.1 200"):
                raise AssertionError(f"no stream: {begin!r}")

    def ended_well(self, last: bytes, timeout_s: float) -> int:
        """Read every stream to its end; how many ended whole: with `last` as the last thing said, and the last chunk."""
        deadline = monotonic() + timeout_s
        return sum(_ends_well(sock, last, deadline) for sock in self._socks)

    def close(self) -> None:
        for sock in self._socks:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _ends_well(sock: socket.socket, last: bytes, deadline: float) -> bool:
    tail = b""
    try:
        while not tail.endswith(LAST_CHUNK):
            sock.settimeout(max(0.01, deadline - monotonic()))
            data = sock.recv(65536)
            if not data:
                return False
            tail = (tail + data)[-len(last) - 100 :]
    except OSError:
        return False
    return tail.endswith(last + LAST_CHUNK)
