"""Metrics and probes of a real server: answered whatever the workers do, and never going down."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import httpx
import pytest
import websockets.sync.client
from prometheus_client.parser import text_string_to_metric_families

from cavalcade.testing import LiveServer
from cavalcade.testing.certificates import Authority
from cavalcade.testing.clients import WAIT_S, Load, get

SPOKEN = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""

Loaded = Callable[[LiveServer], Load]
Scrape = dict[tuple[str, tuple[str, ...]], float]


def ask(project: Any, target: str, method: str = "GET") -> httpx.Response:
    """Over the control socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(project.folder / "c.sock")), timeout=WAIT_S) as client:
        return client.request(method, f"http://localhost{target}")


def scrape(project: Any) -> Scrape:
    answer = ask(project, "/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def until(project: Any, true: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until it is so. Every question is a round trip."""
    deadline = monotonic() + WAIT_S
    while monotonic() < deadline:
        now = scrape(project)
        if true(now):
            return now
    raise AssertionError(f"it never came true: {now}")


def value(values: Scrape, name: str, *labels: str) -> float:
    return values.get((f"cavalcade_{name}", labels), 0.0)


def test_it_answers_while_every_worker_is_stopped(project: Any) -> None:
    with project.server("--control", "c.sock", "--stall-kill", "0") as server:
        get(server)
        until(project, lambda values: value(values, "requests_total", "GET", "2xx") == 1)
        workers = server.worker_pids
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            values = until(project, lambda values: value(values, "workers_blocked") == 2)
            assert value(values, "requests_total", "GET", "2xx") == 1
            assert value(values, "request_duration_seconds_count") == 1
            assert value(values, "workers_ready") == 2
            for worker in ("1", "2"):
                assert value(values, "worker_rss_bytes", worker, worker) > 2**20
                assert value(values, "worker_loop_lag_seconds", worker, worker) > 0.25
            status = ask(project, "/status").json()
            assert [(worker["blocked"], worker["stopped"], worker["slot"]) for worker in status["workers"]] == [
                (True, True, 1),
                (True, True, 2),
            ]
            for probe in ("livez", "readyz", "startupz"):
                assert ask(project, f"/{probe}").status_code == 200
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)


def test_the_probes_say_no_before_it_has_started_and_while_it_drains(project: Any) -> None:
    project.deploy(gated=True)

    def probes() -> list[int]:
        return [ask(project, f"/{probe}").status_code for probe in ("livez", "readyz", "startupz")]

    with project.server("--control", "c.sock", "--drain-delay", "100", ready=False, workers=1) as server:
        server.wait_line("^importing v1", WAIT_S)
        assert probes() == [200, 503, 503]
        project.touch("gate")
        server.wait_line(r"ready in .*: http://", WAIT_S)
        assert probes() == [200, 200, 200]
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        assert probes() == [200, 503, 200]
        server.signal(signal.SIGINT)
        server.wait_exit(0)


def test_totals_never_go_down(project: Any, load: Loaded) -> None:
    """Over a reload, a recycling and a kill under traffic; and every restart is counted by its reason."""
    with project.server("--control", "c.sock") as server:
        traffic = load(server)
        over = threading.Event()
        dips: list[tuple[Any, float, float]] = []

        def watch() -> None:
            last: Scrape = {}
            while not over.is_set():
                now = scrape(project)
                dips.extend(
                    (key, last[key], now.get(key, 0.0)) for key in last if key[0].endswith("_total") and now.get(key, 0.0) < last[key]
                )
                last = now

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            server.signal(signal.SIGHUP)
            until(project, lambda values: value(values, "restarts_total", "reload") == 2 and value(values, "generation") == 2)
            assert ask(project, "/workers/all/recycle", "POST").status_code == 200
            assert value(scrape(project), "restarts_total", "asked") == 2
            failed_before = list(traffic.failures)
            os.kill(server.worker_pids[0], signal.SIGKILL)
            until(project, lambda values: value(values, "restarts_total", "died") == 1 and value(values, "workers_ready") == 2)
            until(project, lambda values: value(values, "requests_per_second") > 0)
            workers = ask(project, "/status").json()["workers"]
            assert sorted(worker["last_restart"] for worker in workers) == ["asked", "died"]
            assert sum(worker["restarts"] for worker in workers) == 5
        finally:
            over.set()
            watcher.join(WAIT_S)
            traffic.stop()
        assert dips == []
        assert failed_before == []
        # What a worker counts is on the board at once: the one that was killed may have written one answer that it did not come to count.
        values = scrape(project)
        assert value(values, "requests_total", "GET", "2xx") >= len(traffic.answers) - 1
        assert value(values, "request_duration_seconds_bucket", "+Inf") == value(values, "requests_total", "GET", "2xx")


def test_connections_are_told_apart_by_what_is_spoken(project: Any, authority: Authority) -> None:
    project.deploy_text(SPOKEN)
    flags = ["--ssl-certfile", str(authority.pair.certfile), "--ssl-keyfile", str(authority.pair.keyfile)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(project.server("--control", "c.sock", "--lifespan", "off", *flags, workers=1))
        for http2 in (False, True):
            client = stack.enter_context(httpx.Client(http2=http2, verify=authority.client()))
            assert client.get(f"https://localhost:{server.port}/").text == "ok"
        stack.enter_context(websockets.sync.client.connect(f"wss://localhost:{server.port}/", ssl=authority.client()))
        wanted = {"http/1.1": 1, "h2": 1, "websocket": 1, "tls": 3}
        until(project, lambda values: {name: value(values, "protocol_connections", name) for name in wanted} == wanted)
        assert ask(project, "/status").json()["workers"][0]["connections_by"] == wanted


def test_hand_overs_garbage_collections_and_shares_of_memory_are_counted(project: Any) -> None:
    collecting = "import gc\ndef collect():\n    gc.collect()\n    asyncio.get_running_loop().call_later(0.05, collect)"
    project.deploy(prologue=collecting, startup="collect()")
    with project.server("--control", "c.sock") as server, contextlib.ExitStack() as stack:
        values = until(project, lambda values: value(values, "gc_pauses_total", "2") >= 2)
        assert value(values, "gc_pause_seconds_total", "2") > 0
        clients = [stack.enter_context(contextlib.closing(http.client.HTTPConnection(*server.address))) for _ in range(4)]
        for client in clients:
            client.request("GET", "/")
            assert client.getresponse().read() == b"v1"
        assert ask(project, "/workers/all/recycle", "POST").status_code == 200
        until(project, lambda values: value(values, "hand_overs_total") == 4)
        for client in clients:
            client.request("GET", "/")
            assert client.getresponse().read() == b"v1"
        # It is looked at every few seconds.
        until(project, lambda values: value(values, "worker_pss_bytes", "1", "3") > 2**20)


STALLING = """
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/thread":
        await asyncio.to_thread(time.sleep, 0)
    elif scope["path"] == "/one":
        while not os.path.exists("over"): time.sleep(0.001)
    elif scope["path"] == "/other":
        time.sleep(0.35)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_stalls_are_counted_by_place_with_the_requests_that_waited_and_their_delay(project: Any) -> None:
    """In the metrics and in the status, the worst first; also after several, and beside idle threads of a pool, which have stacks too."""
    project.deploy_text(STALLING)
    with project.server("--control", "c.sock", workers=1) as server:
        get(server, "/thread")
        for number in range(4):
            get(server, "/other")
            until(project, lambda values, count=number + 1: value(values, "stalls_total", "main.py:12 app()") == count)  # type: ignore[misc]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(server.address)) for _ in range(3)]
            for client, path in zip(clients, ("/one", "/", "/"), strict=True):
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                if path == "/one":
                    until(project, lambda values: value(values, "workers_blocked") == 1)  # now, while the lag is the worst of a second
            project.touch("over")
            for client in clients:
                assert client.makefile("rb").read().endswith(b"ok")
        values = until(project, lambda values: value(values, "stalls_total", "main.py:10 app()") == 1)
        assert value(values, "stall_requests_total", "main.py:10 app()") == 2
        stalled_s = value(values, "stall_seconds_total", "main.py:10 app()")
        assert 0.25 < stalled_s < WAIT_S
        assert value(values, "stall_delay_seconds_total", "main.py:10 app()") == pytest.approx(stalled_s)  # half of it each, as is guessed
        stalls = ask(project, "/status").json()["stalls"]
        assert {stall["place"]: (stall["count"], stall["requests"]) for stall in stalls} == {
            "main.py:12 app()": (4, 0),
            "main.py:10 app()": (1, 2),
        }
        assert stalls == sorted(stalls, key=lambda stall: -stall["seconds"])


def test_connections_are_told_by_protocol_messages_and_bytes_are_counted_and_a_queue_for_threads_is_seen(project: Any) -> None:
    project.deploy_text(BUSY)
    with project.server("--control", "c.sock", "--loop", "asyncio", workers=1) as server:  # it shows the executor that an app sets
        with websockets.sync.client.connect(server.url.replace("http", "ws")) as websocket, contextlib.ExitStack() as stack:
            websocket.send("hello")
            assert websocket.recv() == "hello"
            idle = [stack.enter_context(socket.create_connection(server.address)) for _ in range(2)]
            values = until(project, lambda values: value(values, "protocol_connections", "http/1.1") == 2)
            assert value(values, "protocol_connections", "websocket") == 1
            assert value(values, "connections") == 3
            for direction in ("sent", "received"):
                assert value(values, "websocket_messages_total", direction) == 1
                assert value(values, f"{direction}_bytes_total") > 5
            for client in idle:
                client.sendall(b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))
            values = until(project, lambda values: value(values, "threads_waiting") == 1)
            assert value(values, "threads_busy") == 1
            status = ask(project, "/status").json()
            assert (status["queued"], status["workers"][0]["queued"], status["workers"][0]["threads_busy"]) == (1, 1, 1)
            assert status["in_flight"] == 3  # the WebSocket is one
            project.touch("finish")
            for client in idle:
                assert client.recv(1000).endswith(b"ok")
        values = until(project, lambda values: value(values, "requests_total", "POST", "2xx") == 2)
        assert value(values, "received_bytes_total") > 2000
        assert value(values, "requests_total", "GET", "1xx") == 1
        assert value(values, "accepted_connections_total") == 3
        assert 1 <= value(values, "accept_wait_seconds_count") <= 3  # one for each wake
        assert value(values, "request_first_byte_seconds_count") == 3


BUSY = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

def wait():
    while not Path("finish").exists():
        time.sleep(0.01)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/threads":
        await asyncio.get_running_loop().run_in_executor(None, wait)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
