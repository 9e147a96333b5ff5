"""Processes that die: whoever it is, the server serves on, says what happened, and is whole again."""

from __future__ import annotations

import re
import signal
import time
from typing import Any

import pytest

from cavalcade.limits import MIB
from cavalcade.testing import LiveServer
from cavalcade.testing.cgroups import NoControlGroup, limited
from cavalcade.testing.clients import WAIT_S, Slow, get, processes

REPLACED_S = 15.0  # with its boot, on a machine that may be busy; who is backed off waits for up to 30 s


def pid_of(server: LiveServer, number: int) -> int:
    """The pid of a worker, as the server has told it."""
    return int(server.wait_line(rf"worker {number} \(pid (\d+)\) ready", WAIT_S)[1])


def ask_until_gone(server: LiveServer, path: str) -> None:
    """A request that ends its worker has no answer."""
    with pytest.raises(OSError):
        get(server, path)


def assert_told(server: LiveServer, pid: int, *sentences: str) -> None:
    """What the log says of a worker is these lines, from the first word to the last, and no other. That a busy machine had no CPU
    for it is no news of the worker."""
    told = [line for line in server.said_of(pid) if "starved" not in line]
    assert len(told) == len(sentences), told
    for line, sentence in zip(told, sentences, strict=True):
        assert re.fullmatch(sentence, line), line


# A request that ends its worker at once is not known to anybody, unless a beat came between.
NONE_LOST = r"(none in flight at its last beat|1 in flight lost( \(GET /\w*\))?)"


def had(worker: int, pid: int, died: str, *, lost: str = NONE_LOST, serve: str = "1 of 2") -> str:
    after = rf"after \d+\.\d s, \d+ MiB, \d+ requests? served, {lost}, generation 1"
    return rf"worker {worker} \(pid {pid}\) {died}; {after}; replaced at once, {serve} workers serve"


def test_a_worker_that_is_killed_is_replaced_at_once_and_the_line_says_how_it_died(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        pid = pid_of(server, 1)
        server.signal(signal.SIGKILL, pid)
        server.wait_line(rf"\(pid {pid}\) was killed", WAIT_S)
        killed_at = time.monotonic()
        pid_of(server, 3)
        assert time.monotonic() - killed_at < REPLACED_S
        assert get(server) == "v1"
    how = r"was killed by SIGKILL, not by us(, and not by the kernel for memory)?: somebody has sent it"
    assert_told(server, pid, had(1, pid, how, lost="none in flight at its last beat"))


def test_a_worker_whose_app_calls_exit_is_reported_with_its_status(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, workers=1) as server:
        pid = pid_of(server, 1)
        ask_until_gone(server, "/exit")
        pid_of(server, 2)
    how = r"exited with status 1 by itself: something in it called os\._exit\(\) or ended the process"
    assert_told(server, pid, had(1, pid, how, serve="0 of 1"))


def test_a_crash_in_c_code_is_reported_with_the_apps_own_frames(project: Any, loop_name: str) -> None:
    project.deploy(startup="import ctypes; loop = asyncio.get_running_loop(); loop.add_signal_handler(10, ctypes.string_at, 0)")
    with project.server("--loop", loop_name) as server:
        pid = pid_of(server, 1)
        server.signal(signal.SIGUSR1, pid)
        pid_of(server, 3)
        server.wait_line(r'  File ".*", line \d+ in string_at$')
    assert_told(server, pid, had(1, pid, "was killed by SIGSEGV: it crashed in C code"))
    (place,) = (place for place, line in enumerate(server.lines) if "was killed by SIGSEGV" in line)
    assert server.lines[place + 1] == "Most recent call first:"


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


def test_a_worker_that_the_kernel_kills_for_memory_is_said_to_be_out_of_memory(project: Any, loop_name: str) -> None:
    try:
        with limited("memory", 96 * MIB) as group, project.server("--loop", loop_name, workers=1) as server:
            pid = pid_of(server, 1)
            group.add(pid)
            counted = time.monotonic()
            while time.monotonic() < counted + 1.5:  # the supervisor looks once a second where a worker is counted
                get(server)
            ask_until_gone(server, "/hog")
            pid_of(server, 2)
        assert_told(server, pid, had(1, pid, "was killed by SIGKILL, by the kernel: out of memory", serve="0 of 1"))
    except NoControlGroup as reason:
        pytest.skip(str(reason))


def test_a_worker_that_is_blocked_for_too_long_is_told_of_twice_that_it_is_killed_and_that_it_is_dead(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, "--stall-kill", "1", workers=1) as server:
        pid = pid_of(server, 1)
        slow = Slow(server, "/block", b"blocked")
        pid_of(server, 2)
        slow.close()
    given_up = rf"worker 1 \(pid {pid}\) has been blocked for \d\.\d s in main\.py:\d+ app\(\), GET /block: killed \(stall_kill\)"
    how = r"was killed by us: its loop was blocked for \d\.\d s \(stall_kill\)"
    assert_told(server, pid, given_up, had(1, pid, how, lost=r"1 in flight lost \(GET /block\)", serve="0 of 1"))


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
