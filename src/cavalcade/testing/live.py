"""A real server for a test: `python -m cavalcade` in a process of its own, on a free port, with everything it says kept.

Nothing here sleeps and nothing guesses: the server is ready when it says so, the port is the one it names, and every wait is
for a line it prints. Whatever goes wrong, the error carries all that was printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import IO, Literal, Self
from urllib.parse import urlsplit

import psutil

READY = re.compile(r"\b[Rr]eady\b.*?(?P<url>https?://[^\s,;\"]+|unix:[^\s,;\"]+)")

# "2026-01-31 12:00:00.000 +0000 [4121] info     "
_STAMP = re.compile(r"^\S+ \S+ \S+ \[\d+\] \w+ +")
_ORDINARY = re.compile(r" ready after | has left, drained in ")

BOOT_TIMEOUT_S = 30.0
LINE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
ORPHANS_S = 10.0  # how long the processes of a server may outlive its supervisor

# Variables that would configure the server from outside the test, or stamp its output with colours.
_FOREIGN = ("PORT", "WEB_CONCURRENCY", "FORCE_COLOR", "NO_COLOR")

Stream = Literal["stderr", "stdout"]


class ServerDied(AssertionError):
    """The server ended, or said nothing in time; the message holds its output."""


class LiveServer:
    """One server under test, as a context manager; leaving it stops the server and asserts that it exits with 0.

    `app` and `options` are what follows `python -m cavalcade`. `--bind 127.0.0.1:0` is added where the options do not say where to
    listen. `cwd` is where the app is imported from, `env` is laid over the environment. With `ready=False` entering does not
    wait for the ready line; that is for servers that are meant to fail.
    """

    def __init__(
        self,
        app: str,
        *options: str,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        boot_timeout_s: float = BOOT_TIMEOUT_S,
        python: str = sys.executable,
    ) -> None:
        argv = [python, "-m", "cavalcade", *([app] if app else []), *options]
        if not any(option.split("=")[0] in ("--bind", "-b", "--host", "--port") for option in options):
            argv += ["--bind", "127.0.0.1:0"]
        self.argv = argv
        self.url = ""
        self._cwd = cwd
        self._env = _environment(env)
        self._wait_ready = ready
        self._boot_timeout_s = boot_timeout_s
        self._said: list[tuple[Stream, str]] = []
        self._more = threading.Condition()
        self._open_streams = 0
        self._readers: list[threading.Thread] = []
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            # Shown by pytest beside the failure; nothing a test asserts is as telling as what the server said.
            sys.stderr.write(self.transcript())
            self.kill()
        elif self.process.poll() is None:
            self.stop()
        else:
            self.kill()

    def start(self) -> None:
        """Start the process and wait for the ready line, which gives `url`. Raises `ServerDied`."""
        self._process = subprocess.Popen(
            self.argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Its own session: a Ctrl-C meant for the test run must not reach the server before the test ends it.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._open_streams = 2
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            reader = threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            reader.start()
            self._readers.append(reader)
        if self._wait_ready:
            try:
                self.url = self.wait_line(READY, self._boot_timeout_s)["url"]
            except BaseException:
                self.kill()
                raise

    def stop(self, signum: int = signal.SIGTERM, *, code: int = 0, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Send `signum`, wait for the end, assert the exit code and that no process of the server is left."""
        self.signal(signum)
        self.wait_exit(code, timeout_s=timeout_s)

    def wait_exit(self, code: int = 0, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Wait until the server has ended by itself; assert its exit code and that none of its processes is left."""
        family = self._family()  # also by parent: one that made a session of its own would not be found by it later
        try:
            got = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerDied(f"the server did not end within {timeout_s:g} s\n{self.transcript()}") from None
        # Whose supervisor was killed finishes first; and the dead may be listed until somebody has reaped them.
        others = {process for process in (*family, *self._family()) if process.pid != self.process.pid}
        _, left = psutil.wait_procs(self._alive(list(others)), timeout=ORPHANS_S)
        self.kill()
        if got != code:
            raise ServerDied(f"the server exited with {got}, not {code}\n{self.transcript()}")
        if left:
            raise ServerDied(f"the server left processes behind: {left}\n{self.transcript()}")

    def kill(self) -> None:
        """End every process of the server at once and collect what it said. Harmless on one that has ended."""
        family = self._family()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()
        psutil.wait_procs([process for process in family if process.pid != self.process.pid], timeout=5.0)
        for reader in self._readers:
            reader.join(5.0)

    # -- processes -----------------------------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    @property
    def nursery_pids(self) -> list[int]:
        """The children of the supervisor: one for each generation of the code that still has workers."""
        return sorted(child.pid for child in self._alive(psutil.Process(self.pid).children()))

    @property
    def worker_pids(self) -> list[int]:
        """The children of the nurseries."""
        nurseries = self._alive(psutil.Process(self.pid).children())
        workers: list[int] = []
        for nursery in nurseries:
            try:
                workers += [child.pid for child in self._alive(nursery.children())]
            except psutil.NoSuchProcess:
                continue
        return sorted(workers)

    def signal(self, signum: int, pid: int | None = None) -> None:
        """Send a signal to the supervisor, or to one of its processes."""
        os.kill(self.pid if pid is None else pid, signum)

    @staticmethod
    def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
        found = []
        for process in processes:
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def _family(self) -> list[psutil.Process]:
        """Every process of the session the server was started in: orphans keep it, whatever their parent is."""
        if self.process.poll() is None:
            try:
                root = psutil.Process(self.pid)
                return [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                pass
        return [process for process in psutil.process_iter() if _session(process.pid) == self.pid]

    # -- where it listens -------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None, f"no port in {self.url!r}"
        return port

    @property
    def address(self) -> tuple[str, int]:
        """For `socket.create_connection`."""
        host = urlsplit(self.url).hostname
        assert host is not None, f"no host in {self.url!r}"
        return host, self.port

    # -- what it says -----------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """What was printed on stderr so far: the server's own log."""
        return self._lines("stderr")

    @property
    def access_lines(self) -> list[str]:
        """What was printed on stdout so far: one line for each request."""
        return self._lines("stdout")

    def mark(self) -> int:
        """The place in the output that has been reached; for `wait_line(after=...)`."""
        with self._more:
            return len(self._said)

    def wait_line(
        self,
        pattern: str | re.Pattern[str],
        timeout_s: float = LINE_TIMEOUT_S,
        *,
        after: int = 0,
        stream: Stream = "stderr",
    ) -> re.Match[str]:
        """The first line since `after` that `pattern` is found in. Raises `ServerDied` when it does not come."""
        wanted = re.compile(pattern)
        deadline = monotonic() + timeout_s
        place = after
        with self._more:
            while True:
                while place < len(self._said):
                    source, line = self._said[place]
                    place += 1
                    if source == stream and (match := wanted.search(line)):
                        return match
                left_s = deadline - monotonic()
                if not self._open_streams or left_s <= 0:
                    break
                self._more.wait(left_s)
            ended = not self._open_streams
        why = "ended without saying" if ended else f"did not say within {timeout_s:g} s"
        raise ServerDied(f"the server {why}: {wanted.pattern}\n{self.transcript()}")

    def said_of(self, pid: int) -> list[str]:
        """The lines of the log about one process of the server, but those that say that it is ready or has left in peace. Each
        without time, process and level before it, to be compared word for word."""
        lines = [_STAMP.sub("", line) for line in self.lines if f"(pid {pid})" in line]
        return [line for line in lines if not _ORDINARY.search(line)]

    def transcript(self) -> str:
        """Everything that was printed, for a person."""
        with self._more:
            said = "".join(f"  {stream[3:]:3} | {line}\n" for stream, line in self._said)
        return f"{' '.join(self.argv)}\n{said}"

    def _lines(self, wanted: Stream) -> list[str]:
        with self._more:
            return [line for stream, line in self._said if stream == wanted]

    def _read(self, stream: Stream, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode("utf-8", "backslashreplace").rstrip("\n")
                with self._more:
                    self._said.append((stream, line))
                    self._more.notify_all()
        with self._more:
            self._open_streams -= 1
            self._more.notify_all()


def write_app(folder: Path, source: str, name: str = "main") -> Path:
    """Write an app's source, dedented, to `folder/name.py`, all at once: a reload never reads half of it."""
    path = folder / f"{name}.py"
    scratch = folder / f".{name}.new"
    scratch.write_text(textwrap.dedent(source), "utf-8")
    scratch.replace(path)
    return path


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN and not name.startswith("CAVALCADE_")}
    # A .pyc is told apart from its source by size and whole seconds; a test that edits an app is faster than that.
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return environ | dict(extra or {})


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
