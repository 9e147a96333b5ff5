"""A server that is measured, as a process: started on a core of its own, awaited, read, and stopped."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil

BENCH = Path(__file__).parents[1]
HOST = "127.0.0.1"
BOOT_S = 30.0
STOP_S = 10.0
POLL_S = 0.005
# They mean something to more than one of the servers.
FOREIGN = ("PORT", "WEB_CONCURRENCY", "HOST", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS")


class Unmeasurable(Exception):
    """A server did not start or answer, or answered wrongly; or what drives it is not here."""


@cache
def cores() -> tuple[int, int]:
    """A core for the server and another for the load, out of those this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("bench: needs two cores, one for the server and one for the load")
    return usable[0], usable[1]


def step_aside() -> None:
    """From here on this process stays on the core of the load, like the load programs."""
    os.sched_setaffinity(0, {cores()[1]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


class Server(subprocess.Popen[bytes]):
    """A server that was started from the directory of the apps that are measured."""

    def __init__(self, command: Sequence[str], **env: str) -> None:
        # What it says goes to a file: one that warns all the time would wait for ever on a pipe that nobody reads.
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        super().__init__(
            command,
            cwd=BENCH,
            env={name: value for name, value in os.environ.items() if name not in FOREIGN} | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            start_new_session=True,
        )


def wait_listening(server: Server, port: int) -> None:
    """Until it takes connections. Raises `Unmeasurable` with what it said."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection((HOST, port), BOOT_S).close()
            return
        except OSError:
            time.sleep(POLL_S)
    raise Unmeasurable(f"it does not listen; {last_words(server)}")


def wait_answer(server: Server, url: str) -> None:
    """Until it answers. Raises `Unmeasurable` with what it said."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=BOOT_S) as response:
                response.read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(POLL_S)
    raise Unmeasurable(f"no answer on {url}; {last_words(server)}")


def last_words(server: Server) -> str:
    """Whether it ended and how, and what it said at the end."""
    code = server.poll()
    how = "it still runs" if code is None else f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
    server.said.seek(0)
    lines = [line for line in server.said.read().decode(errors="replace").splitlines() if line.strip()]
    return ": ".join([how, *(["..." + " / ".join(lines[-3:])] if lines else [])])


def family(root: int) -> list[psutil.Process]:
    """A process and all its descendants; none when it is gone."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(root: int) -> float:
    """CPU time so far of a process, all threads it has or had, and all descendants, those that have been reaped included."""
    total = 0.0
    for process in family(root):
        try:
            # Its clock is exact to the nanosecond, where /proc/PID/stat counts ticks of 10 ms. The number is what clock_getcpuclockid(3)
            # returns, CPUCLOCK_SCHED.
            total += time.clock_gettime((~process.pid << 3) | 2)
            reaped = process.cpu_times()
        except (psutil.NoSuchProcess, OSError):
            continue
        total += reaped.children_user + reaped.children_system
    return total


def rss_bytes(root: int) -> int:
    """Resident memory of a process and all its descendants. Pages that they share count in each."""
    total = 0
    for process in family(root):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def signal_all(root: int, number: signal.Signals) -> None:
    """To a process and all its descendants."""
    for process in family(root):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def stop(server: Server) -> None:
    """SIGTERM, and SIGKILL to all that is still there after a while."""
    members = family(server.pid) if server.poll() is None else []
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    for process in members:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    server.wait()
    server.said.close()


def cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor()
