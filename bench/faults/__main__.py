"""Drill a server under traffic and count every request that is lost. See docs/faults.md.

    python bench/faults                             every drill on Cavalcade
    python bench/faults --drill reload --loop asyncio
    python bench/faults --drill deaths --drill stall-regex    a group of drills, and one
    python bench/faults --peers .venv-peers/bin/python    the drills that others know, on them too

Exits with 1 when a verdict on Cavalcade is bad.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import drills
from outcome import Outcome, markdown_table, text_table
from subjects import CAVALCADE, PEERS, Subject

RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    options = parse()
    outcomes: list[Outcome] = []
    wanted = options.drill or list(drills.FOR_ALL if options.peers else drills.ALL)
    names = [name for each in wanted for name in drills.GROUPS.get(each, (each,))]
    for loop in options.loop.split(","):
        outcomes += [drill(name, CAVALCADE, options, sys.executable, loop) for name in names]
    if options.peers:
        for subject in PEERS:
            if options.only and subject.name not in options.only:
                continue
            outcomes += [drill(name, subject, options, options.peers, "") for name in names if name in drills.FOR_ALL]
    found = versions(options)
    path = save(outcomes, found)
    print()
    print(markdown_table(outcomes) if options.markdown else text_table(outcomes))
    print("\n" + ", ".join(f"{package} {version}" for package, version in found.items()))
    print(f"{drills.environment()}, CPython {platform.python_version()}; written to {path}")
    return int(any(not outcome.good for outcome in outcomes if outcome.server.startswith(CAVALCADE.name)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python bench/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--drill", action="append", choices=sorted(drills.ALL | drills.GROUPS), help="only this one, or this group; repeatable"
    )
    parser.add_argument("--loop", default="uvloop", help="uvloop, asyncio or both as uvloop,asyncio (default: uvloop)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the drills that just go on for a while take (default: 10)")
    parser.add_argument("--reloads", type=int, default=20, help="reloads in the drill of that name (default: 20)")
    parser.add_argument("--requests", type=int, default=100_000, help="the least requests over all reloads (default: 100000)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with the other servers; drill them too")
    parser.add_argument("--only", action="append", metavar="PEER", help=f"of {', '.join(peer.name for peer in PEERS)}; repeatable")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--show", action="store_true", help="where a verdict is bad, show each loss and what the server said")
    options = parser.parse_args()
    if options.peers:
        # Servers run in directories of their own. Not resolved: the interpreter of a virtual environment is a link.
        options.peers = str(Path(options.peers).absolute())
        if not os.access(options.peers, os.X_OK):
            parser.error(f"--peers {options.peers}: no such program; `make faults-peers` sets it up")
    return options


def drill(name: str, subject: Subject, options: argparse.Namespace, python: str, loop: str) -> Outcome:
    chosen = drills.Options(python, loop, options.seconds, options.reloads, options.requests, options.workers, options.show)
    print(f"{subject.name} {loop} {name} ...".replace("  ", " "), end=" ", file=sys.stderr, flush=True)
    outcome = drills.run(name, subject, chosen)
    print(f"{outcome.requests:,} requests, {outcome.failed} failed: {outcome.verdict()}", file=sys.stderr, flush=True)
    return outcome


def versions(options: argparse.Namespace) -> dict[str, str]:
    """The versions of everything that was drilled, as installed where it ran."""
    found: dict[str, str] = {}
    places = [(sys.executable, CAVALCADE.packages)]
    if options.peers:
        places += [(options.peers, peer.packages) for peer in PEERS]
    for python, packages in places:
        for package in packages:
            code = f"import importlib.metadata as m; print(m.version({package!r}))"
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
            found[package] = done.stdout.strip() or "not installed"
    return found


def save(outcomes: list[Outcome], found: dict[str, str]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"faults-{now:%Y%m%d-%H%M%S}.json"
    report = {
        "when": now.isoformat(timespec="seconds"),
        "machine": drills.environment(),
        "python": platform.python_version(),
        "versions": found,
        "outcomes": [asdict(outcome) | {"verdict": outcome.verdict()} for outcome in outcomes],
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
