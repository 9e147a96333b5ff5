"""Addresses of every kind, with one worker and with several: the same before and after a reload and an upgrade of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S

APP = """
import json, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    said = {name: scope[name] for name in ("client", "server")} | {"pid": os.getpid()}
    body = json.dumps(said).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

# Opens a listening socket as descriptor 9 and becomes the server.
INHERIT = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", 0))
os.dup2(sock.fileno(), 9)
os.set_inheritable(9, True)
print("inherited", sock.getsockname()[1], file=sys.stderr, flush=True)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n"


class Client:
    """One connection. `header` is what it begins with."""

    def __init__(self, address: Any, header: bytes = b"") -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(address)
        self.sock.sendall(header)

    def ask(self, *fields: str) -> dict[str, Any]:
        self.sock.sendall("\r\n".join(["GET / HTTP/1.1", "Host: test", *fields, "", ""]).encode())
        data = b""
        while b"}" not in data:
            more = self.sock.recv(65536)
            assert more, data
            data += more
        assert data.startswith(b"HTTP/1.1 200"), data
        answer: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
        return answer

    def close(self) -> None:
        self.sock.close()


def once(address: Any, header: bytes = b"") -> dict[str, Any]:
    client = Client(address, header)
    try:
        return client.ask()
    finally:
        client.close()


def inheriting(server: LiveServer) -> LiveServer:
    server.argv = [sys.executable, "-c", INHERIT, *server.argv[1:]]
    return server


def reload(server: LiveServer) -> None:
    mark = server.mark()
    server.signal(signal.SIGHUP)
    server.wait_line("reloaded in", WAIT_S, after=mark)


def upgrade(server: LiveServer) -> int:
    """Returns the pid of the new server."""
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    pid = int(server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", WAIT_S, after=mark)[1])
    server.wait_line(r"upgrade: took over from pid \d+", WAIT_S, after=mark)
    assert server.process.wait(WAIT_S) == 0
    return pid


def wait_gone(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            try:
                process.wait(0.05)
            except psutil.TimeoutExpired:
                continue
    except psutil.NoSuchProcess:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_every_address_serves_before_and_after_a_reload_and_an_upgrade(project: Any, workers: int) -> None:
    project.deploy_text(APP)
    path = project.folder / "app.sock"
    binds = ["localhost:0", f"unix:{path}?mode=600", f"unix:@{project.folder}", "fd://9", "127.0.0.1:0?proxy_protocol=on"]
    options = [word for bind in binds for word in ("--bind", bind)]
    with inheriting(project.server(*options, workers=workers)) as server:
        lines = [line.partition("listening on ")[2] for line in server.lines if "listening on " in line]
        assert lines[-1].endswith(" (PROXY protocol)")
        proxied = ("127.0.0.1", int(lines[-1].partition(" ")[0].rpartition(":")[2]))
        inherited = ("127.0.0.1", int(server.wait_line(r"inherited (\d+)")[1]))
        kept = Client(proxied, V1)

        def check() -> None:
            for address in (server.address, inherited):
                said = once(address)
                assert (said["client"][0], said["server"]) == ("127.0.0.1", list(address))
            assert once(str(path))["server"] == [str(path), None]
            assert once(f"\0{project.folder}")["server"] == [f"@{project.folder}", None]
            assert once(proxied, V1)["client"] == ["203.0.113.7", 56324]
            assert kept.ask()["client"] == ["203.0.113.7", 56324]  # it moves from worker to worker, and knows whose it is
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

        check()
        before = kept.ask()["pid"]
        reload(server)
        check()
        assert kept.ask()["pid"] != before
        pid = upgrade(server)
        try:
            check()
        finally:
            kept.close()
            os.kill(pid, signal.SIGTERM)
            wait_gone(pid)
        assert not path.exists()


def test_a_second_server_at_the_same_path_is_told_who_is_there_and_takes_nothing(project: Any) -> None:
    project.deploy_text(APP)
    path = project.folder / "app.sock"
    with project.server("--bind", f"unix:{path}", workers=1) as server:
        second = project.server("--bind", f"unix:{path}", workers=1, ready=False)
        with second:
            second.wait_line(rf"{path} is in use by pid {server.pid} \(.*\)", WAIT_S)
            second.wait_exit(3)
        assert once(str(path))["server"] == [str(path), None]
        server.kill()
    assert path.exists()
    with project.server("--bind", f"unix:{path}", workers=1):
        assert once(str(path))["server"] == [str(path), None]
    assert not path.exists()


def test_an_ignored_header_is_told_of_once_however_many_workers_see_it(project: Any) -> None:
    project.deploy_text(APP)
    with project.server("--trusted-proxies", "10.0.0.0/8", workers=3) as server:
        clients = [Client(server.address) for _ in range(6)]
        workers = {client.ask("X-Forwarded-For: 203.0.113.7")["pid"] for client in clients}
        assert len(workers) == 3
        reload(server)
        assert {client.ask("X-Forwarded-For: 203.0.113.7")["client"][0] for client in clients} == {"127.0.0.1"}
        for client in clients:
            client.close()
        server.stop()
        (line,) = [line for line in server.lines if "X-Forwarded-For" in line]
        assert line.endswith("(trusted_proxies: 10.0.0.0/8); if that is your proxy: --trusted-proxies 127.0.0.1")


def test_the_address_of_the_client_is_what_the_access_log_has(project: Any, tmp_path: Path) -> None:
    project.deploy_text(APP)
    with LiveServer("main:app", "--bind", "127.0.0.1:0", cwd=project.folder) as server:
        client = Client(server.address)
        client.ask("X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-Proto: https")
        client.close()
        server.wait_line(r'\] 203\.0\.113\.7 "GET / HTTP/1\.1" 200 ', WAIT_S, stream="stdout")
