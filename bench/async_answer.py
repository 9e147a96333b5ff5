"""Does a process manager in front of an async app keep it asynchronous? One FastAPI app (apps_async.py), the same requests at once, on
uvicorn alone, on gunicorn with uvicorn's worker, and on Cavalcade, with one worker and with several.

Each row is a server, each column so many requests at once, each on a connection of its own that was opened just before; the time is until
the last is answered. Nothing here is about speed: all but a few milliseconds of each request is waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from speed.process import Server, Unmeasurable, cpu_model, free_port, stop, wait_answer

from cavalcade.doctor.client import Request, ask

HERE = Path(__file__).parent
APP = "apps_async:app"
COLUMNS = (("/awaits", 50), ("/awaits", 100), ("/sync", 50), ("/sync", 100), ("/blocks", 10))
ALL_READY_S = 4.0  # after the first worker has answered
PATIENCE_S = 60.0

VERSIONS = (
    "import importlib.metadata as m, platform; names = {names!r}.split(); "
    "print(', '.join(['CPython ' + platform.python_version()] + [n + ' ' + m.version(n) for n in names]))"
)


def uvicorn(options: argparse.Namespace, port: int) -> list[str]:
    return [options.peers_python, "-m", "uvicorn", APP, "--port", str(port), "--log-level", "warning", "--no-access-log"]


def gunicorn(options: argparse.Namespace, port: int, workers: int) -> list[str]:
    command = [options.peers_python, "-m", "gunicorn", APP, "-k", "uvicorn_worker.UvicornWorker", "-w", str(workers)]
    return [*command, "-b", f"127.0.0.1:{port}", "--log-level", "warning"]


def cavalcade(port: int, workers: int) -> list[str]:
    command = [sys.executable, "-m", "cavalcade", APP, "-w", str(workers), "-b", f"127.0.0.1:{port}"]
    return [*command, "--no-access-log", "--log-level", "error"]


SERVERS: dict[str, Callable[[argparse.Namespace, int], list[str]]] = {
    "uvicorn, 1": uvicorn,
    "gunicorn + uvicorn worker, 1": lambda options, port: gunicorn(options, port, 1),
    "gunicorn + uvicorn worker, N": lambda options, port: gunicorn(options, port, options.workers),
    "cavalcade, 1": lambda options, port: cavalcade(port, 1),
    "cavalcade, N": lambda options, port: cavalcade(port, options.workers),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers-python", type=os.path.abspath, default=sys.executable, metavar="PYTHON", help="interpreter with the peers and FastAPI"
    )
    parser.add_argument("--workers", type=int, default=4, help="how many N is (default: 4)")
    parser.add_argument("--rounds", type=int, default=1, help="the table has the medians (default: 1)")
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = {name: [] for name in SERVERS}
    for number in range(1, options.rounds + 1):
        for name, command in SERVERS.items():
            port = free_port()
            times = measure(command(options, port), port)
            rows[name].append(times)
            print(f"round {number}/{options.rounds}  {name:30}", *(f"{each:6.2f} s" for each in times), file=sys.stderr)
    print("| server, workers |", " | ".join(f"{count} x `{path}`" for path, count in COLUMNS), "|")
    print("|---|" + "---:|" * len(COLUMNS))
    for name, rounds in rows.items():
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        print(f"| {name.replace(' N', f' {options.workers}')} |", " | ".join(f"{each:.2f} s" for each in medians), "|")
    ours = versions(sys.executable, "cavalcade uvloop fastapi")
    theirs = versions(options.peers_python, "uvicorn gunicorn uvicorn-worker uvloop fastapi")
    print(f"\n{cpu_model()}, {len(os.sched_getaffinity(0))} CPUs; {ours}; peers: {theirs}")
    return 0


def measure(command: list[str], port: int) -> list[float]:
    """The time of each column. Raises `Unmeasurable`."""
    server = Server(command)
    try:
        wait_answer(server, f"http://127.0.0.1:{port}/")
        time.sleep(ALL_READY_S)
        return asyncio.run(columns(f"http://127.0.0.1:{port}"))
    finally:
        stop(server)


async def columns(url: str) -> list[float]:
    times = []
    for path, count in COLUMNS:
        answers, wall_s = await ask(url, Request(path), count, PATIENCE_S)
        bad = [answer for answer in answers if answer.status != 200 or not answer.complete]
        if bad:
            raise Unmeasurable(f"{len(bad)} of {count} x {path} were not answered well, one of them: {bad[0]}")
        times.append(wall_s)
    return times


def versions(python: str, names: str) -> str:
    return subprocess.check_output([python, "-c", VERSIONS.format(names=names)], text=True).strip()


if __name__ == "__main__":
    sys.exit(main())
