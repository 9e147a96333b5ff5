"""`cavalcade top` in a real terminal, with a real server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Self

import pytest

from cavalcade.cli.instances import Choice, find
from cavalcade.cli.main import main
from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S

APP = """
import asyncio
from pathlib import Path

HERE = Path(__file__).parent


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    while scope["path"] == "/held" and not (HERE / "release").exists():
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

# Where the tests run in the background of a shell, they ignore SIGINT, and so does what they start.
RUN = "import signal, sys; signal.signal(2, signal.default_int_handler); from cavalcade.cli.main import main; sys.exit(main())"
LEFT_SCREEN = "\x1b[?1049l"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str, code: str = RUN, columns: int = 150) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.settings = termios.tcgetattr(self._slave)
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")} | {
            "TERM": "xterm-256color"
        }
        command = [sys.executable, "-c", code, *words]
        self.process = subprocess.Popen(command, stdin=self._slave, stdout=self._slave, stderr=self._slave, env=env, start_new_session=True)
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def press(self, key: str, pattern: str) -> str:
        """Press a key, and wait until something is drawn that was not there before."""
        self.said = ""
        os.write(self._master, key.encode())
        return self.until(pattern)

    def until(self, pattern: str) -> str:
        """Wait for something to be drawn."""
        deadline = monotonic() + WAIT_S
        while not (found := re.search(pattern, _SEQUENCE.sub("", self.said))):
            if not self._read(deadline - monotonic()):
                raise AssertionError(f"never drawn: {pattern}\n{self.said}")
        return found[0]

    def wait(self) -> int:
        """The exit code. Whatever is written until then is read: a terminal is not endless."""
        while self.process.poll() is None:
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def quit(self) -> int:
        """Press q; the exit code."""
        os.write(self._master, b"q")
        return self.wait()

    def restored(self) -> bool:
        """Is it as the command found it?"""
        return LEFT_SCREEN in self.said and termios.tcgetattr(self._slave) == self.settings

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        if ready:
            self.said += os.read(self._master, 65536).decode("utf-8", "replace")
        return bool(ready)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("top")
    write_app(folder, APP)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    with LiveServer("main:app", "--control", "c.sock", "--workers", "2", "--lifespan", "off", cwd=folder) as server:
        yield server


@pytest.fixture
def busy(server: LiveServer, folder: Path) -> Iterator[int]:
    """The number of a worker that answers GET /held."""
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = monotonic() + WAIT_S
        holders: list[int] = []
        while not holders and monotonic() < deadline:
            holders = [worker.id for worker in find(Choice(str(folder / "c.sock")), {}).status.workers if worker.in_flight]
        yield holders[0]
        (folder / "release").touch()
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_it_shows_every_worker_sorts_dumps_stacks_replaces_and_quits(server: LiveServer, folder: Path, busy: int) -> None:
    pytest.importorskip("rich", reason="top draws with rich")
    with Terminal("top", "--control", str(folder / "c.sock")) as terminal:
        head = terminal.until("slot.*last reason")
        names = [
            "slot▲",
            "worker",
            "pid",
            "gen",
            "phase",
            "age",
            "req/s",
            "in flight",
            "busy",
            "lag",
            "p95",
            "RSS",
            "restarts",
            "last reason",
        ]
        assert [name for name in names if name not in head] == []
        for pid in server.worker_pids:
            terminal.until(rf"{pid} +1 +ready")
        for name in names[1:4]:
            terminal.press("s", f"{name}[▲▼]")
        terminal.press("o", "gen▲")
        terminal.press("o", "gen▼")
        terminal.press("S", "pid▲")
        terminal.press("S", "worker▲")
        if busy == 2:
            terminal.press("j", "choose")
        terminal.press("d", rf"worker {busy} .*1 request in flight")
        terminal.until(r"GET /held ")
        terminal.until(r"main\.py:\d+ app\(\)")
        terminal.press("\x1b", "choose")
        terminal.press("r", rf"Replace worker {busy} \(pid \d+\)\?")
        terminal.press("n", "Nothing is done")
        terminal.press("r", rf"Replace worker {busy} ")
        terminal.press("y", rf"Worker {busy} is being replaced")
        terminal.until(r"\b3 +\d+ +1 +ready")
        assert terminal.quit() == 0
        assert terminal.restored()


def test_in_a_narrow_terminal_whole_columns_are_left_out(server: LiveServer, folder: Path) -> None:
    pytest.importorskip("rich", reason="top draws with rich")
    with Terminal("top", "--control", str(folder / "c.sock"), columns=80) as terminal:
        assert "…" not in terminal.until(r"slot▲ .*")
        terminal.process.send_signal(signal.SIGINT)  # the other way to quit
        assert terminal.wait() == 0
        assert terminal.restored()


def test_it_goes_on_with_the_server_that_takes_over_and_says_when_that_has_gone(folder: Path) -> None:
    pytest.importorskip("rich", reason="top draws with rich")
    with LiveServer("main:app", "--control", "new.sock", "--lifespan", "off", cwd=folder) as server:
        with Terminal("top", "--control", str(folder / "new.sock"), "--interval", "0.1") as terminal:
            terminal.until(rf"pid {server.pid}, ")
            server.signal(signal.SIGUSR2)
            successor = int(server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", WAIT_S)[1])
            terminal.until(rf"pid {successor}, ")
            os.kill(successor, signal.SIGTERM)
            assert terminal.wait() == 1
            assert "There is no control socket" in terminal.said
            assert terminal.restored()
        server.wait_exit(0)


def test_once_and_json_are_for_a_pipe(server: LiveServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control = str(folder / "c.sock")
    assert main(["top", "--once", "--control", control]) == 0
    assert "slot  worker" in capsys.readouterr().out
    assert main(["top", "--once", "--json", "--control", control]) == 0
    assert json.loads(capsys.readouterr().out)["pid"] == server.pid
    command = [sys.executable, "-c", RUN, "top", "--json", "--interval", "0.1", "--control", control]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["pid"] for _ in range(3)] == [server.pid] * 3
        process.kill()
    assert main(["top", "--control", control]) == 2
    assert "The output is no terminal" in capsys.readouterr().err


def test_without_rich_it_says_what_to_install(server: LiveServer, folder: Path) -> None:
    code = f"import sys; sys.modules['rich'] = None; {RUN}"
    with Terminal("top", "--control", str(folder / "c.sock"), code=code) as terminal:
        assert terminal.wait() == 2
        assert "pip install 'cavalcade[tui]'" in terminal.said
