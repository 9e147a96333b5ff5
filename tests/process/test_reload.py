"""SIGHUP: the new code takes over worker by worker, or not at all; nobody notices either."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, Load, Slow, get

Loaded = Callable[[LiveServer], Load]


def reload(server: LiveServer, generation: int) -> None:
    """HUP, and wait until the new code has taken over: whoever connects from here on meets nothing else."""
    mark = server.mark()
    server.signal(signal.SIGHUP)
    server.wait_line(rf"reloaded in .* of generation {generation}\b", WAIT_S, after=mark)


def wait_left(server: LiveServer) -> None:
    """Wait until every worker that drains has left: until then it may still answer."""
    for line in server.lines:
        for number in re.findall(r"worker (\d+) \(pid \d+\) drains", line):
            server.wait_line(rf"worker {number} \(pid \d+\) has left", WAIT_S)


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_reload_serves_the_new_code_and_loses_no_request(project: Any, load: Loaded, loop_name: str, preload: bool) -> None:
    with project.server("--loop", loop_name, *(["--preload"] if preload else [])) as server:
        clients = load(server)
        for generation in (2, 3, 4):
            project.deploy(f"v{generation}")
            reload(server, generation)
            assert get(server) == f"v{generation}"
        clients.stop()
        assert clients.failures == []
        assert set(clients.answers) <= {"v1", "v2", "v3", "v4"}
        assert len(server.nursery_pids) <= 2  # the last may still be on its way out


def test_each_new_worker_is_ready_before_an_old_one_drains(project: Any) -> None:
    with project.server(workers=3) as server:
        reload(server, 2)
    story = [line for line in server.lines if re.search(r"generation 2; |has left", line)]
    replaced = [re.search(r"worker (\d) \(pid \d+\) ready .* generation 2; worker (\d) \(pid \d+\) drains", line) for line in story]
    assert [match.groups() for match in replaced if match] == [("4", "1"), ("5", "2"), ("6", "3")]


def test_a_request_in_flight_is_finished_by_the_old_code(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, workers=1) as server:
        slow = Slow(server)
        project.deploy("v2")
        reload(server, 2)
        assert get(server) == "v2"
        project.touch("finish")
        assert slow.rest() == b"finished"


BROKEN = {
    "import error": {"prologue": "import notinstalled"},
    "sys.exit(0) at import": {"prologue": "sys.exit(0)"},
    "os._exit(0) at import": {"prologue": "os._exit(0)"},
    "segfault at import": {"prologue": "import ctypes; ctypes.string_at(0)"},
    "lifespan raises": {"startup": "raise RuntimeError('no database')"},
    "lifespan hangs": {"startup": "await asyncio.sleep(1000)"},
}


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_deploy_is_refused_and_the_corrected_one_accepted(project: Any, load: Loaded, how: str, preload: bool) -> None:
    # The old code and the nursery must come up well within the boot timeout, on a busy machine too; only the hanging one waits for it.
    limit = ["--boot-timeout", "8"] if how == "lifespan hangs" else []
    with project.server(*limit, *(["--preload"] if preload else [])) as server:
        clients = load(server)
        project.deploy("v2", **BROKEN[how])
        server.signal(signal.SIGHUP)
        server.wait_line("error .*Reload refused: ", WAIT_S)
        server.wait_line("generation 2 is removed, generation 1 serves on")
        assert get(server) == "v1"
        project.deploy("v3")
        reload(server, 3)
        assert get(server) == "v3"
        clients.stop()
        assert clients.failures == []
        assert set(clients.answers) <= {"v1", "v3"}


def test_a_deploy_that_breaks_half_way_goes_back_to_the_old_code(project: Any, load: Loaded) -> None:
    with project.server("--preload", workers=3) as server:
        clients = load(server)
        # The second worker of the new code fails.
        counting = "count = HERE / 'count'; count.open('a').write('x'); n = len(count.read_text())"
        project.deploy("v2", startup=f"{counting}\n    if n == 2: raise RuntimeError('no database')")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line("Reload refused: .*no database", WAIT_S)
        server.wait_line(r"ready after .*, generation 1; worker 4 \(pid \d+\) drains", WAIT_S, after=mark)
        wait_left(server)
        assert {get(server) for _ in range(12)} == {"v1"}
        clients.stop()
        assert clients.failures == []


def test_hups_during_a_reload_are_followed_by_one_more_reload_with_the_newest_code(project: Any) -> None:
    with project.server() as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGHUP)
        server.wait_line("^importing v2", WAIT_S)
        for _ in range(3):
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("generation 2 is on its way; one more reload follows", after=mark)
        project.deploy("v3")
        project.touch("gate")
        server.wait_line("reloaded in .* of generation 3", WAIT_S)
        assert get(server) == "v3"
    assert not any("generation 4" in line for line in server.lines)


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_term_during_a_reload_is_obeyed_at_once(project: Any, preload: bool, loop_name: str) -> None:
    with project.server("--loop", loop_name, *(["--preload"] if preload else [])) as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGHUP)
        server.wait_line("^importing v2", WAIT_S)
        server.stop(signal.SIGTERM)
    assert len(project.lines("shutdowns")) == 2  # the lifespan of each old worker


def test_a_new_worker_killed_during_a_reload_means_that_it_is_refused(project: Any) -> None:
    with project.server() as server:
        before = set(server.worker_pids)
        project.deploy("v2", gated=True)
        server.signal(signal.SIGHUP)
        server.wait_line("^importing v2", WAIT_S)
        (new,) = set(server.worker_pids) - before
        server.signal(signal.SIGKILL, new)
        server.wait_line("Reload refused: worker 3 .* was killed by SIGKILL before it was ready", WAIT_S)
        assert get(server) == "v1"


def test_a_reload_leaves_no_process_of_the_old_code(project: Any) -> None:
    with project.server() as server:
        old: list[int] = []
        for generation in (2, 3):
            old += server.nursery_pids
            reload(server, generation)
        wait_left(server)
        # The quit of a nursery is not logged; its pid goes.
        for pid in old:
            wait_pid_gone(pid)
        assert len(server.nursery_pids) == 1


def wait_pid_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(WAIT_S)
    except psutil.NoSuchProcess:
        pass
