"""Blocked event loops: the log names the line, the request and those who waited, once; and blames nobody who is not to blame."""

from __future__ import annotations

import http.client
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S, get

APP = """\
import asyncio, gc, os, re, socket, sys, time


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    path = scope["path"]
    name = path.strip("/") or "fine"
    if path == "/await":
        await asyncio.sleep(1.5)
    elif path == "/forever":
        time.sleep(1000)
    elif path == "/busy_forever":
        spin(1000)
    elif name in DOINGS:
        DOINGS[name]()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def sleeping():
    time.sleep(0.6)


def spinning():
    spin(0.6)


def matching():
    re.match("(a+)+$", "a" * 24 + "b")


def reading():
    here, there = socket.socketpair()
    here.settimeout(0.6)
    try:
        here.recv(1)
    except TimeoutError:
        pass


def collecting():
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        gc.collect()


PILE = []


def piling():
    if not PILE:
        gc.disable()
        PILE.extend({"a": [n]} for n in range(1_500_000))
        gc.enable()


DOINGS = {doing.__name__: doing for doing in (sleeping, spinning, matching, reading, collecting, piling)}
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


def warnings(server: LiveServer) -> list[str]:
    return [line for line in server.lines if re.search("blocked|starved|stopped \\(|stood still", line)]


def who_blocked(line: str) -> bool:
    """Whether it blames the first worker; that a busy machine has no CPU for it is another matter."""
    return "worker 1 (" in line and "blocked" in line


def only_pid(server: LiveServer) -> int:
    (pid,) = server.worker_pids
    return pid


@pytest.mark.parametrize(
    ("doing", "text"),
    [
        ("sleeping", "time.sleep(0.6)"),
        ("spinning", "while time.thread_time() < end:"),
        ("matching", 're.match("(a+)+$"'),
        ("reading", "here.recv(1)"),
    ],
)
def test_what_blocks_the_loop_is_named_in_exactly_one_line(folder: Path, loop_name: str, doing: str, text: str) -> None:
    with serve(folder, "--loop", loop_name) as server:
        pid = only_pid(server)
        get(server, f"/{doing}")
        found = server.wait_line(r"was blocked for (\d+) ms", WAIT_S)
        assert int(found[1]) > 250
        get(server)
    (line,) = filter(who_blocked, warnings(server))
    name = "spin" if doing == "spinning" else doing
    where = rf"main\.py:(\d+) {name}\(\), GET /{doing}; 0 requests waited"
    match = re.search(rf"worker 1 \(pid {pid}\) was blocked for \d+ ms in {where}", line)
    assert match, line
    assert abs(int(match[1]) - line_of(text)) <= 1


def test_the_requests_that_waited_are_counted(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name) as server, ThreadPoolExecutor(3) as pool:
        others = [http.client.HTTPConnection(*server.address, timeout=WAIT_S) for _ in range(3)]
        for other in others:
            other.request("GET", "/")
            other.getresponse().read()
        blocking = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        blocking.request("GET", "/sleeping")
        time.sleep(0.1)  # the subject of the test: these come while the loop is blocked
        for other in others:
            other.request("GET", "/")
        assert [pool.submit(lambda one=other: one.getresponse().read()).result(WAIT_S) for other in others] == [b"ok"] * 3
        server.wait_line(r"was blocked for \d+ ms in main\.py:\d+ sleeping\(\), GET /sleeping; 3 requests waited", WAIT_S)
        for connection in (*others, blocking):
            connection.close()


def test_a_handler_that_awaits_is_never_reported_and_neither_are_many_good_requests(folder: Path, loop_name: str) -> None:
    with serve(folder, "--loop", loop_name, "--stall-warn", "0.5", "--stall-kill", "1") as server:
        waiting = threading.Thread(target=get, args=(server, "/await"))
        waiting.start()
        connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        for _ in range(2000):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"ok"
        waiting.join()
        connection.close()
        assert len(server.worker_pids) == 1
    assert not [line for line in warnings(server) if who_blocked(line)]


def test_garbage_collection_is_told_apart_from_the_code_it_interrupts(folder: Path) -> None:
    with serve(folder) as server:
        get(server, "/collecting")
        server.wait_line(
            r"was blocked for \d+ ms by garbage collection \(\d+ ms, generation 2, \d+ objects freed\)"
            r" in main\.py:\d+ collecting\(\), GET /collecting; 0 requests waited",
            WAIT_S,
        )
    assert len([line for line in warnings(server) if who_blocked(line)]) == 1


def test_a_stopped_worker_is_called_stopped_and_is_not_killed(folder: Path) -> None:
    with serve(folder, "--stall-kill", "1") as server:
        pid = only_pid(server)
        server.signal(signal.SIGSTOP, pid)
        server.wait_line(rf"worker 1 \(pid {pid}\) is stopped \(SIGSTOP\) for 1\.\d s now and is left alone", WAIT_S)
        server.signal(signal.SIGCONT, pid)
        server.wait_line(rf"worker 1 \(pid {pid}\) was stopped \(SIGSTOP\) for \d+ ms; 0 requests waited", WAIT_S)
        assert server.worker_pids == [pid]
        assert get(server) == "ok"
    assert not [line for line in warnings(server) if who_blocked(line)]


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
    assert not [line for line in warnings(server) if "blocked" in line]


def test_a_boot_that_holds_the_gil_is_not_judged(folder: Path) -> None:
    source = APP + "\n\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n    re.match('(a+)+$', 'a' * 20 + 'b')\n"
    write_app(folder, source)
    with serve(folder, "--stall-kill", "1") as server:
        assert get(server) == "ok"
    assert not [line for line in warnings(server) if who_blocked(line)]


@pytest.mark.parametrize("path", ["/forever", "/busy_forever"])
def test_a_loop_that_is_blocked_for_too_long_is_replaced_with_its_last_stack_in_the_log(folder: Path, loop_name: str, path: str) -> None:
    with serve(folder, "--loop", loop_name, "--stall-kill", "1") as server:
        pid = only_pid(server)
        connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        connection.request("GET", path)
        name = "app" if path == "/forever" else "spin"
        who = rf"worker 1 \(pid {pid}\)"
        server.wait_line(rf"{who} has been blocked for 1\.\d s in main\.py:\d+ {name}\(\), GET {path}: killed \(stall_kill\)", WAIT_S)
        server.wait_line(r'File ".*main.py", line \d+ in app')
        died = r"was killed by us: its loop was blocked for 1\.\d s \(stall_kill\); after "
        server.wait_line(rf"{who} {died}.*, 1 in flight lost \(GET {path}\), generation 1; replaced at once", WAIT_S)
        server.wait_line(r"worker 2 \(pid \d+\) ready", WAIT_S)
        assert get(server) == "ok"
        connection.close()
    assert len([line for line in warnings(server) if who_blocked(line)]) == 2  # that it is killed, and that it is dead


def test_a_worker_in_the_python_debugger_is_left_alone(folder: Path) -> None:
    write_app(
        folder, APP.replace("time.sleep(0.6)", "import bdb, pdb; pdb.Pdb(stdin=SLOW, stdout=sys.stderr).set_trace()\n    pass") + SLOW
    )
    with serve(folder, "--stall-kill", "0.5") as server:
        pid = only_pid(server)
        get(server, "/sleeping")
        assert server.worker_pids == [pid]
    assert not [line for line in warnings(server) if who_blocked(line)]


SLOW = """


class Slow:
    encoding = "utf-8"

    def readline(self):
        time.sleep(1.5)
        return "continue\\n"


SLOW = Slow()
"""


def test_stalls_are_not_reported_where_that_is_switched_off(folder: Path) -> None:
    with serve(folder, "--stall-warn", "0", "--stall-kill", "0") as server:
        get(server, "/sleeping")
        get(server)
    assert not [line for line in warnings(server) if who_blocked(line)]
