"""Measure Cavalcade beside its peers: CPU for each request, rate, latency, errors and memory, on every kind of work that a server does.

One command: it installs the peers and both builds of Cavalcade in environments of their own, measures, and writes a table, JSON and a
chart to bench/results/. Each server is pinned to one core and the load to another. What each case is and how to read the numbers:
docs/performance.md.

    python bench/run.py                                                      everything, about a quarter of an hour
    python bench/run.py --case raw --peer granian --rounds 3 --seconds 3     one case, Cavalcade and granian
    python bench/run.py --python python3.13                                  with another CPython
    python bench/run.py --docs                                               put the results so far into docs/performance.md

A run replaces the cases that it measures in bench/results/cpython-X.Y.json, and leaves the others there.
Needs two cores, wrk and, for HTTP/2, h2load; nginx where it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import serialization
from speed import chart, report
from speed.cases import CASES, Case
from speed.contenders import CONTENDERS
from speed.environments import BUILDS, Environments, prepare
from speed.measure import Result, Setting, run_case, say, write_file
from speed.process import BENCH, cores, cpu_model, step_aside

from cavalcade.testing.certificates import Authority

RESULTS = BENCH / "results"
PAGE = BENCH.parent / "docs" / "performance.md"
# How it is asked for its version, and the Debian package that it is in.
TOOLS = {"wrk": ("-v", "wrk"), "h2load": ("--version", "nghttp2-client"), "nginx": ("-v", "nginx-light")}


def main() -> int:
    options = parse()
    if options.docs:
        return write_page()
    if options.list:
        for case in CASES.values():
            print(f"{case.name:14} {case.title}: {'; '.join(case.contenders)}")
        return 0
    cores()  # before this process leaves one of them
    # What ends this process ends the servers that it has started too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    missed = 0
    for python in options.python or [sys.executable]:
        missed += measure_with(python, options)
    return 1 if options.strict and missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", metavar="NAME", help=f"only this; repeatable; of {', '.join(CASES)}")
    parser.add_argument("--peer", action="append", metavar="NAME", help="Cavalcade and only this; repeatable; `--list` names them all")
    parser.add_argument(
        "--python", action="append", metavar="PYTHON", help="a CPython to measure with; repeatable (default: the one that runs this)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the table has the medians (default: 3)")
    parser.add_argument("--seconds", type=int, default=1, help="how long each time (default: 1)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal that was measured is missed")
    parser.add_argument("--list", action="store_true", help="name the cases and who takes part, and stop")
    parser.add_argument("--docs", action="store_true", help="put the results in bench/results/ into docs/performance.md, and stop")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    for given, known in ((options.case, CASES), (options.peer, CONTENDERS)):
        for name in given or ():
            if name not in known:
                parser.error(f"{name!r} is not known; known are: {'; '.join(known)}")
    return options


def measure_with(python: str, options: argparse.Namespace) -> int:
    """One CPython; returns how many goals it missed."""
    chosen = {name: takes_part(case, options.peer) for name, case in CASES.items() if not options.case or name in options.case}
    builds = {CONTENDERS[name].where for names in chosen.values() for name in names} & set(BUILDS)
    environments = prepare(shutil.which(python) or python, builds, say)
    path = RESULTS / f"cpython-{environments.series}.json"
    write_file()
    step_aside()
    results: report.Results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = settle(Path(folder), environments, options)
        for name, names in chosen.items():
            result = run_case(CASES[name], names, setting)
            # After every case: what was measured is not lost when a later one is interrupted.
            results = report.merge(path, as_results(result, environments, setting))
            print(
                f"\n{CASES[name].title} (CPython {environments.version})\n\n{report.case_table(name, results['cases'][name])}\n", flush=True
            )
    measured = results | {"cases": {name: results["cases"][name] for name in chosen}}
    print("\n".join(report.described(results)))
    print(f"\n{report.goal_table(measured)}\n")
    path.with_suffix(".md").write_text(report.whole(results) + "\n")
    (RESULTS / report.chart_name(results)).write_text(chart.draw(results))
    print(f"written to bench/results/: {path.name}, {path.with_suffix('.md').name}, {report.chart_name(results)}")
    return sum(verdict.reached is False for verdict in report.verdicts(measured))


def takes_part(case: Case, peers: list[str] | None) -> list[str]:
    return [name for name in case.contenders if not peers or name in peers or CONTENDERS[name].role == "ours"]


def settle(folder: Path, environments: Environments, options: argparse.Namespace) -> Setting:
    """What all cases need. A tool that is not there is a reason for those who need it."""
    authority = Authority(folder)
    pair = authority.pair
    key = serialization.load_pem_private_key(pair.keyfile.read_bytes(), None)
    # The one form of a key that all of them read.
    pkcs8 = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pair.keyfile.write_bytes(pkcs8)
    reasons = dict(environments.reasons)
    for tool, (_, package) in TOOLS.items():
        if shutil.which(tool) is None:
            reasons[tool] = f"{tool} is not installed; on Debian or Ubuntu: apt-get install {package}"
    return Setting(
        pythons=environments.pythons,
        reasons=reasons,
        folder=folder,
        certificate=(str(pair.certfile), str(pair.keyfile)),
        trust=authority.client(),
        rounds=options.rounds,
        seconds=options.seconds,
    )


def as_results(result: Result, environments: Environments, setting: Setting) -> report.Results:
    case = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "rounds": result.case.rounds or setting.rounds,
        "seconds": setting.seconds,
        "samples": report.as_json(result.samples),
        "missing": {name: cleaned(reason) for name, reason in result.missing.items()},
    }
    # A kernel's own name after its number tells who runs the machine.
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    memory = round(psutil.virtual_memory().total / 2**30)
    return {
        "cpython": environments.version,
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": memory, "system": system},
        "tools": {tool: version(tool) for tool in TOOLS if shutil.which(tool)},
        "versions": versions(environments),
        "cases": {result.case.name: case},
    }


def versions(environments: Environments) -> dict[str, str]:
    """Of what is measured, and what it runs on."""
    wanted = {package for contender in CONTENDERS.values() for package in contender.packages}
    found: dict[str, str] = {}
    for packages in environments.packages.values():
        found |= {name: version for name, version in packages.items() if name in wanted}
    return dict(sorted(found.items()))


def version(tool: str) -> str:
    done = subprocess.run([tool, TOOLS[tool][0]], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d[\w.+-]*", done.stdout + done.stderr)
    return match[0] if match else "of a version that it does not tell"


def cleaned(reason: str) -> str:
    """Without the paths of this machine."""
    return reason.replace(str(BENCH.parent), ".").replace(str(Path.home()), "~")


def write_page() -> int:
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("cpython-*.json"))]
    if not found:
        print("bench: nothing was measured yet; run `make bench` first", file=sys.stderr)
        return 1
    for results in found:
        (PAGE.parent / report.chart_name(results)).write_text(chart.draw(results))
    PAGE.write_text(report.into_page(PAGE.read_text("utf-8"), found), "utf-8")
    print(f"docs/{PAGE.name} has the results of CPython {', '.join(results['cpython'] for results in found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
