"""What an access line costs: instructions for each request (valgrind's callgrind, the same in every run) of a raw hello, over none.

Asked by so many connections at once, then again: lines of one turn of the loop go out together. With `--connections 1` each is a batch of
its own. Needs valgrind; Linux only.

    python bench/access_log.py --python .venv-compiled/bin/python --require 0.05    exits with 1 when the usual line costs more than 5 %
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

import overhead
from overhead import count

SERVED = ("-m", "cavalcade", "apps:raw", "--workers", "1", "--loop", "uvloop", "--bind")
TEMPLATE = "{time} {client} {method} {target} {status} {bytes} {duration_ms} {ttfb_ms} {route} {request_id}"
ARMS: dict[str, tuple[str, ...]] = {
    "none": ("--no-access-log",),
    "usual": (),
    "usual with --request-id": ("--request-id", "make"),
    "combined": ("--access-log-format", "combined"),
    "template": ("--access-log-format", TEMPLATE),
    "json": ("--log-format", "json"),
    "template, one in 10": ("--access-log-format", TEMPLATE, "--access-log-sample", "10"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=os.path.abspath, default=sys.executable, help="interpreter with the Cavalcade to measure")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--require", type=float, metavar="SHARE", help="exit 1 when the usual line costs more than this, 0.05 for 5 %%")
    options = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("access_log: needs valgrind; on Debian or Ubuntu: apt-get install valgrind", file=sys.stderr)
        return 2
    overhead.ARMS = {name: (SERVED, arguments) for name, arguments in ARMS.items()}
    costs = {}
    for name in ARMS:
        _, costs[name] = count(name, options.python, valgrind, options.connections)
        print(f"{name}: {costs[name]:,.0f} instructions a request", file=sys.stderr)
    base = costs["none"]
    print("\n| access line | instructions/request | over none |\n|---|---:|---:|")
    for name, cost in costs.items():
        print(f"| {name} | {cost:,.0f} | {cost / base - 1:+.1%} |")
    if options.require is not None and costs["usual"] > base * (1 + options.require):
        print(
            f"access_log: the usual line costs {costs['usual'] / base - 1:.1%}; at most {options.require:.1%} was required", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
