"""Hand-over, with real workers: a connection outlives the process that accepted it, and its client notices nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.traffic import REST_S, Mix, Traffic, deploy

ANSWER_S = 20.0
MANY = 600

pytestmark = pytest.mark.slow


class Answer(NamedTuple):
    version: str
    pid: int
    said: str  # what the app says, and the token
    closes: bool


class Client:
    """One connection, which is never opened again."""

    def __init__(self, server: LiveServer) -> None:
        self.sock = socket.create_connection(server.address, timeout=ANSWER_S)
        self.name = "{} {}".format(*self.sock.getsockname())
        self._data = b""

    def send(self, *paths: str) -> None:
        self.sock.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for path in paths))

    def answer(self) -> Answer:
        """The next response."""
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        found = re.search(rb"content-length: (\d+)", head)
        assert found, head
        size = int(found[1])
        while len(self._data) < size:
            self._receive()
        body, self._data = self._data[:size].decode(), self._data[size:]
        version, pid, said = body.split(" ", 2)
        return Answer(version, int(pid), said, b"connection: close" in head.lower())

    def ask(self, path: str) -> Answer:
        self.send(path)
        return self.answer()

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"the server has closed the connection; here are {self._data!r}"
        self._data += data


Serve = Callable[..., LiveServer]


@pytest.fixture
def serve(tmp_path: Path, loop_name: str) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*options: str, workers: int = 2) -> LiveServer:
            deploy(tmp_path)
            argv = ("--workers", str(workers), "--loop", loop_name, "--no-access-log", *options)
            return stack.enter_context(LiveServer("main:app", *argv, cwd=tmp_path))

        yield start


@pytest.fixture
def client() -> Iterator[Callable[[LiveServer], Client]]:
    clients: list[Client] = []

    def connect(server: LiveServer) -> Client:
        clients.append(Client(server))
        return clients[-1]

    yield connect
    for each in clients:
        each.sock.close()


def until_everybody_has_some(server: LiveServer, client: Callable[[LiveServer], Client], workers: int) -> tuple[list[Client], list[int]]:
    """Connections, and the pids of the workers that have them: two or more each."""
    clients: list[Client] = []
    owners: list[int] = []
    while len({*owners}) < workers or min(owners.count(pid) for pid in owners) < 2:
        clients.append(client(server))
        owners.append(clients[-1].ask("/client?1").pid)
        assert len(clients) < 200, f"they all go to {Counter(owners)}"
    return clients, owners


def begin_reload(server: LiveServer, folder: Path, version: str) -> int:
    deploy(folder, version)
    mark = server.mark()
    server.signal(signal.SIGHUP)
    return mark


def wait_left(server: LiveServer, pids: list[int], mark: int) -> None:
    for pid in pids:
        server.wait_line(rf"\(pid {pid}\) has left", ANSWER_S, after=mark)


def wait_file(path: Path) -> None:
    until = monotonic() + ANSWER_S
    while not path.exists():
        assert monotonic() < until, f"{path} does not appear"


def test_one_connection_lives_through_five_reloads(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve()
    kept = client(server)
    first = kept.ask("/client?0")
    assert (first.version, first.said) == ("v1", f"{kept.name} 0")
    pids = {first.pid}
    for number in range(2, 7):
        old = server.worker_pids
        mark = begin_reload(server, tmp_path, f"v{number}")
        wait_left(server, old, mark)
        answer = kept.ask(f"/client?{number}")
        # The address that the app sees is the client's own, through every hand-over.
        assert (answer.version, answer.said, answer.closes) == (f"v{number}", f"{kept.name} {number}", False)
        pids.add(answer.pid)
    assert len(pids) == 6


def test_a_connection_without_any_request_yet_is_moved_too(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve()
    old = server.worker_pids
    silent = [client(server) for _ in range(10)]
    mark = begin_reload(server, tmp_path, "v2")
    wait_left(server, old, mark)
    for each in silent:
        assert each.ask("/client?x")[2:] == (f"{each.name} x", False)


def test_a_busy_connection_moves_after_its_response(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve()
    busy = client(server)
    busy.send("/hold?done")
    wait_file(tmp_path / "done.held")
    old = server.worker_pids
    mark = begin_reload(server, tmp_path, "v2")
    server.wait_line("reloaded in", ANSWER_S, after=mark)
    (tmp_path / "done").touch()
    held = busy.answer()
    assert held.version == "v1"
    assert held.pid in old
    assert not held.closes
    wait_left(server, old, mark)
    assert busy.ask("/client?2").version == "v2"


def test_a_head_that_has_begun_is_answered_by_the_worker_that_has_it(
    serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path
) -> None:
    server = serve()
    half = client(server)
    # In one piece with a whole request: when that has been answered, the half has been read as well.
    half.sock.sendall(b"GET /client?1 HTTP/1.1\r\nHost: test\r\n\r\nGET /client?2 HTTP/1.1\r\nHo")
    old = half.answer().pid
    mark = begin_reload(server, tmp_path, "v2")
    server.wait_line("reloaded in", ANSWER_S, after=mark)
    half.sock.sendall(b"st: test\r\n\r\n")
    answer = half.answer()
    assert (answer.version, answer.pid, answer.said) == ("v1", old, f"{half.name} 2")
    wait_left(server, [old], mark)
    assert half.ask("/client?3").version == "v2"


def test_an_upload_is_finished_before_its_connection_moves(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve()
    sender = client(server)
    old = sender.ask("/client?1").pid
    sender.sock.sendall(b"POST /upload?2 HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    assert sender.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # so the app has it, and waits for the body
    sender.sock.sendall(b"hello")
    mark = begin_reload(server, tmp_path, "v2")
    server.wait_line("reloaded in", ANSWER_S, after=mark)
    sender.sock.sendall(b"world")
    answer = sender.answer()
    assert (answer.pid, answer.said.split()[0]) == (old, "10")
    wait_left(server, [old], mark)
    assert sender.ask("/client?3").version == "v2"


def test_pipelined_requests_are_all_answered_in_order(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve()
    piped = client(server)
    piped.send("/hold?go", *[f"/client?{number}" for number in range(50)])
    wait_file(tmp_path / "go.held")
    old = server.worker_pids
    mark = begin_reload(server, tmp_path, "v2")
    server.wait_line("reloaded in", ANSWER_S, after=mark)
    (tmp_path / "go").touch()
    assert piped.answer().said == "go"
    assert [piped.answer().said for _ in range(50)] == [f"{piped.name} {number}" for number in range(50)]
    wait_left(server, old, mark)
    assert piped.ask("/client?51").version == "v2"


def test_connections_of_a_worker_that_is_scaled_away_go_to_the_others(serve: Serve, client: Callable[[LiveServer], Client]) -> None:
    server = serve(workers=2)
    clients, owners = until_everybody_has_some(server, client, workers=2)
    before = {*owners}
    mark = server.mark()
    server.signal(signal.SIGTTOU)
    gone = int(server.wait_line(r"\(pid (\d+)\) has left", ANSWER_S, after=mark)[1])
    answers = [each.ask("/client?2") for each in clients]
    assert {answer.pid for answer in answers} == before - {gone}
    assert [answer.said for answer in answers] == [f"{each.name} 2" for each in clients]


def test_more_connections_than_the_queue_holds_are_moved_all(serve: Serve, client: Callable[[LiveServer], Client], tmp_path: Path) -> None:
    server = serve(workers=1)
    clients = [client(server) for _ in range(MANY)]  # the kernel lets somewhat more than 200 wait in the queue
    assert {each.ask("/client?1").version for each in clients} == {"v1"}
    old = server.worker_pids
    mark = begin_reload(server, tmp_path, "v2")
    wait_left(server, old, mark)
    for each in clients:
        answer = each.ask("/client?2")
        assert (answer.version, answer.said, answer.closes) == ("v2", f"{each.name} 2", False)


def test_recycling_by_requests_loses_no_keep_alive_client(serve: Serve) -> None:
    server = serve("--max-requests", "200", "--max-requests-jitter", "20")
    with Traffic(server.address, Mix(kept=2, pausing=8, closing=0, uploads=1, late=0, rest_s=REST_S)) as traffic:
        for total in range(3000, 100_000, 500):
            traffic.wait_requests(total, timeout_s=40.0)
            if len([line for line in server.lines if "has left" in line]) > 4:
                break
    report = traffic.report
    assert report.failed == 0, report.explain()
    assert len(report.pids) > 4
    assert len([line for line in server.lines if "retires (max_requests" in line]) >= 4


def test_a_connection_survives_the_death_of_the_worker_that_would_have_taken_it(
    serve: Serve, client: Callable[[LiveServer], Client]
) -> None:
    """What a leaving worker has put into the queue is there for any other, whoever dies meanwhile."""
    server = serve(workers=3)
    clients, owners = until_everybody_has_some(server, client, workers=3)
    leaving, *others = sorted({*owners}, key=server.worker_pids.index)
    # Both others are stopped, so that nobody takes; one of them dies, its successor and the other go on.
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    os.kill(leaving, signal.SIGTERM)  # asks for a successor first
    mark = server.mark()
    os.kill(others[0], signal.SIGKILL)
    server.wait_line(rf"\(pid {leaving}\) has left", ANSWER_S)
    os.kill(others[1], signal.SIGCONT)
    server.wait_line(r"worker \d+ \(pid \d+\) ready", ANSWER_S, after=mark)
    for each, owner in zip(clients, owners, strict=True):
        if owner != others[0]:
            assert each.ask("/client?2").said == f"{each.name} 2"
