"""Measure HTTP/2 in the clear: CPU per request of Cavalcade and its peers, one worker each, on the same app.

Needs h2load (Debian: `apt-get install nghttp2-client`). 16 connections with 8 requests in flight on each. Two kinds of traffic: in
`same` every request is the same, as from a service that polls; in `varied` there are 500 targets in turn with a browser's fields, as from a
proxy. The server is pinned to one core and h2load to another; every round starts every server afresh. Reported, as medians over the
rounds: requests a second, CPU (user and system time of all the server's processes) per request, and that CPU over the best peer's in
the same round. hypercorn closes a connection after 1000 requests, so there are fewer on each.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from run import PEERS, Contender, Unmeasurable, cavalcade, cores, cpu_s, launch, stop
from ws_echo import report, wait_listening

WARM_UP_REQUESTS = 2000
TARGETS = 500
FIELDS = [
    "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language: en-US,en;q=0.5",
    "accept-encoding: gzip, deflate, br",
    "cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
]


def measure(contender: Contender, kind: str, h2load: str, options: argparse.Namespace) -> tuple[float, float]:
    """(requests a second, CPU seconds per request)."""
    server_cpu, client_cpu = cores()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = launch(["taskset", "-c", str(server_cpu), *contender.command(contender.python, "apps:raw", port)])
    try:
        wait_listening(server, port)
        with tempfile.NamedTemporaryFile("w") as targets:
            drive = ["taskset", "-c", str(client_cpu), h2load, f"-c{options.connections}", f"-m{options.in_flight}"]
            if kind == "same":
                drive.append(f"http://127.0.0.1:{port}/")
            else:
                urls = [f"http://127.0.0.1:{port}/items/{n}?page={7 * n}&token={99991 * n}" for n in range(TARGETS)]
                targets.write("\n".join(urls) + "\n")
                targets.flush()
                drive += [f"-i{targets.name}", *[f"-H{field}" for field in FIELDS]]
            subprocess.run([*drive, f"-n{WARM_UP_REQUESTS}"], check=True, capture_output=True)
            used, began = cpu_s(server.pid), time.monotonic()
            done = subprocess.run([*drive, f"-n{options.requests}"], check=True, capture_output=True, text=True)
            used, took = cpu_s(server.pid) - used, time.monotonic() - began
    except subprocess.CalledProcessError as error:
        raise Unmeasurable(f"h2load failed: {error.stderr or error.stdout!r}") from error
    finally:
        stop(server)
    statuses = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if statuses is None or int(statuses[1]) != options.requests:
        raise Unmeasurable(f"not every request was answered well: {done.stdout[-600:]}")
    return options.requests / took, used / options.requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cavalcade", action="append", default=[], metavar="PYTHON", help="interpreter with a Cavalcade; repeatable")
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON", help="interpreter with the peers")
    parser.add_argument("--peers", default="hypercorn,granian", help="(default: hypercorn,granian)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=12_800)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=8)
    options = parser.parse_args()
    h2load = shutil.which("h2load")
    if h2load is None:
        print("bench: h2load is not installed; on Debian or Ubuntu: apt-get install nghttp2-client", file=sys.stderr)
        return 2
    contenders = []
    for python in options.cavalcade or [sys.executable]:
        kind = subprocess.check_output([python, "-c", "from cavalcade import build; print(build.kind())"], text=True).strip()
        contenders.append(Contender(f"cavalcade ({kind})", python, cavalcade))
    peers = [peer for peer in options.peers.split(",") if peer]
    contenders += [Contender(peer, options.peers_python, PEERS[peer]) for peer in peers]
    failed = 0
    for kind in ("same", "varied"):
        rounds: list[dict[str, tuple[float, float]]] = []
        for number in range(1, options.rounds + 1):
            rounds.append({})
            for contender in contenders:
                try:
                    rounds[-1][contender.name] = rate, cpu = measure(contender, kind, h2load, options)
                except Unmeasurable as error:
                    print(f"bench: {contender.name} is left out: {error}", file=sys.stderr)
                    continue
                print(
                    f"{kind:6} round {number}/{options.rounds}  {contender.name:28} {rate:9,.0f} req/s {cpu * 1e6:7.2f} us", file=sys.stderr
                )
        print(f"\n{kind}:")
        failed |= report(contenders, peers, rounds, None, what="request")
    return failed


if __name__ == "__main__":
    sys.exit(main())
