"""The ways to stop: TERM, INT, once more, for one process or for all of them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from cavalcade.testing.clients import WAIT_S, Slow, get, processes, wait_gone


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda signum: signum.name)
def test_a_stop_ends_with_0_and_runs_every_lifespan_shutdown(project: Any, signum: int, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        server.stop(signum)
    assert len(project.lines("shutdowns")) == 2
    assert "exit code 0" in server.lines[-1]


def test_a_term_waits_for_the_request_in_flight(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        slow = Slow(server)
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: stopping")
        project.touch("finish")
        assert slow.rest() == b"finished"
        server.wait_exit(0)


def test_what_is_not_finished_within_the_grace_is_cancelled_and_named(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, "--graceful-timeout", "1") as server:
        slow = Slow(server)
        server.signal(signal.SIGTERM)
        server.wait_line(r"1 cancelled at the end of its grace: .*/slow", WAIT_S)
        server.wait_exit(0)
        slow.close()
    assert len(project.lines("shutdowns")) == 2


def test_a_second_signal_cancels_what_is_in_flight(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        slow = Slow(server)
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: stopping")
        server.signal(signal.SIGINT)
        server.wait_line("SIGINT again: requests in flight are cancelled")
        server.wait_exit(1)
        slow.close()
    assert len(project.lines("shutdowns")) == 2


def test_a_quick_stop_shortens_the_drain_of_a_reload_that_is_under_way(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, workers=1) as server:
        slow = Slow(server)
        server.signal(signal.SIGHUP)
        server.wait_line("reloaded in .* of generation 2", WAIT_S)
        server.signal(signal.SIGINT)
        server.wait_line(r"worker 1 \(pid \d+\): 1 cancelled at the end of its grace: .*/slow", WAIT_S)
        server.wait_exit(0)
        slow.close()
    assert len(project.lines("shutdowns")) == 2


def test_a_worker_that_will_not_go_is_killed_and_the_exit_code_says_so(project: Any) -> None:
    with project.server("--graceful-timeout", "0.5", workers=1) as server:
        slow = Slow(server, "/block", b"blocked")
        server.signal(signal.SIGTERM)
        server.wait_line(r"worker 1 \(pid \d+\) has not left .* killed", WAIT_S)
        server.wait_exit(1)
        slow.close()


def test_a_third_signal_kills_at_once(project: Any) -> None:
    with project.server(workers=1) as server:
        slow = Slow(server, "/block", b"blocked")
        for signum, answer in ((signal.SIGTERM, "stopping"), (signal.SIGINT, "cancelled"), (signal.SIGTERM, "killing")):
            server.signal(signum)
            server.wait_line(answer)
        began = time.monotonic()
        server.wait_exit(1)
        assert time.monotonic() - began < 10.0  # and not the rest of the grace, 30 s
        slow.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_signal_to_the_whole_group_is_one_stop_and_no_traceback(project: Any, signum: int, loop_name: str) -> None:
    """Ctrl-C in a terminal, and the platforms that signal every process."""
    with project.server("--loop", loop_name) as server:
        slow = Slow(server)
        os.killpg(server.pid, signum)
        server.wait_line("stopping, 2 workers")
        project.touch("finish")
        assert slow.rest() == b"finished"
        server.wait_exit(0)
    assert not any("Traceback" in line for line in server.lines)
    assert len(project.lines("shutdowns")) >= 2


# -- a supervisor that is no more ----------------------------------------------------------------------------------------


def test_when_the_supervisor_is_killed_every_process_goes_and_finishes_first(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        family = processes(server)
        slow = Slow(server)
        server.signal(signal.SIGKILL)
        server.wait_line("the supervisor is gone; draining", WAIT_S)
        project.touch("finish")
        assert slow.rest() == b"finished"
        wait_gone(family)
        server.wait_exit(-signal.SIGKILL)
    assert len(project.lines("shutdowns")) == 2


def test_a_worker_that_hangs_when_the_supervisor_is_killed_is_killed_by_the_nursery(project: Any) -> None:
    with project.server("--graceful-timeout", "0.5", workers=1) as server:
        family = processes(server)
        slow = Slow(server, "/block", b"blocked")
        server.signal(signal.SIGKILL)
        wait_gone(family)
        slow.close()
        server.wait_exit(-signal.SIGKILL)


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_supervisor_killed_during_the_import_leaves_nobody(project: Any, preload: bool) -> None:
    project.deploy(gated=True)
    options = ["--graceful-timeout", "0.5", *(["--preload"] if preload else [])]
    with project.server(*options, ready=False) as server:
        server.wait_line("^importing", WAIT_S)
        family = processes(server)
        server.signal(signal.SIGKILL)
        wait_gone(family)
        server.wait_exit(-signal.SIGKILL)


# -- strangers -----------------------------------------------------------------------------------------------------------


def test_orphans_of_the_app_are_reaped_and_not_taken_for_workers(project: Any) -> None:
    with project.server() as server:
        orphan = int(get(server, "/orphan"))
        try:
            psutil.Process(orphan).wait(WAIT_S)  # a zombie would stay in the list for ever
        except psutil.NoSuchProcess:
            pass
        assert len(server.worker_pids) == 2
    assert not any("died" in line or "killed" in line for line in server.lines)
