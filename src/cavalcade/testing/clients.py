"""Clients for tests of a live server: they count what is lost, and never sleep."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from dataclasses import dataclass, field

import psutil

from cavalcade.testing.live import LiveServer

WAIT_S = 30.0  # for anything that is sure to come, on a machine that may be busy
PAUSE_S = 0.01  # of a `Load` client: without it the clients take all the CPU that what is tested needs too


# Not one of those that clients get for themselves (32768 and up, Linux): one of them could be faster than who is to listen there.
PORTS = range(10_000, 32_000)


def free_port() -> int:
    """A port of the loopback interface, for a program that has to be told one."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def get(server: LiveServer, path: str = "/") -> str:
    """One request on a connection of its own. Raises `OSError` or `HTTPException`."""
    connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, f"{response.status}: {body}"
        return body
    finally:
        connection.close()


class Slow:
    """A request that has begun to be answered. `rest()` is what follows."""

    def __init__(self, server: LiveServer, path: str = "/slow", begun: bytes = b"begun,") -> None:
        self.connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.read(len(begun)) == begun

    def rest(self) -> bytes:
        try:
            return self.response.read()
        finally:
            self.connection.close()

    def close(self) -> None:
        self.connection.close()


@dataclass
class Load:
    """Clients that send one request after the other, each on a connection of its own, with a short pause, until told to stop."""

    server: LiveServer
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int = 3) -> None:
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.wait(PAUSE_S):
            try:
                self.answers.append(get(self.server))
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)


def processes(server: LiveServer) -> list[psutil.Process]:
    """Every process of the server but the supervisor."""
    return psutil.Process(server.pid).children(recursive=True)


def wait_gone(those: list[psutil.Process], timeout_s: float = WAIT_S) -> None:
    """Wait until the processes are gone: not even zombies."""
    _, left = psutil.wait_procs(those, timeout=timeout_s)
    assert not left, f"still there: {left}"
