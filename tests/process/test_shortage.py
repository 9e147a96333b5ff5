"""What the machine refuses: room for the board, and somebody who reads the log."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing.cgroups import NoControlGroup, limited
from cavalcade.testing.clients import WAIT_S, free_port, get

REFUSE = Path(__file__).parent / "refuse.py"


def test_a_board_that_cannot_be_made_is_an_error_with_its_reason_and_no_traceback(project: Any) -> None:
    server = project.server(ready=False)
    server.argv = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *server.argv]  # no file may have any byte, not even one of memory
    with server:
        server.wait_line("The board, .* of shared memory, cannot be made: .*File too large", WAIT_S)
        server.wait_exit(3)
        assert not [line for line in server.lines if "Traceback" in line]


@pytest.mark.parametrize("reason", ["ENOSYS", "EPERM"])
def test_without_memfd_a_server_has_all_it_has_with_it(project: Any, reason: str) -> None:
    """The board and the black boxes are unlinked files then: a blocked loop and a death are explained as ever."""
    project.deploy(prologue="def block():\n    time.sleep(0.6)", startup="asyncio.get_running_loop().call_later(0.5, block)")
    server = project.server(workers=1)
    server.argv = [sys.executable, str(REFUSE), "memfd_create", reason, *server.argv]
    with server:
        server.wait_line(r"worker 1 \(pid \d+\) was blocked for \d+ ms in main\.py:\d+ block\(\)", WAIT_S)
        for _ in range(3):
            assert get(server) == "v1"
        files = [os.readlink(link) for link in Path(f"/proc/{server.worker_pids[0]}/fd").iterdir()]
        assert [path for path in files if path.endswith("(deleted)")]
        assert not [path for path in files if "memfd" in path]
        os.kill(server.worker_pids[0], signal.SIGKILL)
        server.wait_line(r"worker 1 .* was killed by SIGKILL, not by us", WAIT_S)


def test_without_memfd_and_without_room_for_a_file_the_error_says_both(project: Any) -> None:
    server = project.server(ready=False)
    refused = [sys.executable, str(REFUSE), "memfd_create", "EPERM"]
    server.argv = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *refused, *server.argv]
    with server:
        server.wait_line("The board, .* of shared memory, cannot be made: No usable temporary directory found in", WAIT_S)
        server.wait_line(r"  -> It needs memfd_create\(\), or room for a file in a directory that can be written: set TMPDIR", WAIT_S)
        server.wait_exit(3)
        assert not [line for line in server.lines if "Traceback" in line]


@pytest.mark.parametrize("target", ["a pipe that nobody reads", "a full disk"])
def test_a_log_that_cannot_be_written_holds_up_nobody(project: Any, tmp_path: Path, target: str) -> None:
    project.deploy()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        port = free_port()
        read, write = os.pipe() if target.startswith("a pipe") else (-1, os.open("/dev/full", os.O_WRONLY))
        argv = [sys.executable, "-m", "cavalcade", "main:app", "--bind", f"127.0.0.1:{port}"]
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = subprocess.Popen(argv, cwd=project.folder, env=environ, stdout=write, stderr=write, start_new_session=True)
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
            for _ in range(1500):  # about 3 MiB of access lines: more than the pipe and the server hold together
                client.request("GET", "/" + "x" * 2000)
                response = client.getresponse()
                assert (response.status, response.read()) == (200, b"v1")
            client.close()
            server.terminate()
            assert server.wait(WAIT_S) == 0
        finally:
            server.kill()
            server.wait()
            for fd in (read, write):
                if fd >= 0:
                    os.close(fd)


@contextmanager
def no_fork(pid: int) -> Iterator[None]:
    """While this lasts, a process gets EAGAIN from fork(2)."""
    if os.geteuid() == 0:  # RLIMIT_NPROC does not bind root
        with limited("pids", 1) as group:
            group.add(pid)
            yield
    else:
        before = resource.prlimit(pid, resource.RLIMIT_NPROC, (1, resource.prlimit(pid, resource.RLIMIT_NPROC)[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NPROC, before)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are a thing of Linux")
def test_a_fork_that_the_kernel_refuses_is_told_with_what_to_look_at_and_tried_again(project: Any) -> None:
    with project.server() as server:
        pid = int(server.wait_line(r"worker 1 \(pid (\d+)\) ready", WAIT_S)[1])
        try:
            with no_fork(server.nursery_pids[0]):
                server.signal(signal.SIGKILL, pid)
                server.wait_line(r"error +worker 3 could not be forked: Resource temporarily unavailable\.$", WAIT_S)
                server.wait_line(r"^  -> Look at the limits on processes \(ulimit -u, pids\.max\) and on memory\.$", WAIT_S)
                server.wait_line(
                    r"worker 3 did not become ready; 2 times in a row, next try in 1 s, 1 of 2 workers serve$",
                    WAIT_S,
                )
                server.wait_line("degraded: 1 of 2 workers serve$", WAIT_S)
                assert get(server) == "v1"
                again = r"worker 4 did not become ready, for the same reason as before; 3 times in a row, next try in 2 s, "
                server.wait_line(again + "1 of 2 workers serve$", WAIT_S)
                assert get(server) == "v1"
        except NoControlGroup as reason:
            pytest.skip(f"root cannot be kept from forking here: {reason}")
        server.wait_line("no longer degraded: 2 workers serve$", WAIT_S)
        assert sum("could not be forked" in line for line in server.lines) == 1
