"""A thread pool whose threads are all blocked: the log names the pool, the request and the line, once; and says nothing while there are
threads enough."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S, get

APP = """\
import asyncio, contextlib, threading

import anyio.to_thread
from asgiref.sync import sync_to_async
from fastapi import FastAPI

inside = 0
lock = threading.Lock()
freed = threading.Event()


@contextlib.asynccontextmanager
async def lifespan(app):
    if {tokens}:
        anyio.to_thread.current_default_thread_limiter().total_tokens = {tokens}
    yield


app = FastAPI(lifespan=lifespan)


def enter():
    global inside
    with lock:
        inside += 1
    freed.wait()


@app.get("/reports/{{number}}")
def report(number: int):
    enter()
    return "done"


@app.get("/default")
async def default():
    await {call}
    return "done"


@app.get("/inside")
async def count():
    return inside


@app.get("/second")
async def second():
    await asyncio.sleep(1)
    return "over"


@app.get("/free")
async def free():
    freed.set()
    return "freed"
"""

FULL = " is full: "


class Client:
    """A request that has been sent, and its answer when somebody wants it."""

    def __init__(self, server: LiveServer, path: str) -> None:
        self._connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        self._connection.request("GET", path)

    def answer(self) -> bytes:
        body = self._connection.getresponse().read()
        self.close()
        return body

    def close(self) -> None:
        self._connection.close()


@contextmanager
def serving(folder: Path, loop_name: str, *, tokens: int = 0, call: str = "asyncio.to_thread(enter)") -> Iterator[LiveServer]:
    write_app(folder, APP.format(tokens=tokens, call=call))
    with LiveServer("main:app", "--no-access-log", "--loop", loop_name, cwd=folder) as server:
        yield server


def block(server: LiveServer, path: str, count: int) -> list[Client]:
    """So many requests, each of which has a thread when this returns."""
    clients = [Client(server, path.format(number)) for number in range(count)]
    while int(get(server, "/inside")) < count:
        pass
    return clients


def full_lines(server: LiveServer) -> list[str]:
    return [line.split("warning  ")[1] for line in server.lines if FULL in line]


def test_the_41st_sync_endpoint_is_named_once_and_40_are_nothing_to_speak_of(tmp_path: Path, loop_name: str) -> None:
    with serving(tmp_path, loop_name) as server:
        clients = block(server, "/reports/{}", 40)
        get(server, "/second")
        assert not full_lines(server)
        clients.append(Client(server, "/reports/41"))
        server.wait_line(FULL, WAIT_S)
        get(server, "/second")
        (line,) = full_lines(server)
        all_busy = r"all 40 threads are busy, all with GET /reports/\{number\} in main\.py:26 enter\(\)"
        who = rf"worker 1 \(pid {server.worker_pids[0]}\)"
        assert re.fullmatch(rf"{who}: AnyIO's pool is full: {all_busy}; 1 call waits for one, for 0\.[3-9] s and longer", line)
        server.wait_line(
            r"-> Sync endpoints and dependencies need a thread each: .*\.current_default_thread_limiter\(\)\.total_tokens", WAIT_S
        )
        assert get(server, "/free") == '"freed"'
        assert [client.answer() for client in clients] == [b'"done"'] * 41
        server.wait_line(r"AnyIO's pool has free threads again, after \d+\.\d s; at most 1 call waited at a time", WAIT_S)
        assert len(full_lines(server)) == 1


def test_a_pool_of_another_size_is_named_with_that_size(tmp_path: Path) -> None:
    with serving(tmp_path, "auto", tokens=3) as server:
        clients = block(server, "/reports/{}", 3)
        clients += [Client(server, "/reports/4") for _ in range(2)]
        server.wait_line("AnyIO's pool is full: all 3 threads are busy, all with .*; 2 calls wait for one", WAIT_S)
        get(server, "/free")
        assert [client.answer() for client in clients] == [b'"done"'] * 5


@pytest.mark.parametrize("call", ["asyncio.to_thread(enter)", "asyncio.get_running_loop().run_in_executor(None, enter)"])
def test_the_loops_default_executor_is_watched_too(tmp_path: Path, loop_name: str, call: str) -> None:
    with serving(tmp_path, loop_name, call=call) as server:
        size = executor_size()
        clients = block(server, "/default", size)
        get(server, "/second")
        assert not full_lines(server)
        clients.append(Client(server, "/default"))
        all_busy = rf"all {size} threads are busy, all with GET /default in main\.py:26 enter\(\)"
        server.wait_line(rf"the loop's default executor is full: {all_busy}; 1 call waits", WAIT_S)
        get(server, "/free")
        assert [client.answer() for client in clients] == [b'"done"'] * (size + 1)
        server.wait_line("the loop's default executor has free threads again", WAIT_S)
        assert len(full_lines(server)) == 1


def test_the_one_thread_of_sync_to_async_is_watched_too(tmp_path: Path) -> None:
    with serving(tmp_path, "auto", call="sync_to_async(enter)()") as server:
        clients = block(server, "/default", 1)
        clients += [Client(server, "/default") for _ in range(3)]
        all_busy = r"its one thread is busy, all with GET /default in main\.py:26 enter\(\)"
        server.wait_line(rf"asgiref's sync_to_async is full: {all_busy}; 3 calls wait", WAIT_S)
        get(server, "/free")
        assert [client.answer() for client in clients] == [b'"done"'] * 4


def test_a_server_stops_in_time_while_a_pool_is_full_and_is_told_of(tmp_path: Path, loop_name: str) -> None:
    with serving(tmp_path, loop_name, tokens=1) as server:
        clients = block(server, "/reports/{}", 1)
        clients.append(Client(server, "/reports/2"))
        server.wait_line(FULL, WAIT_S)
        server.signal(2)
        server.wait_line("cancelled at the end of its grace", WAIT_S)
        server.wait_exit(0)
        for client in clients:
            client.close()
        assert not [line for line in server.lines if "Traceback" in line or "never retrieved" in line]


def test_stall_warn_0_says_nothing_of_pools_either(tmp_path: Path) -> None:
    write_app(tmp_path, APP.format(tokens=1, call="asyncio.to_thread(enter)"))
    with LiveServer("main:app", "--no-access-log", "--stall-warn", "0", cwd=tmp_path) as server:
        clients = block(server, "/reports/{}", 1)
        clients.append(Client(server, "/reports/2"))
        get(server, "/second")
        assert not full_lines(server)
        get(server, "/free")
        assert [client.answer() for client in clients] == [b'"done"'] * 2


def executor_size() -> int:
    with ThreadPoolExecutor() as executor:
        return executor._max_workers
