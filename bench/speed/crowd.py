"""Connections that do nothing, and one that keeps a worker busy."""

from __future__ import annotations

import http.client
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import apps

from speed.process import HOST, Unmeasurable

FEW = 64
SPARE_FILES = 500
WAIT_S = 20.0
PATIENCE_S = 30.0
REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"


def allow_files(count: int) -> bool:
    """Let this process, and those it starts, have so many connections open; False where that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


@contextmanager
def opened(port: int, count: int) -> Iterator[int]:
    """So many connections, each of which has been answered once; yields how many of them the server has closed since."""
    if not allow_files(count):
        raise Unmeasurable(f"the limit of open files (ulimit -Hn) is too low for {count} connections")
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((HOST, port), PATIENCE_S))
            client.sendall(REQUEST)
            clients.append(client)
            answer = b""
            while not answer.endswith(apps.BODY):
                received = client.recv(4096)
                if not received:
                    raise Unmeasurable(f"connection {len(clients)} was closed instead of answered")
                answer += received
        watch = select.poll()
        for client in clients:
            watch.register(client, select.POLLIN)
        yield len(watch.poll(0))


def wait_workers(port: int, count: int) -> None:
    """Until as many workers have answered. Raises `Unmeasurable`."""
    seen: set[bytes] = set()
    deadline = time.monotonic() + WAIT_S
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise Unmeasurable(f"only {len(seen)} of {count} workers ever answered")
        with ExitStack() as stack:
            clients = [http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S) for _ in range(FEW)]
            for client in clients:
                stack.callback(client.close)
                client.request("GET", "/pid")
            for client in clients:
                seen.add(client.getresponse().read())


@contextmanager
def burning(port: int) -> Iterator[None]:
    """One connection asks for CPU time again and again, while this lasts."""
    end = threading.Event()
    failed: list[Exception] = []

    def ask() -> None:
        try:
            connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
            while not end.is_set():
                connection.request("GET", "/burn")
                connection.getresponse().read()
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    if failed:
        raise Unmeasurable(f"the connection that burns CPU failed: {failed[0]!r}")
