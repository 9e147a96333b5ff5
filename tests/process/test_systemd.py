"""What a service manager gives us and hears from us."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, free_port, get

# Opens a socket as descriptor 3, as systemd would, and becomes the server.
ACTIVATE = """
import os, socket, sys
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", int(sys.argv[1])))
if sys.argv[2] == "listen":
    sock.listen(64)
if sock.fileno() == 3:
    os.set_inheritable(3, True)
else:
    os.dup2(sock.fileno(), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid() + int(sys.argv[3])), LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, *sys.argv[4:]])
"""

ENVIRONMENT = """
import os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = " ".join(sorted(name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_")))).encode() or b"none"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


class Manager:
    """The end of a service manager: what it is told, datagram by datagram."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(WAIT_S)
        self.heard: list[dict[str, str]] = []

    def hear(self, **wanted: str) -> dict[str, str]:
        """The next message that says what is wanted."""
        while True:
            message = dict(line.partition("=")[::2] for line in self.sock.recv(4096).decode().split("\n"))
            self.heard.append(message)
            if wanted.items() <= message.items():
                return message

    def said(self, name: str) -> list[str]:
        return [message[name] for message in self.heard if name in message]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@cavalcade-test-{os.getpid()}"
    manager = Manager(address)
    with manager.sock:
        yield manager


def managed(project: Any, manager: Manager, *options: str, **environ: str) -> LiveServer:
    server: LiveServer = project.server(*options)
    server._env["NOTIFY_SOCKET"] = manager.address
    server._env.update(environ)
    return server


def test_the_transcript_of_a_life(project: Any, manager: Manager) -> None:
    with managed(project, manager) as server:
        ready = manager.hear(READY="1")
        assert ready["STATUS"] == "serving: 2 of 2 workers, generation 1"
        assert "starting: 0 of 2 workers ready" in manager.said("STATUS")[0]
        server.signal(signal.SIGHUP)
        reloading = manager.hear(RELOADING="1")
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert reloading["STATUS"].startswith("reloading as generation 2")
        assert manager.hear(READY="1")["STATUS"] == "serving: 2 of 2 workers, generation 2"
        project.deploy_text("import notinstalled")
        server.signal(signal.SIGHUP)
        manager.hear(RELOADING="1")
        assert manager.hear(READY="1")["STATUS"] == "serving: 2 of 2 workers, generation 2"  # refused: it serves on
        server.stop()
        manager.hear(STOPPING="1")
    assert manager.said("WATCHDOG") == []


def test_a_server_that_cannot_start_never_says_that_it_is_ready(project: Any, tmp_path: Path) -> None:
    project.deploy_text("import notinstalled")
    manager = Manager(str(tmp_path / "notify"))
    with manager.sock:
        server = managed(project, manager)
        server._wait_ready = False
        with server:
            server.wait_exit(3)
        manager.hear(STOPPING="1")
    assert manager.said("READY") == []


def test_the_watchdog_is_fed_only_while_some_loop_turns(project: Any, tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with manager.sock, managed(project, manager, WATCHDOG_USEC="600000") as server:
        for _ in range(3):
            manager.hear(WATCHDOG="1")
        for pid in server.worker_pids:
            server.signal(signal.SIGSTOP, pid)
        manager.sock.settimeout(3.0)  # well over WATCHDOG_USEC, after the second that a loop may be silent
        with pytest.raises(TimeoutError):
            starve(manager)
        for pid in server.worker_pids:
            server.signal(signal.SIGCONT, pid)
        manager.sock.settimeout(WAIT_S)
        manager.hear(WATCHDOG="1")


def starve(manager: Manager) -> None:
    for _ in range(20):
        manager.hear(WATCHDOG="1")


def test_a_watchdog_that_is_meant_for_another_process_is_not_fed(project: Any, tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with manager.sock, managed(project, manager, WATCHDOG_USEC="100000", WATCHDOG_PID="1") as server:
        manager.hear(READY="1")
        server.stop()
        manager.hear(STOPPING="1")
    assert manager.said("WATCHDOG") == []


# -- socket activation ----------------------------------------------------------------------------------------------------


def activated(folder: Path, port: int, *options: str, listen: str = "listen", offset: int = 0, ready: bool = True) -> LiveServer:
    server = LiveServer("main:app", "--bind", "127.0.0.1:0", "--workers", "2", cwd=folder, ready=ready)
    _, *rest = [word for word in server.argv if word not in ("--bind", "127.0.0.1:0")]
    server.argv = [sys.executable, "-c", ACTIVATE, str(port), listen, str(offset), *rest, *options]
    return server


def test_an_inherited_socket_replaces_the_default_and_nothing_of_it_reaches_the_app(project: Any) -> None:
    project.deploy_text(ENVIRONMENT)
    port = free_port()
    with activated(project.folder, port) as server:
        server.wait_line("socket activation: 1 inherited from the service manager")
        assert server.url == f"http://127.0.0.1:{port}"
        assert get(server) == "none"


def test_an_inherited_socket_speaks_tls_where_there_is_a_certificate(project: Any, authority: Any) -> None:
    port = free_port()
    with activated(project.folder, port, *authority.pair.flags) as server:
        assert server.url == f"https://127.0.0.1:{port}"
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=authority.client(), timeout=WAIT_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"v1"
        connection.close()


def test_a_socket_that_was_also_asked_for_is_not_bound_again(project: Any) -> None:
    port = free_port()
    with activated(project.folder, port, "--bind", f"127.0.0.1:{port}") as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert get(server) == "v1"


def test_what_is_asked_for_wins_over_a_socket_that_is_not_and_the_log_says_so(project: Any) -> None:
    port = free_port()
    with activated(project.folder, port, "--bind", "127.0.0.1:0") as server:
        server.wait_line(f"127.0.0.1:{port} of LISTEN_FDS is not used: --bind says where to listen")
        assert server.port != port
        assert get(server) == "v1"


def test_sockets_for_another_process_are_left_alone(project: Any) -> None:
    with activated(project.folder, free_port(), "--bind", "127.0.0.1:0", offset=1) as server:
        assert get(server) == "v1"
        assert not [line for line in server.lines if "LISTEN_FDS" in line]


def test_a_descriptor_that_does_not_listen_is_named(project: Any) -> None:
    with activated(project.folder, free_port(), listen="no", ready=False) as server:
        server.wait_line(r"Descriptor 3 \(web\) of LISTEN_FDS is not a socket that listens")
        server.wait_exit(3)


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_under_systemd_socket_activate_the_first_client_is_served(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = LiveServer("main:app", "--bind", "unused", cwd=project.folder, ready=False)
    python, *rest = [word for word in server.argv if word not in ("--bind", "unused")]
    server.argv = ["systemd-socket-activate", "-E", "PATH", "-E", "PYTHONPATH", "-l", str(path), python, *rest]
    with server:
        server.wait_line("Listening on", WAIT_S)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT_S)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b""
            while piece := client.recv(4096):
                answer += piece
        assert answer.endswith(b"v1")
        server.stop()
    assert path.exists()  # it is the service manager's


# -- a container ------------------------------------------------------------------------------------------------------------


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False).returncode == 0


def command_line(process: psutil.Process) -> str:
    """A zombie has none."""
    try:
        return " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return ""


@pytest.mark.skipif(not can_unshare(), reason="no pid namespaces here")
def test_as_pid_1_it_reaps_strangers_and_takes_none_for_a_worker(project: Any) -> None:
    server: LiveServer = project.server()
    server.argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *server.argv]
    with server:
        assert server.wait_line(r"ready in .*, pid (\d+)\)")[1] == "1"
        for _ in range(5):
            get(server, "/orphan")  # its parent is dead: it becomes a child of pid 1, and ends with status 0
        (init,) = psutil.Process(server.pid).children()
        strangers = [child for child in init.children() if "nursery" not in command_line(child)]
        psutil.wait_procs(strangers, timeout=WAIT_S)
        assert len(init.children()) == 1  # the nursery: no zombie is left
        assert get(server) == "v1"
        assert not [line for line in server.lines if "warning" in line or "error" in line]
        init.send_signal(signal.SIGTERM)
        server.wait_exit(0)
