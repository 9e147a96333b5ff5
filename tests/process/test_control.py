"""The control socket and the commands that use it, with a real server: every wish is answered once, with what has become of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from cavalcade.cli.instances import Choice, Instance, find
from cavalcade.cli.main import main
from cavalcade.errors import ChangeRefused, ControlError
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.status import Status
from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, Load, get, processes, wait_gone

Loaded = Callable[[LiveServer], Load]

# The second worker of this code that starts does not: a broken deploy that only shows half way.
SECOND_FAILS = "count = HERE / 'count'; count.open('a').write('x')\n    if len(count.read_text()) == 2: raise RuntimeError('no database')"


def instance(project: Any) -> Instance:
    return find(Choice(str(project.folder / "c.sock")), {})


def status(project: Any) -> Status:
    return instance(project).status


def until(project: Any, true: Callable[[Status], bool]) -> Status:
    """Ask until it is so. Every question is a round trip, so this does not spin."""
    deadline = monotonic() + WAIT_S
    while monotonic() < deadline:
        now = status(project)
        if true(now):
            return now
    raise AssertionError(f"it never came true: {now}")


def command(project: Any, *words: str) -> int:
    return main([*words, "--control", str(project.folder / "c.sock")])


def serve(project: Any, *options: str, workers: int = 2, ready: bool = True) -> LiveServer:
    server = project.server("--control", "c.sock", *options, workers=workers, ready=ready)
    assert isinstance(server, LiveServer)
    return server


class Asked:
    """Wishes that wait in threads of their own."""

    def __init__(self, project: Any) -> None:
        self._instance = instance(project)
        self._pool = ThreadPoolExecutor(8)

    def post(self, *words: str, **query: object) -> Future[Any]:
        return self._pool.submit(self._instance.post, *words, **query)


class Watch:
    """Asks for the status all the time, and keeps the fewest ready workers that there ever were."""

    def __init__(self, project: Any) -> None:
        self.fewest = 10**6
        self.seen = 0
        self._project = project
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.is_set():
            self.fewest = min(self.fewest, status(self._project).workers_ready)
            self.seen += 1

    def stop(self) -> None:
        self._over.set()
        self._thread.join(WAIT_S)


# -- status ----------------------------------------------------------------------------------------------------------------


def test_status_tells_of_the_server_and_of_every_worker(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project, "--name", "shop") as server:
        for _ in range(5):
            get(server)
        # Workers count on while they are looked at, one after the other.
        now = until(project, lambda now: now.totals["requests"] == 5 == sum(worker.requests for worker in now.workers))
        assert (now.name, now.app, now.pid, now.listeners) == ("shop", "main:app", server.pid, [server.url])
        assert (now.stage, now.ready, now.degraded, now.generation) == ("serving", True, False, 1)
        assert (now.workers_wanted, now.workers_ready) == (2, 2)
        assert sorted(worker.pid for worker in now.workers) == server.worker_pids
        assert [worker.phase for worker in now.workers] == ["ready", "ready"]
        assert now.last_reload is None
        assert command(project, "status") == 0
        text = capsys.readouterr().out
        assert text.startswith("shop (main:app): serving, up ")
        assert "2 of 2 workers ready, generation 1" in text
        assert all(str(pid) in text for pid in server.worker_pids)
        assert command(project, "status", "--json") == 0
        assert json.loads(capsys.readouterr().out)["totals"]["status_2xx"] == 5


def test_a_dead_workers_requests_stay_in_the_totals(project: Any) -> None:
    with serve(project, workers=1) as server:
        get(server)
        until(project, lambda now: now.totals["requests"] == 1)
        server.signal(signal.SIGKILL, server.worker_pids[0])
        now = until(project, lambda now: [worker.id for worker in now.workers] == [2] and now.ready)
        assert now.totals["requests"] == 1
        assert now.workers[0].requests == 0


# -- reload ----------------------------------------------------------------------------------------------------------------


def test_reload_waits_for_the_new_code(project: Any, load: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        clients = load(server)
        for generation in (2, 3):
            project.deploy(f"v{generation}")
            assert command(project, "reload") == 0
            assert f": 2 workers of generation {generation}" in capsys.readouterr().out
            assert get(server) == f"v{generation}"
        clients.stop()
        assert clients.failures == []
        last = status(project).last_reload
        assert last is not None
        assert last.ok


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_refused_reload_exits_with_3_and_shows_the_apps_traceback(
    project: Any, load: Loaded, capsys: pytest.CaptureFixture[str], preload: bool
) -> None:
    with serve(project, *(["--preload"] if preload else [])) as server:
        clients = load(server)
        project.deploy("v2", prologue="import notinstalled")
        assert command(project, "reload") == 3
        said = capsys.readouterr().err
        assert "Reload refused: " in said
        assert "main.py" in said
        assert "import notinstalled" in said
        logged = server.wait_line("error .*(Reload refused: .*)")[1]
        assert logged in said  # as the server's log has it
        assert get(server) == "v1"
        clients.stop()
        assert clients.failures == []
        last = status(project).last_reload
        assert last is not None
        assert not last.ok


@pytest.mark.parametrize("preload", [False, True], ids=["each worker imports", "preload"])
def test_a_deploy_that_fails_half_way_is_taken_back_whole_and_loses_nothing(
    project: Any, load: Loaded, capsys: pytest.CaptureFixture[str], preload: bool
) -> None:
    with serve(project, *(["--preload"] if preload else []), workers=3) as server:
        clients = load(server)
        watch = Watch(project)
        project.deploy("v2", startup=SECOND_FAILS)
        assert command(project, "reload") == 3
        assert "no database" in capsys.readouterr().err
        back = until(project, lambda now: len(now.workers) == 3 and now.workers_ready == 3 and {w.generation for w in now.workers} == {1})
        assert back.generation == 1
        assert not back.degraded
        watch.stop()
        clients.stop()
        assert clients.failures == []
        assert watch.fewest == 3
        if preload:  # else a worker forked now imports what is on the disk now
            assert {get(server) for _ in range(12)} == {"v1"}


def test_reloads_wished_for_during_a_reload_are_one_more_after_it(project: Any) -> None:
    with serve(project) as server:
        asked = Asked(project)
        project.deploy("v2", gated=True)
        first = asked.post("reload")
        server.wait_line("^importing v2", WAIT_S)
        others = []
        for _ in range(2):
            mark = server.mark()
            others.append(asked.post("reload"))
            server.wait_line("control socket: generation 2 is on its way; one more reload follows", after=mark)
        project.deploy("v3")
        project.touch("gate")
        assert first.result(WAIT_S).generation == 2
        assert [other.result(WAIT_S).generation for other in others] == [3, 3]
        assert get(server) == "v3"
        assert status(project).generation == 3


def test_a_reload_wished_for_during_the_start_is_answered_after_it(project: Any) -> None:
    project.deploy("v1", gated=True)
    with serve(project, ready=False) as server:
        server.wait_line("^importing v1", WAIT_S)
        assert status(project).stage == "starting"
        assert not status(project).ready
        reload = Asked(project).post("reload")
        server.wait_line("control socket: a reload follows when the start is done")
        server.signal(signal.SIGHUP)  # the same by signal: both are one
        server.wait_line("SIGHUP: a reload follows when the start is done")
        project.touch("gate")
        assert reload.result(WAIT_S).generation == 2
        server.stop()
    assert not any("generation 3" in line for line in server.lines)


def test_a_term_answers_whoever_waits(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        asked = Asked(project)
        project.deploy("v2", gated=True)
        waiting = [asked.post("reload"), asked.post("scale", workers=5), asked.post("workers", "all", "recycle")]
        server.wait_line("^importing v2", WAIT_S)
        until(project, lambda now: now.workers_wanted == 5 and any(worker.retiring for worker in now.workers))
        server.signal(signal.SIGTERM)
        for each in waiting:
            with pytest.raises(ControlError, match=r"^The server stops\.$"):
                each.result(WAIT_S)
        server.wait_exit(0)
    assert command(project, "reload") == 1
    assert "There is no control socket" in capsys.readouterr().err


def test_one_that_does_not_wait_is_told_that_it_has_begun(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        project.deploy("v2")
        assert command(project, "reload", "--no-wait") == 0
        assert "It has begun" in capsys.readouterr().out
        server.wait_line("reloaded in", WAIT_S)


def test_a_client_that_leaves_before_its_answer_does_no_harm(project: Any) -> None:
    with serve(project) as server:
        project.deploy("v2", gated=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(project.folder / "c.sock"))
            client.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_line("^importing v2", WAIT_S)
        project.touch("gate")
        server.wait_line("reloaded in", WAIT_S)
        assert status(project).generation == 2
    assert not any("error" in line for line in server.lines)


# -- scale -------------------------------------------------------------------------------------------------------------------


def test_scale_waits_until_so_many_serve_and_loses_nothing(project: Any, load: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        clients = load(server)
        for words, workers in ((["5"], 5), (["-3"], 2), (["+1"], 3), (["3"], 3)):
            assert command(project, "scale", *words) == 0
            assert capsys.readouterr().out == f"{workers} workers serve\n"
            now = status(project)
            assert (now.workers_wanted, now.workers_ready) == (workers, workers)
        clients.stop()
        assert clients.failures == []


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("0", "one worker is the least"), ("-2", "one worker is the least"), ("513", "512 is the most workers")],
)
def test_what_cannot_be_is_refused_with_2(project: Any, capsys: pytest.CaptureFixture[str], wanted: str, why: str) -> None:
    with serve(project) as server:
        assert command(project, "scale", wanted) == 2
        assert why in capsys.readouterr().err
        assert len(server.worker_pids) == 2


def test_ttou_to_zero_is_refused(project: Any) -> None:
    with serve(project, workers=1) as server:
        server.signal(signal.SIGTTOU)
        server.wait_line("SIGTTOU: refused, one worker is the least")
        assert status(project).workers_ready == 1


def test_more_workers_that_do_not_start_are_not_wanted_any_more(project: Any, load: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        clients = load(server)
        project.deploy("v2", startup=SECOND_FAILS)  # one of the two starts
        assert command(project, "scale", "4") == 3
        said = capsys.readouterr().err
        assert "Scaling refused: worker" in said
        assert "no database" in said
        now = until(project, lambda now: len(now.workers) == 2)
        assert (now.workers_wanted, now.workers_ready, now.degraded) == (2, 2, False)
        clients.stop()
        assert clients.failures == []
        assert {get(server) for _ in range(8)} == {"v1"}


def test_of_two_wishes_the_later_holds(project: Any) -> None:
    with serve(project) as server:
        asked = Asked(project)
        project.deploy("v2", gated=True)
        first = asked.post("scale", workers=4)
        server.wait_line("^importing v2", WAIT_S)
        second = asked.post("scale", workers=3)
        with pytest.raises(Exception, match="Overtaken: 3 workers are wanted now"):
            first.result(WAIT_S)
        project.touch("gate")
        assert second.result(WAIT_S).workers == 3


# -- recycle -----------------------------------------------------------------------------------------------------------------


def test_recycle_all_replaces_every_worker_with_never_fewer_than_wanted(
    project: Any, load: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(project, workers=3) as server:
        clients = load(server)
        watch = Watch(project)
        before = set(server.worker_pids)
        assert command(project, "recycle", "all") == 0
        assert capsys.readouterr().out == "3 workers replaced\n"
        ready = {worker.pid for worker in status(project).workers if worker.phase == "ready"}
        assert len(ready) == 3
        assert not ready & before
        watch.stop()
        clients.stop()
        assert clients.failures == []
        assert watch.fewest == 3
        assert watch.seen > 0


def test_recycle_one_replaces_only_that_one(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project):
        assert command(project, "recycle", "1") == 0
        assert [worker.id for worker in status(project).workers if worker.phase == "ready"] == [2, 3]
        assert command(project, "recycle", "77") == 2
        assert "There is no worker 77." in capsys.readouterr().err


def test_a_replacement_that_does_not_start_is_given_up_and_the_worker_serves_on(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        project.deploy("v2", startup="raise RuntimeError('no database')")
        assert command(project, "recycle", "all") == 3
        assert "Replacement refused: worker 3" in capsys.readouterr().err
        now = until(project, lambda now: len(now.workers) == 2)
        assert [(worker.id, worker.phase, worker.retiring) for worker in now.workers] == [(1, "ready", ""), (2, "ready", "")]
        assert get(server) == "v1"


# -- stop --------------------------------------------------------------------------------------------------------------------


def test_stop_waits_until_the_server_is_gone(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(project) as server:
        assert command(project, "stop") == 0
        assert capsys.readouterr().out == "stopped, exit code 0\n"
        server.wait_exit(0)
    assert len(project.lines("shutdowns")) == 2
    assert not (project.folder / "c.sock").exists()


# -- the socket --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory where only the servers of this test are."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [tmp_path / "cavalcade"])
    return tmp_path / "cavalcade"


def test_the_socket_is_private_and_gone_with_the_server(project: Any, runtime: Path) -> None:
    with project.server("--name", "my shop!") as server:
        metrics, path = sorted(runtime.iterdir())
        assert metrics.name.startswith("metrics-")  # of the app, whether it has any or not
        assert stat.S_IMODE(metrics.stat().st_mode) == 0o700
        assert path.name == f"my-shop-{server.pid}.sock"
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(runtime.iterdir()) == []


def test_the_one_server_that_runs_is_found_and_among_several_one_has_to_be_named(
    project: Any, runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reload"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("x No running server was found.\n")
    assert str(runtime) in said
    with project.server() as first:
        assert main(["reload"]) == 0
        with project.server("--name", "other", workers=1) as second:
            capsys.readouterr()
            assert main(["scale", "2"]) == 2
            said = capsys.readouterr().err
            assert "2 servers are running; which one is meant?" in said
            assert f"main:app, pid {first.pid}, {first.url}" in said
            assert f"other (main:app), pid {second.pid}, {second.url}" in said
            assert main(["scale", "3", "--name", "other"]) == 0
            assert main(["scale", "4", "--pid", str(first.pid)]) == 0
            assert (len(second.worker_pids), len(first.worker_pids)) == (3, 4)
            assert main(["scale", "4", "--name", "nobody"]) == 1
            assert "No running server has name nobody." in capsys.readouterr().err


def test_the_socket_of_a_server_that_was_killed_is_swept_away_by_the_next(project: Any, runtime: Path) -> None:
    with project.server() as server:
        server.signal(signal.SIGKILL)
        server.wait_exit(-signal.SIGKILL)
    stale = set(runtime.iterdir())
    assert len(stale) == 2
    assert main(["status"]) == 1
    with project.server() as server:
        assert main(["status"]) == 0
        found = set(runtime.iterdir())
        assert {path.name for path in found if path.is_socket()} == {f"main-app-{server.pid}.sock"}
        assert len(found) == 2
        assert not found & stale


def test_no_server_takes_the_socket_of_another(project: Any) -> None:
    with serve(project) as first:
        with serve(project, ready=False) as second:
            second.wait_exit(3)
        assert any(f"c.sock is in use by pid {first.pid}" in line for line in second.lines), second.lines
        assert status(project).pid == first.pid


def test_off_means_that_there_is_none(project: Any, runtime: Path) -> None:
    with project.server("--control", "off"):
        assert [path for path in runtime.iterdir() if path.is_socket()] == []


def test_a_supervisor_that_dies_with_a_wish_open_is_told_from_a_refusal(project: Any) -> None:
    with serve(project) as server:
        project.deploy("v2", gated=True)
        reload = Asked(project).post("reload")
        server.wait_line("^importing v2", WAIT_S)
        family = processes(server)
        server.signal(signal.SIGKILL)
        with pytest.raises(ControlError, match="it did not answer") as caught:
            reload.result(WAIT_S)
        assert not isinstance(caught.value, ChangeRefused)
        project.touch("gate")
        wait_gone(family)
        server.wait_exit(-signal.SIGKILL)


# -- whose server, and which -----------------------------------------------------------------------------------------------


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
def test_another_user_is_refused_even_where_the_socket_file_lets_everybody_in(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.sock"
        Path(folder).chmod(0o755)
        with project.server("--control", str(path)) as server:
            path.chmod(0o666)
            for words in (["status"], ["stop"]):
                with as_user(nobody):
                    assert main([*words, "--control", str(path)]) == 1
                error = capsys.readouterr().err
                assert f"This server takes orders from user 0 and from root, not from user {nobody}." in error
                assert "-> Ask as user 0, with sudo -u for example" in error
            with as_user(nobody), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(WAIT_S)
                client.connect(str(path))
                client.sendall(b"POST /stop HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert get(server) == "v1"
            assert main(["status", "--control", str(path)]) == 0


def test_a_command_finds_the_server_that_the_projects_configuration_names(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.chdir(project.folder)
    name = f"shop{os.getpid()}"
    (project.folder / "pyproject.toml").write_text(f'[tool.cavalcade]\nname = "{name}"\n')
    with project.server(workers=1), project.server("--name", f"other{os.getpid()}", workers=1):
        assert main(["status"]) == 0
        assert capsys.readouterr().out.startswith(f"{name} (main:app): serving")
        (project.folder / "pyproject.toml").write_text('[tool.cavalcade]\nname = "nobody"\n')
        assert main(["status"]) == 1
        assert "No running server has name nobody (name in pyproject.toml:2)." in capsys.readouterr().err
