"""What supervision costs: the same raw hello with all of it on, and with none of it.

    all      the server as it comes: supervisor, nursery, board, heartbeats, the watch for stalls, the control socket
    options  the same with --stall-warn 0 --stall-kill 0 --control off
    none     cavalcade.run(app): one process with nothing but the event loop that serves, and nobody who watches it

Nothing of it is done for a request: it is done so many times a second. Measured is, on one core:

- instructions (valgrind's callgrind, the same in every run): per second while one connection is open and nobody asks, when a worker beats
  as often as under load; and per request. What supervision costs is the first over what a core does in that second, which is the
  second times the requests that a core can answer in it. Kernel time is not in it.
- CPU time (the processes' own clocks), kernel time included: per idle second, where waking up is most of it; and per request, over the
  total of `none` in the same round. All run at the same time and wrk asks one after the other, again and again, so that what
  the machine does to one it does to all; still this has all the noise of the machine.

Needs wrk, and valgrind for the instructions; Linux only.

    python bench/overhead.py --require 0.01    exits with 1 when the share in instructions is above 1 %
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from apps import BODY
from speed.process import HOST, Server, cores, cpu_model, cpu_s, family, free_port, pinned, stop, wait_answer

TURN_S = 1
WARM_UP, COUNTED, COUNTED_S = 300, 1000, 5.0
VALGRIND_S = 60
ALONE = "import sys; import apps, cavalcade; cavalcade.run(apps.raw, bind=sys.argv[1], loop='uvloop', access_log=False)"
SUPERVISED = ("-m", "cavalcade", "apps:raw", "--workers", "1", "--loop", "uvloop", "--no-access-log", "--bind")
ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all": (SUPERVISED, ()),
    "options": (SUPERVISED, ("--stall-warn", "0", "--stall-kill", "0", "--control", "off")),
    "none": (("-c", ALONE), ()),
}


@dataclass
class Measured:
    """One arm: CPU seconds per second while idle, and per request, one of each for every round; and the instructions of both."""

    idle: list[float] = field(default_factory=list)
    request_s: list[float] = field(default_factory=list)
    instructions_s: float = 0.0
    instructions: float = 0.0


def main() -> int:
    options = parse()
    wrk, valgrind = shutil.which("wrk"), shutil.which("valgrind")
    if wrk is None or valgrind is None:
        print("overhead: needs wrk and valgrind; on Debian or Ubuntu: apt-get install wrk valgrind", file=sys.stderr)
        return 2
    results = {name: Measured() for name in ARMS}
    for number in range(options.rounds):
        measure(results, wrk, options)
        print(f"round {number + 1}/{options.rounds}: {round_line(results)}", file=sys.stderr)
    for name, each in results.items():
        each.instructions_s, each.instructions = count(name, options.python, valgrind)
        print(f"{name}: {each.instructions_s:,.0f} instructions a second, {each.instructions:,.0f} a request", file=sys.stderr)
    return report(results, options.require)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=os.path.abspath, default=sys.executable, help="interpreter with the Cavalcade to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-seconds", type=float, default=2.0, help="how long each is watched while nobody asks (default: 2)")
    parser.add_argument("--turns", type=int, default=10, help="how often each is asked for a second in every round (default: 10)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--require", type=float, metavar="SHARE", help="exit 1 when supervision costs more than this, 0.01 for 1 %%")
    return parser.parse_args()


# -- one measurement -----------------------------------------------------------------------------------------------------


def measure(results: dict[str, Measured], wrk: str, options: argparse.Namespace) -> None:
    """One round."""
    _, load_core = cores()
    drive = pinned(load_core, [wrk, "-t1", f"-c{options.connections}", f"-d{TURN_S}s"])
    used_s, requests = dict.fromkeys(ARMS, 0.0), dict.fromkeys(ARMS, 0)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, options.python)) for name in ARMS}
        for name, (server, address) in servers.items():
            subprocess.run([*drive, url(address)], check=True, capture_output=True)
            with socket.create_connection(address):  # one connection is enough for the fast beat
                before, began = cpu_s(server.pid), time.monotonic()
                time.sleep(options.idle_seconds)
                results[name].idle.append((cpu_s(server.pid) - before) / (time.monotonic() - began))
        for turn in range(options.turns):
            for name, (server, address) in list(servers.items())[:: 1 if turn % 2 else -1]:
                before = cpu_s(server.pid)
                done = subprocess.run([*drive, url(address)], check=True, capture_output=True, text=True)
                used_s[name] += cpu_s(server.pid) - before
                requests[name] += answered(done.stdout)
    for name, each in results.items():
        each.request_s.append(used_s[name] / requests[name])


def answered(text: str) -> int:
    """How many requests wrk saw answered."""
    match = re.search(r"(\d+) requests in", text)
    if match is None:
        raise SystemExit(f"overhead: wrk's output is not understood:\n{text}")
    return int(match[1])


def url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}/"


@contextmanager
def serving(name: str, python: str, under: Sequence[str] = ()) -> Iterator[tuple[Server, tuple[str, int]]]:
    server_core, _ = cores()
    address = (HOST, free_port())
    before, after = ARMS[name]
    command = [*under, python, *before, f"{address[0]}:{address[1]}", *after]
    # The same seed for all: dicts that collide differently are a difference of several per cent.
    server = Server(pinned(server_core, command), PYTHONHASHSEED="0")
    try:
        wait_answer(server, url(address))
        yield server, address
    finally:
        stop(server)


# -- instructions --------------------------------------------------------------------------------------------------------


def count(name: str, python: str, valgrind: str, connections: int = 1) -> tuple[float, float]:
    """Instructions per second in which nobody asks, and per request without those. All of the connections ask at once, then again."""
    with tempfile.TemporaryDirectory() as folder:
        under = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", f"--callgrind-out-file={folder}/out.%p"]
        with serving(name, python, under) as (server, address), ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(connections)]
            ask(clients, connections)  # the worker is there
            steer(server.pid, "instrumentation", "on")
            ask(clients, WARM_UP)
            idled, took_s = read_counters(server.pid, folder, lambda: time.sleep(COUNTED_S))
            per_s = idled / took_s
            total, took_s = read_counters(server.pid, folder, lambda: ask(clients, COUNTED))
            return per_s, (total - per_s * took_s) / COUNTED


def read_counters(root: int, folder: str, act: Callable[[], object]) -> tuple[int, float]:
    """Instructions of all processes while something is done, and how long that took."""
    steer(root, "zero")
    began = time.monotonic()
    act()
    steer(root, "dump")
    took_s = time.monotonic() - began
    total = 0
    for path in Path(folder).iterdir():
        total += sum(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("summary:"))
        path.write_text("")
    return total, took_s


def steer(root: int, *command: str) -> None:
    for process in family(root):
        subprocess.run(["vgdb", f"--pid={process.pid}", *command], check=True, capture_output=True, timeout=VALGRIND_S)


def ask(clients: Sequence[socket.socket], times: int) -> None:
    """About so many requests."""
    for _ in range(times // len(clients)):
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        for client in clients:
            answer = b""
            while not answer.endswith(BODY):
                answer += client.recv(4096)


# -- the report ----------------------------------------------------------------------------------------------------------


def ratios(results: dict[str, Measured], name: str) -> list[float]:
    """CPU per request over that of `none`, round by round."""
    return [mine / base for mine, base in zip(results[name].request_s, results["none"].request_s, strict=True)]


def round_line(results: dict[str, Measured]) -> str:
    return ", ".join(f"{name} {each.idle[-1] * 1000:.2f} ms/s {each.request_s[-1] * 1e6:.2f} us" for name, each in results.items())


def report(results: dict[str, Measured], required: float | None) -> int:
    print(f"\n{cpu_model()}, CPython {sys.version.split()[0]}, {len(results['none'].idle)} rounds\n")
    print("| supervision | instructions/s | instructions/request | share | CPU ms per idle second | CPU us/request | over none |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    failed = 0
    # Of the fastest round, which was disturbed least: what the core can do.
    core = results["none"].instructions / min(results["none"].request_s)
    for name, each in results.items():
        share = each.instructions_s / core
        over = statistics.median(ratios(results, name))
        print(
            f"| {name} | {each.instructions_s / 1e6:.2f} M | {each.instructions:,.0f} | {share:.2%} "
            f"| {statistics.median(each.idle) * 1000:.2f} | {statistics.median(each.request_s) * 1e6:.2f} | {over - 1:+.1%} |"
        )
        if required is not None and share > required:
            print(f"overhead: {name} takes {share:.2%} of a core; at most {required:.2%} was required", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
