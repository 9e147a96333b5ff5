"""`--drain-delay`: after SIGTERM whoever asks is told that we are not ready, while those who have not asked yet are served."""

from __future__ import annotations

import http.client
import signal
from time import monotonic
from typing import Any

from cavalcade.cli.instances import Choice, find
from cavalcade.supervisor.status import Status
from cavalcade.testing.clients import WAIT_S, Slow, get

DELAY_S = 2.0
LONG = ("--drain-delay", "100")  # nobody waits for its end


def status(project: Any) -> Status:
    return find(Choice(str(project.folder / "c.sock")), {}).status


def test_new_connections_are_served_for_the_whole_delay_and_the_stop_is_clean(project: Any, loop_name: str) -> None:
    with project.server("--control", "c.sock", "--loop", loop_name, "--drain-delay", f"{DELAY_S:g}s") as server:
        began = monotonic()
        server.signal(signal.SIGTERM)
        server.wait_line(r"SIGTERM: draining, still serving for 2 s \(drain_delay\)")
        now = status(project)
        assert (now.stage, now.ready, now.workers_ready) == ("draining", False, 2)
        served = 0
        while monotonic() - began < DELAY_S * 0.75:  # the delay began after `began`
            assert get(server) == "v1"
            served += 1
        assert served > 0
        server.wait_line("drain delay over: stopping", WAIT_S)
        assert monotonic() - began >= DELAY_S
        server.wait_exit(0)
    assert len(project.lines("shutdowns")) == 2


def test_a_keep_alive_client_is_told_to_go_elsewhere_with_its_next_response(project: Any, loop_name: str) -> None:
    with project.server("--loop", loop_name, *LONG, workers=1) as server:
        client = http.client.HTTPConnection(*server.address, timeout=WAIT_S)
        client.request("GET", "/")
        assert client.getresponse().read() == b"v1"
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        closes = False
        while not closes:  # the order to the worker is a moment behind the line
            client.request("GET", "/")
            response = client.getresponse()
            assert response.read() == b"v1"
            closes = response.getheader("connection") == "close"
        client.close()
        server.signal(signal.SIGINT)
        server.wait_exit(0)


def test_a_second_signal_leaves_the_rest_of_the_delay_out_but_not_the_grace(project: Any) -> None:
    with project.server(*LONG) as server:
        slow = Slow(server)
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        server.signal(signal.SIGINT)  # a SIGTERM at once would be taken for an echo; that one later counts has a test of the policy
        server.wait_line("SIGINT: drain delay cut short")
        project.touch("finish")
        assert slow.rest() == b"finished"
        server.wait_exit(0)


def test_an_interrupt_knows_no_delay(project: Any) -> None:
    with project.server(*LONG) as server:
        server.signal(signal.SIGINT)
        server.wait_line("SIGINT: stopping")
        server.wait_exit(0)


def test_a_worker_that_dies_in_the_delay_is_replaced(project: Any) -> None:
    with project.server(*LONG, workers=1) as server:
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        server.signal(signal.SIGKILL, server.worker_pids[0])
        server.wait_line("worker 2 .* ready after", WAIT_S)
        assert get(server) == "v1"
        server.signal(signal.SIGINT)
        server.wait_exit(0)


def test_a_reload_is_given_up_for_the_delay(project: Any) -> None:
    with project.server("--control", "c.sock", *LONG) as server:
        project.deploy("v2", gated=True)
        server.signal(signal.SIGHUP)
        server.wait_line("^importing v2", WAIT_S)
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        assert get(server) == "v1"
        server.signal(signal.SIGHUP)
        server.wait_line("SIGHUP: no reload, the server stops")
        server.signal(signal.SIGINT)
        server.wait_exit(0)
