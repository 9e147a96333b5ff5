"""The first start: it comes up, or it ends with exit code 3, one report, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, get, processes

OVER_S = 2.0  # from the failure to the end of the last process
PATIENCE_S = 15.0  # the same where the machine is busy: no grace (30 s) is waited for, and no boot timeout (60 s)
ROUNDS = 3  # noise spoils some of them, a fault would spoil all

RAISES = "raise RuntimeError('no database')"

# What the app does, what the report must say, and how many tracebacks there are in it.
FAILURES = {
    "import error": ("import notinstalled", r"main\.py line 1 failed: +import notinstalled", 0),
    "exception at import": (RAISES, "RuntimeError: no database", 1),
    "syntax error": ("def (", r"main\.py line 1 is not valid Python", 0),
    "sys.exit(0) at import": ("import sys; sys.exit(0)", r"called sys\.exit\(0\) while it was imported", 1),
    "os._exit(0) at import": ("import os; os._exit(0)", r"exited with status 0 ", 0),
    "segfault at import": ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV ", 1),
}


def tracebacks(server: LiveServer) -> int:
    return sum("most recent call" in line.lower() for line in server.lines)


def assert_fails(server: LiveServer, says: str) -> float:
    """It says so, once, and is gone with 3 in time; how long that took."""
    server.wait_line(says, WAIT_S)
    failed_at = time.monotonic()
    server.wait_exit(3)
    took = time.monotonic() - failed_at
    assert took < PATIENCE_S
    assert sum(" error " in line for line in server.lines) == 1
    return took


def test_a_start_that_fails_is_over_two_seconds_later(project: Any) -> None:
    project.deploy(startup=RAISES)
    took: list[float] = []
    while len(took) < ROUNDS and (not took or min(took) >= OVER_S):
        with project.server(ready=False, workers=4) as server:
            took.append(assert_fails(server, "no database"))
    assert min(took) < OVER_S, took


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_app_that_cannot_be_imported_ends_the_start_with_3_and_one_report(project: Any, failure: str, preload: bool) -> None:
    source, says, traces = FAILURES[failure]
    project.deploy_text(source + "\n")
    with project.server(*(["--preload"] if preload else []), ready=False, workers=4) as server:
        assert_fails(server, says)
    assert tracebacks(server) == traces


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_lifespan_that_raises_ends_the_start_with_3_and_one_traceback(project: Any, preload: bool, loop_name: str) -> None:
    project.deploy(startup=RAISES)
    with project.server("--loop", loop_name, *(["--preload"] if preload else []), ready=False, workers=4) as server:
        assert_fails(server, "no database")
    assert tracebacks(server) == 1


def test_a_lifespan_that_hangs_ends_the_start_at_the_boot_timeout(project: Any, loop_name: str) -> None:
    project.deploy(startup="await asyncio.sleep(1000)")
    with project.server("--loop", loop_name, "--boot-timeout", "1", ready=False, workers=3) as server:
        assert_fails(server, r"not ready within 1 s \(boot_timeout\)")


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_an_import_that_hangs_ends_the_start_at_the_boot_timeout(project: Any, preload: bool) -> None:
    project.deploy_text("import time; time.sleep(1000)\n")
    with project.server("--boot-timeout", "1", *(["--preload"] if preload else []), ready=False, workers=3) as server:
        assert_fails(server, r"not ready within 1 s \(boot_timeout\)")


def test_one_worker_that_fails_takes_those_along_that_are_ready(project: Any) -> None:
    # The first process to make the file fails; the others come up.
    prologue = "try: os.close(os.open(HERE / 'first', os.O_CREAT | os.O_EXCL)); failing = True\nexcept FileExistsError: failing = False"
    project.deploy(prologue=prologue, startup="if failing: await asyncio.sleep(1); raise RuntimeError('no database')")
    with project.server(ready=False, workers=3) as server:
        assert_fails(server, "no database")


def test_a_port_in_use_is_named_with_its_process_before_any_user_code_runs(project: Any) -> None:
    project.deploy(prologue="print('imported', file=sys.stderr)")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with project.server("--bind", f"127.0.0.1:{port}", ready=False) as server:
            server.wait_line(rf"Port {port} on 127\.0\.0\.1 is in use by pid {os.getpid()} \(", WAIT_S)
            server.wait_exit(3)
    assert not any("imported" in line for line in server.lines)


def test_a_port_held_by_another_cavalcade_names_its_supervisor(project: Any) -> None:
    with project.server() as first, project.server("--bind", f"127.0.0.1:{first.port}", ready=False) as second:
        second.wait_line(rf"in use by pid {first.pid} \(cavalcade: supervisor", WAIT_S)
        second.wait_exit(3)
        assert get(first) == "v1"


def test_the_log_tells_the_start_from_the_first_line_to_the_url(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, workers=3) as server:
        pass
    text = "\n".join(server.lines)
    assert re.search(rf"cavalcade \S+ \(.+\), CPython 3\.\S+, {loop_name}.*: main:app, 3 workers, pid {server.pid}", server.lines[0])
    assert (
        len(re.findall(r"worker \d \(pid \d+\) ready after \d+\.\d s \(import \d\.\d\d s, startup \d\.\d\d s\), generation 1", text)) == 3
    )
    assert re.search(rf"ready in \d+\.\d s: {server.url} \(3 workers, pid {server.pid}\)", text)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at /proc")
def test_processes_have_titles_that_tell_them_apart(project: Any) -> None:
    with project.server("--name", "shop", workers=1) as server:
        titles = [" ".join(process.cmdline()).strip() for process in processes(server)]
        assert titles == ["cavalcade: nursery g1 [shop]", "cavalcade: worker 1 g1 [shop]"]
        assert Path(f"/proc/{server.pid}/cmdline").read_text().strip("\0 ") == "cavalcade: supervisor [shop]"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at /proc")
def test_programs_that_the_app_starts_inherit_nothing_of_ours(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        assert get(server, "/inheritable") == ""
        assert get(server, "/ignored") == "SIGPIPE,SIGXFSZ"  # what every Python ignores


def test_a_fork_is_preceded_by_a_warning_that_names_the_threads_it_loses(project: Any) -> None:
    project.deploy(prologue="threading.Thread(target=time.sleep, args=(1000,), name='exporter', daemon=True).start()")
    with project.server("--preload") as server:
        server.wait_line("warning .*started threads, which do not exist in the workers: exporter;")
        assert get(server) == "v1"


def test_preload_imports_the_app_once_for_all_workers(project: Any, loop_name: str) -> None:
    project.deploy(prologue="(HERE / 'imports').open('a').write(f'{os.getpid()}\\n')")
    with project.server("--loop", loop_name, "--preload", workers=3) as server:
        assert project.lines("imports") == [str(pid) for pid in server.nursery_pids]
        assert get(server) == "v1"


# -- the pid file --------------------------------------------------------------------------------------------------------


def test_the_pid_file_holds_the_supervisor_and_goes_with_it(project: Any) -> None:
    path = project.folder / "server.pid"
    with project.server("--pid", str(path)) as server:
        assert path.read_text() == f"{server.pid}\n"
    assert not path.exists()


def test_a_pid_file_of_a_process_that_is_gone_or_no_server_is_replaced(project: Any) -> None:
    path = project.folder / "server.pid"
    for stale in (str(os.getpid()), "4194303", "nonsense"):
        path.write_text(stale)
        with project.server("--pid", str(path), workers=1) as server:
            assert path.read_text() == f"{server.pid}\n"


def test_a_pid_file_of_a_running_server_is_refused(project: Any) -> None:
    path = project.folder / "server.pid"
    with project.server("--pid", str(path)) as first:
        with project.server("--pid", str(path), ready=False) as second:
            second.wait_line(f"belongs to pid {first.pid}, a server that is running", WAIT_S)
            second.wait_exit(3)
        assert path.read_text() == f"{first.pid}\n"


def test_a_term_during_the_first_start_is_a_clean_stop(project: Any) -> None:
    project.deploy(gated=True)
    with project.server(ready=False) as server:
        server.wait_line("^importing", WAIT_S)
        server.stop(signal.SIGTERM)


def test_a_hup_during_the_first_start_is_followed_when_it_is_done(project: Any) -> None:
    project.deploy("v1", gated=True)
    with project.server(ready=False) as server:
        server.wait_line("^importing v1", WAIT_S)
        server.signal(signal.SIGHUP)
        server.wait_line("SIGHUP: a reload follows when the start is done")
        project.deploy("v2")
        project.touch("gate")
        server.url = server.wait_line(r"ready in .*: (http\S+)", WAIT_S)[1]
        server.wait_line("reloaded in .* of generation 2", WAIT_S)
        assert get(server) == "v2"


@pytest.mark.parametrize(
    ("startup", "where"),
    [("await asyncio.Event().wait()", r"main\.py:\d+ lifespan\(\)"), ("time.sleep(1000)", r"main\.py:\d+ lifespan\(\)")],
    ids=["awaits", "blocks"],
)
def test_a_lifespan_that_never_returns_is_reported_with_what_it_waits_for(project: Any, loop_name: str, startup: str, where: str) -> None:
    project.deploy(startup=startup)
    with project.server("--loop", loop_name, "--boot-timeout", "4", ready=False, workers=1) as server:
        server.wait_line(rf"worker 1 \(pid \d+\) was not ready within 4 s \(boot_timeout\): it is in {where}\.$", 30)
        server.wait_line(r'  File ".*main\.py", line \d+ in lifespan')
        server.wait_exit(3)
