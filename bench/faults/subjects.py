"""The servers that are drilled: Cavalcade, and peers, each with its own means for the job."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cavalcade.testing import LiveServer, ServerDied
from cavalcade.testing.live import BOOT_TIMEOUT_S

POLL_S = 0.02
GET_TIMEOUT_S = 5.0
WORKERS_S = 20.0  # for workers to come and go


@dataclass(frozen=True)
class Subject:
    """A kind of server. `command` gets the interpreter, the port and the number of workers."""

    name: str
    packages: tuple[str, ...]  # whose versions are worth knowing
    command: Callable[[str, int, int], list[str]]
    recycle: tuple[str, ...] = ()  # options for "replace a worker after about 300 requests"; () where there is no such thing
    ours: bool = False


CAVALCADE = Subject(
    "cavalcade",
    ("cavalcade", "uvloop"),
    lambda python, port, workers: [python, "-m", "cavalcade", "main:app", "--workers", str(workers), "--no-access-log"],
    ("--max-requests", "300", "--max-requests-jitter", "30"),
    ours=True,
)

# uvloop and httptools for all that have the choice, access log off, everything else as it comes.
PEERS = [
    Subject(
        "gunicorn + uvicorn-worker",
        ("gunicorn", "uvicorn-worker", "uvicorn"),
        lambda python, port, workers: [
            *(python, "-m", "gunicorn", "main:app", "-k", "uvicorn_worker.UvicornWorker"),
            *("-w", str(workers), "-b", f"127.0.0.1:{port}"),
        ],
        ("--max-requests", "300", "--max-requests-jitter", "30"),
    ),
    Subject(
        "gunicorn, its own ASGI worker",
        ("gunicorn",),
        lambda python, port, workers: [
            *(python, "-m", "gunicorn", "main:app", "-k", "asgi"),
            *("-w", str(workers), "-b", f"127.0.0.1:{port}"),
        ],
        ("--max-requests", "300", "--max-requests-jitter", "30"),
    ),
    Subject(
        "uvicorn",
        ("uvicorn",),
        lambda python, port, workers: [
            *(python, "-m", "uvicorn", "main:app", "--workers", str(workers), "--port", str(port)),
            "--no-access-log",
        ],
        ("--limit-max-requests", "300", "--limit-max-requests-jitter", "30"),
    ),
    Subject(
        "granian",
        ("granian",),
        lambda python, port, workers: [
            *(python, "-m", "granian", "main:app", "--interface", "asgi", "--workers", str(workers)),
            # Off by default; without it a worker that dies is not replaced, and all others here do that.
            *("--port", str(port), "--no-access-log", "--respawn-failed-workers"),
        ],
    ),
    Subject(
        "hypercorn",
        ("hypercorn",),
        lambda python, port, workers: [
            *(python, "-m", "hypercorn", "main:app", "-w", str(workers), "-k", "uvloop", "-b", f"127.0.0.1:{port}"),
        ],
        ("--max-requests", "300", "--max-requests-jitter", "30"),
    ),
]


class Running(LiveServer):
    """A running subject. For Cavalcade it is ready when it says so, for others when it answers."""

    def __init__(self, subject: Subject, folder: Path, *, python: str, workers: int, options: Sequence[str]) -> None:
        self.subject = subject
        self.folder = folder
        super().__init__("main:app", cwd=folder, ready=subject.ours)
        port = 0 if subject.ours else _free_port()
        self.argv = [*subject.command(python, port, workers), *options]
        if subject.ours:
            self.argv += ["--bind", "127.0.0.1:0"]
        else:
            self.url = f"http://127.0.0.1:{port}"
        self.own_sockets = 0  # of a worker without a client
        self.trust: ssl.SSLContext | None = None  # of our own clients, where it speaks HTTPS

    def start(self) -> None:
        super().start()
        if self.subject.ours:
            self.own_sockets = min(_sockets(pid) for pid in self.worker_pids)
        if not self.subject.ours and not self.wait_version("", BOOT_TIMEOUT_S):
            self.kill()
            raise ServerDied(f"it does not answer\n{self.transcript()}")

    def end(self) -> None:
        """Stop whatever is left of it; nothing is asserted."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(Exception):
                self.process.wait(10)
        self.kill()

    def get(self, path: str, timeout_s: float = GET_TIMEOUT_S) -> str:
        """The body of one GET. Raises `OSError` or `HTTPException`."""
        if self.trust is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(*self.address, timeout=timeout_s, context=self.trust)
        else:
            connection = http.client.HTTPConnection(*self.address, timeout=timeout_s)
        try:
            connection.request("GET", path, headers={"connection": "close"})
            response = connection.getresponse()
            body = response.read().decode()
            if response.status != 200:
                raise http.client.HTTPException(f"status {response.status}: {body[:200]}")
            return body
        finally:
            connection.close()

    def wait_version(self, version: str, timeout_s: float) -> bool:
        """Wait until new connections are answered by this version of the app only ("" for any); False if that does not happen."""
        deadline = time.monotonic() + timeout_s
        in_a_row = 0
        while in_a_row < 12:
            try:
                answered = self.get("/echo?probe").split(" ")[0]
                in_a_row = in_a_row + 1 if version in ("", answered) else 0
            except (OSError, http.client.HTTPException):
                in_a_row = 0
            if in_a_row == 0:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    return False
                time.sleep(POLL_S)
        return True

    def kill_worker(self, pid: int) -> int:
        """SIGKILL a worker; returns how many client connections it had. It is stopped first, so that the number stands."""
        try:
            self.signal(signal.SIGSTOP, pid)
            held = self._held_at_stop(pid)
            self.signal(signal.SIGKILL, pid)
            return held
        except (ProcessLookupError, psutil.NoSuchProcess):
            return 0  # it was on its way out, and is faster than we

    def end_worker(self, pid: int, name: str) -> int:
        """Have the app end this worker by a misdeed, which stops it first; returns how many connections of others it had."""
        asking = threading.Thread(target=self._ask_until_gone, args=(f"/do/{name}?{pid}",), daemon=True)
        asking.start()
        held = self._held_at_stop(pid)
        self.signal(signal.SIGCONT, pid)
        asking.join(WORKERS_S)
        return max(0, held - 1)

    def _ask_until_gone(self, path: str) -> None:
        """Until the worker that is meant gets it, which has no answer for us."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while self.get(path, WORKERS_S) == "elsewhere":
                pass

    def _held_at_stop(self, pid: int) -> int:
        """The client connections of a worker that is about to be stopped."""
        # Stopping is no instant: on its way into the kernel it may accept once more.
        deadline = time.monotonic() + WORKERS_S
        while psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            if time.monotonic() > deadline:
                raise ServerDied(f"worker {pid} has not stopped")
        return max(0, _sockets(pid) - self.own_sockets)

    def wait_workers(self, wanted: Callable[[list[int]], bool], timeout_s: float = WORKERS_S) -> float:
        """Wait until the pids of the workers are as wanted. Returns the seconds it took."""
        began = time.monotonic()
        while not wanted(self.worker_pids):
            if time.monotonic() - began > timeout_s:
                raise ServerDied(f"the workers are {self.worker_pids}\n{self.transcript()}")
            time.sleep(0.002)
        return time.monotonic() - began

    def descriptors(self) -> dict[str, list[str]]:
        """What the supervisor, and the worker that has most, have open."""
        return {"supervisor": _open(self.pid), "worker": max((_open(pid) for pid in self.worker_pids), key=len, default=[])}


def _open(pid: int) -> list[str]:
    """What the descriptors of a process are, without their numbers: "socket", "/dev/null" ..."""
    found = []
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry.path).split(":[")[0].replace(f"/proc/{pid}/", "/proc/self/"))
    except OSError:
        pass
    # libuv opens /dev/null with the first connection, and keeps it to have a descriptor left when there are no more.
    return sorted(name for name in found if name != "/dev/null")


def _sockets(pid: int) -> int:
    return _open(pid).count("socket")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
