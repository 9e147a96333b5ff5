"""Blocked event loops: the log names the line, the request and those who waited, once; and blames nobody who is not to blame."""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.cgroups import NoControlGroup, limited
from cavalcade.testing.clients import WAIT_S, get

HELD_S = 0.6

APP = """\
import asyncio, ctypes, gc, os, re, socket, sys, time


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    path = scope["path"].removeprefix(scope["root_path"])
    name = path.strip("/") or "fine"
    if path == "/await":
        await asyncio.sleep(1.5)
    elif path == "/forever":
        time.sleep(1000)
    elif path == "/busy_forever":
        spin(1000)
    elif path == "/pile_up":
        await pile_up(0.35)
    elif path == "/held":
        open("hold").read()
    elif name in DOINGS:
        DOINGS[name]()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass


def sleeping():
    time.sleep(1.0)


def spinning():
    spin(0.6)


def matching():
    re.match("(a+)+$", "a" * 24 + "b")


def reading():
    here, there = socket.socketpair()
    here.settimeout(1.0)
    try:
        here.recv(1)
    except TimeoutError:
        pass


async def litter(count):
    # So many objects that only the collector can free; others are served meanwhile.
    for n in range(count):
        cycle = []
        cycle.append(cycle)
        if n % 10_000 == 0:
            await asyncio.sleep(0)


async def pile_up(seconds):
    # As much as takes the collector so long.
    gc.disable()
    await litter(50_000)
    began = time.thread_time()
    gc.collect()
    await litter(int(50_000 * seconds / (time.thread_time() - began)))


def collecting():
    gc.collect()


DOINGS = {doing.__name__: doing for doing in (sleeping, spinning, matching, reading, collecting)}
"""


def line_of(text: str) -> int:
    """The number of the line of the app with this text."""
    return next(number for number, line in enumerate(APP.splitlines(), 1) if text in line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_app(tmp_path, APP)
    return tmp_path


def serve(folder: Path, *options: str, workers: int = 1) -> LiveServer:
    return LiveServer("main:app", "--workers", str(workers), "--no-access-log", *options, cwd=folder)


def only_pid(server: LiveServer) -> int:
    (pid,) = server.worker_pids
    return pid


@contextmanager
def held(server: LiveServer, folder: Path) -> Iterator[None]:
    """In this context the loop of the one worker is blocked, by GET /held, and has been for long enough to be told of when it ends."""
    os.mkfifo(folder / "hold")
    with closing(http.client.HTTPConnection(*server.address, timeout=WAIT_S)) as client:
        client.request("GET", "/held")
        with (folder / "hold").open("w"):  # it opens when the app does
            began = time.monotonic()
            yield
            time.sleep(max(0.0, began + HELD_S - time.monotonic()))  # the subject of the test
        assert client.getresponse().read() == b"ok"


def assert_told(server: LiveServer, pid: int, *sentences: str) -> None:
    """What the log says of a worker is these lines, from the first word to the last, and no other. That a busy machine had no CPU
    for it is another matter."""
    told = [line for line in server.said_of(pid) if "starved" not in line]
    assert len(told) == len(sentences), told
    for line, sentence in zip(told, sentences, strict=True):
        assert re.fullmatch(sentence, line), line


@pytest.mark.parametrize(
    ("doing", "function", "text"),
    [
        ("sleeping", "sleeping", "time.sleep(1.0)"),
        ("spinning", "spin", "while time.thread_time() < end: pass"),
        ("matching", "matching", 're.match("(a+)+$"'),
        ("reading", "reading", "here.recv(1)"),
    ],
)
def test_what_blocks_the_loop_is_named_in_exactly_one_line(folder: Path, loop_name: str, doing: str, function: str, text: str) -> None:
    with serve(folder, "--loop", loop_name) as server:
        pid = only_pid(server)
        get(server, f"/{doing}")
        found = server.wait_line(r"was blocked for (\d+) ms", WAIT_S)
        assert int(found[1]) > 250
        get(server)
    where = rf"main\.py:{line_of(text)} {function}\(\), GET /{doing}"
    assert_told(server, pid, rf"worker 1 \(pid {pid}\) was blocked for \d+ ms in {where}; 0 requests waited")


def test_of_several_apps_the_one_that_blocked_is_named_though_it_is_installed_and_waits_in_a_library(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    write_app(installed, "import time\n\ndef rest():\n    time.sleep(1.0)\n", "resting")
    for name in ("first", "second"):
        write_app(installed, APP.replace("time.sleep(1.0)", "resting.rest()").replace("import asyncio,", "import resting, asyncio,"), name)
    tables = "".join(f'[[app]]\napp = "{name}:app"\npath = "/{name}"\n' for name in ("first", "second"))
    (tmp_path / "cavalcade.toml").write_text(tables)
    with LiveServer("", cwd=tmp_path, env={"PYTHONPATH": str(installed)}) as server:
        for name in ("second", "first"):
            get(server, f"/{name}/sleeping")
            server.wait_line(rf"was blocked for \d+ ms in site-packages/{name}\.py:\d+ sleeping\(\), GET /{name}/sleeping; ", WAIT_S)


def test_of_two_stalls_in_a_row_each_has_its_own_line_of_code(folder: Path) -> None:
    # asyncio runs the second before its timers, so that both are one silence; uvloop turns in between.
    with serve(folder, "--loop", "uvloop") as server, closing(http.client.HTTPConnection(*server.address, timeout=WAIT_S)) as other:
        pid = only_pid(server)
        with held(server, folder):
            other.request("GET", "/reading")
        assert other.getresponse().read() == b"ok"
        server.wait_line("GET /reading", WAIT_S)
    who = rf"worker 1 \(pid {pid}\) was blocked for \d+ ms in main\.py"
    assert_told(
        server,
        pid,
        # Where tasks start at once (3.12 on), the one that waited may block the loop in its turn before it was counted.
        rf"{who}:{line_of('.read()')} app\(\), GET /held; (1 request|0 requests) waited",
        rf"{who}:{line_of('here.recv(1)')} reading\(\), GET /reading; 0 requests waited",
    )


def test_the_requests_that_waited_are_counted(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name) as server, ExitStack() as stack:
        others = [stack.enter_context(closing(http.client.HTTPConnection(*server.address, timeout=WAIT_S))) for _ in range(3)]
        for other in others:
            other.request("GET", "/")
            other.getresponse().read()
        with held(server, folder):
            for other in others:
                other.request("GET", "/")
        assert [other.getresponse().read() for other in others] == [b"ok"] * 3
        server.wait_line(r"was blocked for \d+ ms in main\.py:\d+ app\(\), GET /held; 3 requests waited", WAIT_S)


def test_a_handler_that_awaits_is_never_reported_and_neither_are_ten_thousand_good_requests(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name, "--stall-warn", "0.5", "--stall-kill", "1") as server:
        pid = only_pid(server)
        waiting = threading.Thread(target=get, args=(server, "/await"))
        waiting.start()
        with socket.create_connection(server.address, WAIT_S) as client:
            for _ in range(10_000):
                client.sendall(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
                answer = client.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert answer.endswith(b"\r\n\r\nok"), answer
        waiting.join()
        assert only_pid(server) == pid
    assert_told(server, pid)


def test_garbage_collection_is_told_apart_from_the_code_it_interrupts(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name) as server:
        pid = only_pid(server)
        get(server, "/pile_up")
        get(server, "/collecting")
        server.wait_line("garbage collection", WAIT_S)
    by = r"by garbage collection \(\d+ ms, generation 2, \d{6,} objects freed\)"
    where = rf"main\.py:{line_of('def collecting') + 1} collecting\(\), GET /collecting"
    assert_told(server, pid, rf"worker 1 \(pid {pid}\) was blocked for \d+ ms {by} in {where}; 0 requests waited")


def test_a_worker_that_was_stopped_for_a_while_is_said_to_have_been(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name) as server:
        pid = only_pid(server)
        server.signal(signal.SIGSTOP, pid)
        time.sleep(0.8)  # the subject of the test
        server.signal(signal.SIGCONT, pid)
        server.wait_line("was stopped", WAIT_S)
        assert get(server) == "ok"
    assert_told(server, pid, rf"worker 1 \(pid {pid}\) was stopped \(SIGSTOP\) for \d+ ms; 0 requests waited")


def test_a_worker_that_stays_stopped_is_told_of_and_is_not_killed(folder: Path) -> None:
    with serve(folder, "--stall-kill", "1") as server:
        pid = only_pid(server)
        server.signal(signal.SIGSTOP, pid)
        server.wait_line("is left alone", WAIT_S)
        server.signal(signal.SIGCONT, pid)
        server.wait_line("was stopped", WAIT_S)
        assert only_pid(server) == pid
        assert get(server) == "ok"
    who = rf"worker 1 \(pid {pid}\)"
    still = rf"{who} is stopped \(SIGSTOP\) for \d\.\d s now and is left alone: continue it \(SIGCONT\) or kill it"
    assert_told(server, pid, still, rf"{who} was stopped \(SIGSTOP\) for \d+ ms; 0 requests waited")


def test_a_worker_for_which_there_is_no_cpu_is_said_to_be_starved_and_no_code_is_blamed(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name) as server:
        pid = only_pid(server)
        try:
            with limited("cpu", 5) as group:  # as a container whose limit is too low: for the rest of the second there is none
                group.add(pid)
                while not server.said_of(pid):
                    get(server)
        except NoControlGroup as reason:
            pytest.skip(str(reason))
        assert get(server) == "ok"
    starved = r"was starved of CPU: of \d+ ms it was ready to run for \d+ ms and had none; \d+ requests? waited"
    for line in server.said_of(pid):
        assert re.fullmatch(rf"worker 1 \(pid {pid}\) {starved}", line), line


def test_when_the_whole_server_stood_still_no_worker_is_blamed(folder: Path) -> None:
    with serve(folder, workers=2) as server:
        family = [server.pid, *server.nursery_pids, *server.worker_pids]
        for pid in family:
            server.signal(signal.SIGSTOP, pid)
        time.sleep(1.0)  # the subject of the test
        for pid in reversed(family):
            server.signal(signal.SIGCONT, pid)
        server.wait_line(r"the machine stood still or had no CPU for us for \d+ ms: the supervisor did not run either", WAIT_S)
        assert get(server) == "ok"
    assert not [line for line in server.lines if "blocked" in line or "starved" in line]


# Holds the GIL as an import that computes does, but leaves the CPU to the other tests: PyDLL does not release it.
HEAVY = """

end = time.monotonic() + 6
while time.monotonic() < end:
    ctypes.PyDLL(None).usleep(900_000)
"""


@pytest.mark.slow
def test_a_boot_that_holds_the_gil_for_six_times_stall_kill_is_not_judged(folder: Path) -> None:
    write_app(folder, APP + HEAVY)
    with serve(folder, "--stall-kill", "1") as server:
        pid = only_pid(server)
        assert float(server.wait_line(r"worker 1 .* ready after .* \(import ([\d.]+) s,")[1]) >= 6
        assert get(server) == "ok"
    assert_told(server, pid)


@pytest.mark.parametrize("path", ["/forever", "/busy_forever"])
def test_a_loop_that_is_blocked_for_too_long_is_replaced_with_its_last_stack_in_the_log(folder: Path, loop_name: str, path: str) -> None:
    with serve(folder, "--loop", loop_name, "--stall-kill", "1") as server:
        pid = only_pid(server)
        connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        connection.request("GET", path)
        server.wait_line(r"worker 2 \(pid \d+\) ready", WAIT_S)
        assert get(server) == "ok"
        connection.close()
        server.wait_line(r'  File ".*main\.py", line \d+ in app$')
    place = rf"{line_of('time.sleep(1000)')} app" if path == "/forever" else rf"{line_of('time.thread_time() < end')} spin"
    who = rf"worker 1 \(pid {pid}\)"
    given_up = rf"{who} has been blocked for \d\.\d s in main\.py:{place}\(\), GET {path}: killed \(stall_kill\)"
    died = rf"{who} was killed by us: its loop was blocked for \d\.\d s \(stall_kill\)"
    had = rf"after \d+\.\d s, \d+ MiB, 0 requests served, 1 in flight lost \(GET {path}\), generation 1"
    assert_told(server, pid, given_up, rf"{died}; {had}; replaced at once, 0 of 1 workers serve")


def test_a_worker_in_the_python_debugger_is_left_alone(folder: Path) -> None:
    write_app(
        folder, APP.replace("time.sleep(1.0)", "import bdb, pdb; pdb.Pdb(stdin=SLOW, stdout=sys.stderr).set_trace()\n    pass") + SLOW
    )
    with serve(folder, "--stall-kill", "0.5") as server:
        pid = only_pid(server)
        get(server, "/sleeping")
        assert only_pid(server) == pid
    assert_told(server, pid)


SLOW = """


class Slow:
    encoding = "utf-8"

    def readline(self):
        time.sleep(1.5)
        return "continue\\n"


SLOW = Slow()
"""


class Tracer:
    """A debugger of the system, such as gdb or strace: ptrace(2) by hand."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        try:
            self._ask(self.SEIZE)
        except PermissionError as error:
            pytest.skip(f"no debugger may be attached here: {error}")
        self._ask(self.INTERRUPT)
        os.waitpid(self._pid, os.WUNTRACED)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ask(self.DETACH)

    def _ask(self, request: int) -> None:
        if self._libc.ptrace(ctypes.c_long(request), ctypes.c_long(self._pid), None, None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace(2) as Linux has it")
def test_a_worker_that_a_debugger_of_the_system_holds_is_left_alone(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name, "--stall-kill", "0.5") as server:
        pid = only_pid(server)
        with Tracer(pid):
            assert "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
            time.sleep(1.5)  # the subject of the test
        assert get(server) == "ok"
        assert only_pid(server) == pid
    assert server.said_of(pid) == []


def test_stalls_are_not_reported_where_that_is_switched_off(folder: Path) -> None:
    with serve(folder, "--stall-warn", "0", "--stall-kill", "0") as server:
        pid = only_pid(server)
        get(server, "/sleeping")
        get(server)
    assert_told(server, pid)
