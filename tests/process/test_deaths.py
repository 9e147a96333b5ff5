"""Processes that die: whoever it is, the server serves on, says what happened, and is whole again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, Slow, get, processes


def pid_of(server: LiveServer, number: int) -> int:
    """The pid of a worker, as the server has told it."""
    return int(server.wait_line(rf"worker {number} \(pid (\d+)\) ready", WAIT_S)[1])


def ask_until_gone(server: LiveServer, path: str) -> None:
    """A request that ends its worker has no answer."""
    with pytest.raises(OSError):
        get(server, path)


def test_a_worker_that_is_killed_is_replaced_at_once_and_the_line_says_how_it_died(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        pid = pid_of(server, 1)
        server.signal(signal.SIGKILL, pid)
        killed_at = time.monotonic()
        server.wait_line(
            rf"worker 1 \(pid {pid}\) was killed by SIGKILL, not by us, and not by the kernel for memory: somebody has sent it; after .*, "
            r"\d+ requests? served, none in flight at its last beat, generation 1; replaced at once, 1 of 2 workers serve",
            WAIT_S,
        )
        pid_of(server, 3)
        assert time.monotonic() - killed_at < 5.0
        assert get(server) == "v1"


def test_a_worker_whose_app_calls_exit_is_reported_with_its_status(project: Any) -> None:
    with project.server() as server:
        ask_until_gone(server, "/exit?7")
        server.wait_line(
            r"worker \d \(pid \d+\) exited with status 7 by itself: something in it called os._exit.*; replaced at once", WAIT_S
        )
        pid_of(server, 3)


def test_a_crash_in_c_code_is_reported_with_the_apps_own_frames(project: Any) -> None:
    project.deploy(startup="import ctypes; loop = asyncio.get_running_loop(); loop.add_signal_handler(10, ctypes.string_at, 0)")
    with project.server() as server:
        server.signal(signal.SIGUSR1, pid_of(server, 1))
        server.wait_line(r"worker 1 \(pid \d+\) was killed by SIGSEGV: it crashed in C code; after", WAIT_S)
        server.wait_line("string_at")
        pid_of(server, 3)


def test_the_requests_that_a_dead_worker_took_along_are_named(project: Any) -> None:
    with project.server(workers=1) as server:
        pid = pid_of(server, 1)
        slow = [Slow(server), Slow(server)]
        seen = time.monotonic()
        while time.monotonic() < seen + 0.5:
            get(server)  # a few beats, in which it tells
        server.signal(signal.SIGKILL, pid)
        # What was in flight is known as of the last beat, in which the last GET / may have been on its way.
        lost = r"(2 in flight lost \(GET /slow, GET /slow\)|3 in flight lost \(GET /slow, GET /slow, (GET /|\.\.\.)\))"
        server.wait_line(rf"worker 1 .*, \d+ MiB, \d+ requests served, {lost}, generation 1", WAIT_S)
        for each in slow:
            each.close()


def memory_cgroup() -> Path | None:
    """A cgroup (version 1) of our own to limit memory in, where this machine lets us make one."""
    top = Path("/sys/fs/cgroup/memory")
    mine = top / f"cavalcade-test-{os.getpid()}"
    if not (top / "memory.oom_control").exists():
        return None
    try:
        mine.mkdir()
        (mine / "memory.limit_in_bytes").write_text(str(96 * 1024 * 1024))
    except OSError:
        return None
    return mine


def test_a_worker_that_the_kernel_kills_for_memory_is_said_to_be_out_of_memory(project: Any) -> None:
    group = memory_cgroup()
    if group is None:
        pytest.skip("no cgroup version 1 for memory may be made here")
    try:
        with project.server(workers=1) as server:
            pid = pid_of(server, 1)
            (group / "cgroup.procs").write_text(str(pid))
            counted = time.monotonic()
            while time.monotonic() < counted + 1.5:  # the supervisor looks once a second where a worker is counted
                get(server)
            ask_until_gone(server, "/hog")
            server.wait_line(
                rf"worker 1 \(pid {pid}\) was killed by SIGKILL, by the kernel: out of memory; after .*; replaced at once", WAIT_S
            )
            pid_of(server, 2)
    finally:
        group.rmdir()


def test_a_worker_that_dies_at_every_boot_is_backed_off_while_the_other_serves(project: Any) -> None:
    with project.server() as server:
        project.deploy(startup="raise RuntimeError('no database')")
        server.signal(signal.SIGKILL, pid_of(server, 1))
        server.wait_line(r"did not become ready; 2 times in a row, next try in 1 s, 1 of 2 workers serve", WAIT_S)
        server.wait_line(r"degraded: 1 of 2 workers serve")
        assert get(server) == "v1"
        server.wait_line(r"did not become ready, for the same reason as before; 3 times in a row, next try in 2 s", WAIT_S)
        assert get(server) == "v1"
        project.deploy("v1")
        server.wait_line("no longer degraded: 2 workers serve", WAIT_S)
    assert sum("Traceback" in line for line in server.lines) == 1


def test_a_worker_that_is_asked_to_go_is_replaced_first(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, workers=1) as server:
        server.signal(signal.SIGTERM, pid_of(server, 1))
        server.wait_line(r"worker 1 \(pid \d+\) retires \(SIGTERM\)")
        server.wait_line(r"worker 2 .* ready .*; worker 1 \(pid \d+\) drains", WAIT_S)
        server.wait_line(r"worker 1 \(pid \d+\) has left", WAIT_S)
        assert get(server, "/pid") == str(pid_of(server, 2))


def test_when_the_nursery_is_killed_the_workers_serve_on_and_are_still_replaced(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        (nursery,) = server.nursery_pids
        first, second = pid_of(server, 1), pid_of(server, 2)
        server.signal(signal.SIGKILL, nursery)
        server.wait_line(rf"nursery of generation 1 \(pid {nursery}\) was killed by SIGKILL; its workers serve on", WAIT_S)
        assert get(server, "/pid") in {str(first), str(second)}
        server.signal(signal.SIGKILL, first)
        # Its parent is dead, and still it is known how it ended.
        server.wait_line(rf"worker 1 \(pid {first}\) was killed by SIGKILL", WAIT_S)
        third = pid_of(server, 3)
        server.signal(signal.SIGKILL, second)
        server.wait_line(rf"worker 2 \(pid {second}\) was killed by SIGKILL", WAIT_S)
        pid_of(server, 4)
        assert get(server, "/pid") in {str(third), str(pid_of(server, 4))}


def test_a_reload_after_the_nursery_was_killed_replaces_the_workers_it_left(project: Any) -> None:
    with project.server() as server:
        server.signal(signal.SIGKILL, server.nursery_pids[0])
        server.wait_line("its workers serve on", WAIT_S)
        project.deploy("v2")
        server.signal(signal.SIGHUP)
        server.wait_line("reloaded in .* of generation 2", WAIT_S)
        assert get(server) == "v2"


def test_every_worker_killed_at_once_is_survived(project: Any) -> None:
    with project.server(workers=3) as server:
        for number in (1, 2, 3):
            server.signal(signal.SIGKILL, pid_of(server, number))
        for number in (4, 5, 6):
            pid_of(server, number)
        assert get(server) == "v1"


def test_a_stopped_worker_does_not_hold_up_the_stop_of_the_server_for_ever(project: Any) -> None:
    with project.server("--graceful-timeout", "0.5") as server:
        server.signal(signal.SIGSTOP, pid_of(server, 1))
        server.signal(signal.SIGTERM)
        server.wait_line(r"worker 1 \(pid \d+\) has not left .* killed", WAIT_S)
        server.wait_exit(1)


# -- scaling by signal ---------------------------------------------------------------------------------------------------


def test_ttin_adds_a_worker_and_ttou_drains_the_youngest_but_never_the_last(project: Any) -> None:
    with project.server(workers=1) as server:
        server.signal(signal.SIGTTIN)
        server.wait_line("SIGTTIN: .*2 workers")
        pid_of(server, 2)
        server.signal(signal.SIGTTOU)
        server.wait_line(r"SIGTTOU: .*1 worker.*worker 2 \(pid \d+\)")
        server.wait_line(r"worker 2 \(pid \d+\) has left", WAIT_S)
        server.signal(signal.SIGTTOU)
        server.wait_line("SIGTTOU: refused, one worker is the least")
        assert get(server, "/pid") == str(pid_of(server, 1))
        assert len(processes(server)) == 2  # the nursery and its worker
