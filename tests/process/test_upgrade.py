"""SIGUSR2: another server, of another version perhaps, takes the sockets over; or fails to, and nobody notices either."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import PAUSE_S, WAIT_S, Load, Slow, get

Loaded = Callable[[LiveServer], Load]


UPGRADED = r"upgraded: whoever connects from now on is served by pid (\d+)"


def upgrade(server: LiveServer) -> int:
    """USR2, and wait until the new server has taken over and the old one has ended with 0. Returns the new one's pid."""
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    pid = int(server.wait_line(UPGRADED, WAIT_S, after=mark)[1])
    server.wait_line(r"upgrade: took over from pid \d+", WAIT_S, after=mark)
    assert server.process.wait(WAIT_S) == 0
    return pid


def stop(pid: int) -> None:
    """TERM to a server that is not our child, and wait for its end."""
    process = psutil.Process(pid)
    process.send_signal(signal.SIGTERM)
    # Nobody may reap it: what becomes of an orphan is up to the machine that the tests run on.
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.05)


@contextlib.contextmanager
def keep_alive_load(server: LiveServer, clients: int = 4) -> Iterator[list[str]]:
    """Clients that each keep one connection, and never open another: whatever goes wrong with it is a failure."""
    failures: list[str] = []
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        connection.auto_open = False
        try:
            connection.connect()
            while not over.wait(PAUSE_S):
                connection.request("GET", "/")
                response = connection.getresponse()
                if response.status != 200 or response.read() not in (b"v1", b"v2"):
                    failures.append(f"{response.status}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        over.set()
        for thread in threads:
            thread.join(WAIT_S)


def test_an_upgrade_under_load_fails_no_request_and_closes_no_connection(project: Any, load: Loaded, loop_name: str) -> None:
    with project.server("--loop", loop_name) as server:
        with keep_alive_load(server) as failures:
            clients = load(server)
            project.deploy("v2")
            pid = upgrade(server)
            clients.answers.clear()
            assert get(server) == "v2"
            clients.stop()
        assert clients.failures == []
        assert failures == []
        assert set(clients.answers) <= {"v2", "v1"}
        assert not [line for line in server.lines if " error " in line or "Traceback" in line]
        stop(pid)
        with pytest.raises(ConnectionRefusedError):
            get(server)


def test_an_idle_connection_moves_to_the_new_server(project: Any) -> None:
    with project.server() as server:
        client = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        client.auto_open = False
        client.connect()
        client.request("GET", "/pid")
        assert int(client.getresponse().read()) in server.worker_pids
        pid = upgrade(server)
        client.request("GET", "/pid")
        new = psutil.Process(int(client.getresponse().read()))
        assert psutil.Process(pid) in new.parents()
        client.close()
        stop(pid)


def test_a_request_in_flight_is_finished_by_the_old_server(project: Any) -> None:
    with project.server() as server:
        slow = Slow(server)
        project.deploy("v2")
        server.signal(signal.SIGUSR2)
        pid = int(server.wait_line(UPGRADED, WAIT_S)[1])
        assert get(server) == "v2"
        project.touch("finish")
        assert slow.rest() == b"finished"
        assert server.process.wait(WAIT_S) == 0
        stop(pid)


def test_pid_file_socket_file_and_control_path_become_the_new_servers(project: Any, tmp_path: Path) -> None:
    path, pid_file, control = tmp_path / "web.sock", tmp_path / "pid", tmp_path / "control.sock"
    options = ["--bind", f"unix:{path}", "--pid", str(pid_file), "--control", str(control)]
    with project.server(*options) as server:
        for _ in range(2):  # an upgraded server can be upgraded
            old = int(pid_file.read_text())
            mark = server.mark()
            os.kill(old, signal.SIGUSR2)
            pid = int(server.wait_line(UPGRADED, WAIT_S, after=mark)[1])
            server.wait_line(rf"upgrade: took over from pid {old}", WAIT_S, after=mark)
            server.wait_line(rf"\[{old}\].*stopped after .* exit code 0", WAIT_S, after=mark)
            server.process.wait(WAIT_S)
            assert int(pid_file.read_text()) == pid
            for place in (path, control):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(WAIT_S)
                    client.connect(str(place))
                    client.sendall(b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    assert client.recv(12) == b"HTTP/1.1 200"
        stop(pid)
        assert not path.exists()
        assert not pid_file.exists()
        assert not control.exists()


BROKEN = {
    "the app does not import": ("import notinstalled\n", r"Upgrade refused: .*notinstalled"),
    "a worker dies at boot": ("import os; os._exit(7)\n", r"Upgrade refused: .*exited with status 7 before it was ready"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_new_server_that_cannot_start_leaves_the_old_one_serving(project: Any, load: Loaded, how: str) -> None:
    source, line = BROKEN[how]
    with project.server() as server:
        with keep_alive_load(server) as failures:
            clients = load(server)
            project.deploy_text(source)
            for _ in range(2):
                mark = server.mark()
                server.signal(signal.SIGUSR2)
                server.wait_line(line, WAIT_S, after=mark)
                server.wait_line("the new server is removed, this one serves on", WAIT_S, after=mark)
                wait_no_successor(server)
            project.deploy("v2")
            pid = upgrade(server)
            clients.stop()
        assert clients.failures == []
        assert failures == []
        stop(pid)


def is_nursery(child: psutil.Process) -> bool:
    try:
        return "nursery" in " ".join(child.cmdline()[:1])
    except psutil.NoSuchProcess:  # a zombie too has no command line any more
        return False


def wait_no_successor(server: LiveServer) -> None:
    successors = [child for child in psutil.Process(server.pid).children() if not is_nursery(child)]
    _, left = psutil.wait_procs(successors, timeout=WAIT_S)
    assert not left


def test_an_error_before_the_app_is_even_looked_at_is_told_with_its_cause_and_survived(project: Any) -> None:
    with project.server() as server:
        (project.folder / "cavalcade.toml").write_text("nonsense = 1\n")
        server.signal(signal.SIGUSR2)
        server.wait_line(r'error    Upgrade refused: cavalcade\.toml:1: unknown option "nonsense"$', WAIT_S)
        server.wait_line("the new server is removed, this one serves on", WAIT_S)
        wait_no_successor(server)
        assert get(server) == "v1"
        assert not [line for line in server.lines if "exited with status" in line]
        (project.folder / "cavalcade.toml").unlink()
        stop(upgrade(server))


def test_totals_go_on_from_where_the_old_server_was_and_count_what_it_still_finishes(project: Any, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with project.server("--control", str(control)) as server:
        for _ in range(7):
            get(server)
        slow = Slow(server)  # the eighth
        before = wait_totals(control, 7)
        project.deploy("v2")
        server.signal(signal.SIGUSR2)
        pid = int(server.wait_line(UPGRADED, WAIT_S)[1])
        server.wait_line(r"upgrade: took over from pid \d+", WAIT_S)
        during = wait_totals(control, 7)
        assert during["requests"] == 7
        assert during["bytes_sent"] >= before["bytes_sent"]
        assert get(server) == "v2"  # the ninth
        project.touch("finish")
        assert slow.rest() == b"finished"
        assert server.process.wait(WAIT_S) == 0
        after = wait_totals(control, 9)
        assert (after["requests"], after["status_2xx"]) == (9, 9)
        stop(pid)


def wait_totals(control: Path, requests: int) -> dict[str, int]:
    """What the server counts, when it has counted so many."""
    totals: dict[str, int] = {}
    until = time.monotonic() + WAIT_S
    while totals.get("requests", 0) < requests and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT_S)
            client.connect(str(control))
            client.sendall(b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            totals = json.loads(answer.partition(b"\r\n\r\n")[2])["totals"]
    return totals


def test_a_new_server_in_which_the_second_worker_fails_gives_back_what_it_has_accepted(project: Any) -> None:
    counting = "count = HERE / 'count'; count.open('a').write('x'); n = len(count.read_text())"
    with project.server() as server, keep_alive_load(server, 8) as failures:
        project.deploy("v2", startup=f"{counting}\n    if n == 2: await asyncio.sleep(0.5); raise RuntimeError('no database')")
        server.signal(signal.SIGUSR2)
        server.wait_line("Upgrade refused: .*no database", WAIT_S)
        wait_no_successor(server)
        assert {get(server) for _ in range(8)} == {"v1"}
        assert failures == []


def test_a_second_usr2_is_refused_and_a_term_stops_both(project: Any) -> None:
    with project.server() as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGUSR2)
        server.wait_line("^importing v2", WAIT_S)
        server.signal(signal.SIGUSR2)
        server.wait_line("SIGUSR2: refused, an upgrade is on its way already")
        server.stop()  # and no process of the new one is left


def test_when_the_old_server_is_killed_during_the_upgrade_the_new_one_leaves_too(project: Any) -> None:
    with project.server() as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGUSR2)
        server.wait_line("^importing v2", WAIT_S)
        server.signal(signal.SIGKILL)
        server.wait_line("upgrade: the server that was to be upgraded, .*, has stopped; this one stops too", WAIT_S)
        server.wait_line(r"stopped after .*, exit code 1", WAIT_S)
        assert server.process.wait(WAIT_S) == -signal.SIGKILL


def test_when_the_new_server_is_killed_during_the_upgrade_the_old_one_serves_on(project: Any) -> None:
    with project.server() as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGUSR2)
        server.wait_line("^importing v2", WAIT_S)
        pid = int(server.wait_line(r"upgrade: taking over from pid \d+", WAIT_S).string.split("[")[1].split("]")[0])
        os.kill(pid, signal.SIGKILL)
        server.wait_line("Upgrade refused: the new server was killed by SIGKILL before it was ready", WAIT_S)
        project.touch("gate")
        assert get(server) == "v1"


def test_systemd_is_told_of_the_new_main_process(project: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        server = project.server()
        server._env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with server:
            pid = upgrade(server)
            stop(pid)
            heard = []
            while "STOPPING=1" not in (message := manager.recv(4096).decode()):
                heard.append(message)
        story = [line for message in heard for line in message.split("\n") if not line.startswith(("STATUS", "MONOTONIC"))]
        assert story == ["READY=1", "RELOADING=1", f"MAINPID={pid}", "READY=1"]
