"""What the metrics cost a raw hello: counting each request, with its two times and their histograms, and the clock that is read for it.

Counting cannot be switched off, so it is not measured by leaving it out:

- instructions: callgrind counts those of the whole worker, of `Ledger.answered`, and of the reads of the clock, all that they call
  included, while the same requests are asked. Their share is what the metrics cost. Needs a compiled Cavalcade: in the other callgrind
  sees no functions.
- time: how long `Ledger.answered` and two reads of the clock take when they are called from Python, which is dearer than from compiled
  code, over the CPU time of a request under wrk, kernel time and the supervisor's part included.

Needs valgrind and wrk; Linux only.

    python bench/metrics_cost.py --python .venv-compiled/bin/python --require 0.03    exits with 1 when either is above 3 %
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
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from overhead import COUNTED, WARM_UP, answered, ask, serving, steer, url
from speed.process import BENCH, cores, cpu_s, pinned

ARM = "all"
COUNTING = ("Ledger_answered",)
CLOCK = ("_PyTime_GetPerfCounter", "PyTime_PerfCounterRaw", "PyTime_PerfCounter")
CONNECTIONS = 50
ROUNDS, ROUND_S = 5, 2
MICRO = """
import statistics, time, timeit
from cavalcade.board.ledger import private_ledger
answered, clock = private_ledger().answered, time.perf_counter
def one(): answered("GET", 200, 13, 0.0001, 0.0001); clock(); clock()
def none(): pass
N = 200_000
print(min(timeit.repeat(one, number=N, repeat=7)) / N - min(timeit.repeat(none, number=N, repeat=7)) / N)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter with the Cavalcade to measure")
    parser.add_argument("--require", type=float, metavar="SHARE", help="exit 1 when either share is above this, 0.03 for 3 %%")
    parser.add_argument("--no-time", action="store_true", help="instructions only: they are the same on a busy machine")
    options = parser.parse_args()
    python = os.path.abspath(options.python)
    valgrind, wrk = shutil.which("valgrind"), shutil.which("wrk")
    if valgrind is None or wrk is None:
        print("metrics_cost: needs wrk and valgrind; on Debian or Ubuntu: apt-get install wrk valgrind", file=sys.stderr)
        return 2
    shares = []
    total, counting, clock = instructions(python, valgrind)
    if counting:
        shares.append((counting + clock) / total)
        print(f"instructions a request: {total:,.0f}; counting {counting:,.0f}, clock {clock:,.0f}: {shares[-1]:.2%}")
    else:
        print(f"instructions a request: {total:,.0f}; of which for metrics cannot be seen: not compiled, or without symbols")
    if not options.no_time:
        request_s, metrics_s = cpu_per_request(python, wrk), micro(python)
        shares.append(metrics_s / request_s)
        said = f"CPU time a request: {request_s * 1e6:.2f} us"
        print(f"{said}; metrics, called from Python, {metrics_s * 1e9:.0f} ns: {shares[-1]:.2%}")
    if options.require is not None and any(share > options.require for share in shares):
        print(f"metrics_cost: {max(shares):.1%}; at most {options.require:.1%} was required", file=sys.stderr)
        return 1
    return 0


def instructions(python: str, valgrind: str) -> tuple[float, float, float]:
    """Of one request: all, those for counting, those for the clock."""
    with tempfile.TemporaryDirectory() as folder:
        under = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", f"--callgrind-out-file={folder}/out.%p"]
        with serving(ARM, python, under) as (server, address), ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(CONNECTIONS)]
            ask(clients, CONNECTIONS)
            steer(server.pid, "instrumentation", "on")
            ask(clients, WARM_UP)
            steer(server.pid, "zero")
            for path in Path(folder).iterdir():
                path.write_text("")
            ask(clients, COUNTED)
            steer(server.pid, "dump")
            # The worker is the process that has counted.
            costs = max((read(path) for path in Path(folder).iterdir()), key=lambda found: (found[1], found[0]))
    return costs[0] / COUNTED, costs[1] / COUNTED, costs[2] / COUNTED


def read(path: Path) -> tuple[int, int, int]:
    """Inclusive costs in a dump of callgrind's: of all, of counting, of the clock. Names stand there in full only once."""
    names: dict[str, str] = {}
    inclusive: dict[str, int] = defaultdict(int)
    function = ""
    total = 0
    for line in path.read_text().splitlines():
        if match := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?$", line):
            if match[3]:
                names[match[2]] = match[3]
            if not match[1]:
                function = names.get(match[2], "")
        elif function and re.match(r"([+-]?\d+|\*) \d+$", line):
            # What the function has cost by itself; behind a line calls=, what those have cost that it has called.
            inclusive[function] += int(line.rsplit(" ", 1)[1])
        elif line.startswith("summary:"):
            total += int(line.split()[1])
    return total, _of(inclusive, COUNTING), _of(inclusive, CLOCK)


def _of(inclusive: dict[str, int], wanted: tuple[str, ...]) -> int:
    """Of the outermost of these: a wrapper and what it wraps have the same cost, and are counted once."""
    return max((cost for name, cost in inclusive.items() if name.split("'")[0].endswith(wanted)), default=0)


def cpu_per_request(python: str, wrk: str) -> float:
    """Seconds, the median of some rounds."""
    _, client_cpu = cores()
    drive = pinned(client_cpu, [wrk, "-t1", "-c64", f"-d{ROUND_S}s"])
    found = []
    with serving(ARM, python) as (server, address):
        for _ in range(ROUNDS):
            before = cpu_s(server.pid)
            done = subprocess.run([*drive, url(address)], check=True, capture_output=True, text=True)
            found.append((cpu_s(server.pid) - before) / answered(done.stdout))
    return statistics.median(found[1:])


def micro(python: str) -> float:
    """Seconds for counting one request, and two reads of the clock."""
    command = pinned(cores()[0], [python, "-c", MICRO])
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=BENCH).stdout)


if __name__ == "__main__":
    sys.exit(main())
