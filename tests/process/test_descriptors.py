"""Out of file descriptors: nobody is turned away, nothing spins, and it is over as soon as it is over."""

from __future__ import annotations

import http.client
from typing import Any

import psutil

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import WAIT_S, get

CLIENTS = 200


def limited(project: Any, loop_name: str) -> LiveServer:
    server: LiveServer = project.server("--loop", loop_name, workers=1)
    server.argv = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *server.argv]
    return server


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_200_clients_that_keep_their_connections_are_all_served_with_64_descriptors(project: Any, loop_name: str) -> None:
    with limited(project, loop_name) as server:
        (worker,) = server.worker_pids
        clients = []
        for _ in range(CLIENTS):
            client = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
            client.request("GET", "/pid")
            response = client.getresponse()
            assert (response.status, response.read()) == (200, str(worker).encode())
            clients.append(client)
        for client in clients:
            client.close()
        over = server.wait_line(r"accepting again: there are descriptors enough; (\d+) idle connections were closed", WAIT_S)
        assert int(over[1]) >= CLIENTS - 64
        assert get(server) == "v1"
        said = [line for line in server.lines if "cannot accept" in line]
        assert len(said) == 1
        assert "Too many open files" in said[0]
        assert not [line for line in server.lines if "Traceback" in line]


def test_with_nobody_idle_those_who_wait_are_served_later_and_nothing_spins(project: Any, loop_name: str) -> None:
    with limited(project, loop_name) as server:
        (worker,) = server.worker_pids
        clients = []
        for _ in range(CLIENTS // 2):  # more than it has descriptors for; each in the middle of a response
            client = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
            client.request("GET", "/slow")
            clients.append(client)
        server.wait_line("cannot accept: Too many open files", WAIT_S)
        before = cpu_s(worker)
        try:
            psutil.Process(worker).wait(2.0)
            raise AssertionError("the worker is gone")
        except psutil.TimeoutExpired:
            pass
        # 50 responses that look for a file a hundred times a second cost something; a loop that spins costs all of a CPU.
        assert cpu_s(worker) - before < 1.4
        project.touch("finish")
        for client in clients:
            assert client.getresponse().read() == b"begun,finished"
            client.close()
        server.wait_line("accepting again", WAIT_S)
        assert get(server) == "v1"
