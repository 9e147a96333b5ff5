"""Addresses on a machine of their own, where every interface can be listened on and IPv6 can be taken away: one rule for IPv4 and IPv6,
with one worker and with several."""

from __future__ import annotations

import http.client
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cavalcade.testing import LiveServer, write_app

WAIT_S = 20.0
APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = f"{scope['client'][0]} {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
# Where it listens, and which of the two loopback addresses reach it.
BINDS: list[tuple[list[str], set[str]]] = [
    (["0.0.0.0:8001"], {"127.0.0.1"}),
    ([":8002"], {"127.0.0.1"}),
    (["[::]:8003"], {"::1"}),
    (["0.0.0.0:8004", "[::]:8004"], {"127.0.0.1", "::1"}),
    (["127.0.0.1:8005"], {"127.0.0.1"}),
    (["[::1]:8006"], {"::1"}),
    (["both.test:8007"], {"127.0.0.1", "::1"}),
]


def ask(host: str, port: int) -> str:
    """Who we are to the app, and its worker; "" where nobody listens."""
    client = http.client.HTTPConnection(host, port, timeout=WAIT_S)
    try:
        client.request("GET", "/")
        return client.getresponse().read().decode()
    except ConnectionRefusedError:
        return ""
    except OSError as error:
        if host == "::1" and "assign" in str(error):  # no IPv6 here
            return ""
        raise
    finally:
        client.close()


def serve(folder: Path, binds: list[list[str]], workers: int, *, ready: bool = True) -> LiveServer:
    """A server in whose eyes both.test is a name of either family."""
    words = [word for group in binds for bind in group for word in ("--bind", bind)]
    options = (*words, "--workers", str(workers), "--no-access-log", "--control", "off")
    server = LiveServer("main:app", *options, cwd=folder, ready=ready)
    (folder / "hosts").write_text("127.0.0.1 localhost both.test\n::1 localhost both.test\n")
    named = f'mount --bind {folder}/hosts /etc/hosts && exec "$0" "$@"'
    server.argv = ["unshare", "--mount", "sh", "-c", named, *server.argv]
    return server


def check(binds: list[tuple[list[str], set[str]]], workers: int) -> None:
    for group, hosts in binds:
        port = int(group[0].rpartition(":")[2])
        seen = {host for host in ("127.0.0.1", "::1") if (said := ask(host, port)) and said.split()[0] == host}
        assert seen == hosts, group
    pids: set[str] = set()
    while len(pids) < workers:
        clients = [http.client.HTTPConnection("127.0.0.1", 8001, timeout=WAIT_S) for _ in range(2 * workers)]
        for client in clients:
            client.request("GET", "/")
        pids |= {client.getresponse().read().decode().split()[1] for client in clients}
        for client in clients:
            client.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_ipv4_and_ipv6_follow_one_rule_with_and_without_ipv6(tmp_path: Path, network: Any, workers: int) -> None:
    if network.kind != "network namespaces":
        pytest.skip("no network namespace may be made here, and every interface of this machine is not for a test to listen on")
    write_app(tmp_path, APP)
    with network.instance(0):
        with serve(tmp_path, [group for group, _ in BINDS], workers):
            check(BINDS, workers)

        subprocess.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], check=True)
        left = [(group, {"127.0.0.1"}) for group, hosts in BINDS if group == ["both.test:8007"] or hosts == {"127.0.0.1"}]
        with serve(tmp_path, [group for group, _ in left], workers):
            check(left, workers)
        with serve(tmp_path, [["127.0.0.1:8005"], ["[::1]:8006"]], workers, ready=False) as refused:
            refused.wait_line(r"\[::1\] is not an address of this machine, so \[::1\]:8006 cannot be listened on", WAIT_S)
            refused.wait_exit(3)
