"""Measure Cavalcade against uvicorn, and others where they are installed: one worker each, on one core, on the same app.

Needs wrk (Debian: `apt-get install wrk`). The server is pinned to one core and wrk to another; every round starts every server afresh
and measures them in turn, so that a slow minute of the machine hits all of them. Access log off; uvloop and httptools where a server
has the choice. Reported, as medians over the rounds:

- req/s, and latency p50 and p99, as wrk sees them
- CPU: user and system time of all the server's processes and threads, per request
- ratio: that CPU over uvicorn's in the same round. Below 1 is better than uvicorn; it is the number to trust on a shared machine

The table goes to the terminal, everything to bench/results/ as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

HERE = Path(__file__).parent
APPS = {"raw": "apps:raw", "fastapi": "apps_fastapi:app"}
BASE = "uvicorn"
BOOT_S = 30.0
STOP_S = 10.0
WARM_UP_S = 1

Command = Callable[[str, str, int], list[str]]  # (python, app, port)

PEERS: dict[str, Command] = {
    "uvicorn": lambda python, app, port: [
        *(python, "-m", "uvicorn", app, "--port", str(port), "--workers", "1"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ],
    "gunicorn": lambda python, app, port: [
        *(python, "-m", "gunicorn", app, "-k", "asgi", "-w", "1", "-b", f"127.0.0.1:{port}", "--log-level", "warning"),
    ],
    "granian": lambda python, app, port: [
        *(python, "-m", "granian", app, "--interface", "asgi", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
    ],
    "hypercorn": lambda python, app, port: [
        *(python, "-m", "hypercorn", app, "-w", "1", "-k", "uvloop", "-b", f"127.0.0.1:{port}", "--log-level", "warning"),
    ],
    "fastpysgi": lambda python, app, port: [
        *(python, "-c", "from fastpysgi import run_from_cli; run_from_cli()", app, "--host", "127.0.0.1", "--port", str(port)),
    ],
}


def cavalcade(python: str, app: str, port: int) -> list[str]:
    return [python, "-m", "cavalcade", app, "--bind", f"127.0.0.1:{port}", "--workers", "1", "--loop", "uvloop", "--no-access-log"]


class Unmeasurable(Exception):
    """A server did not answer, or answered wrongly."""


@dataclass
class Contender:
    name: str
    python: str
    command: Command


@dataclass
class Sample:
    """One server on one app in one round."""

    requests: int
    requests_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def main() -> int:
    options = parse()
    wrk = shutil.which("wrk")
    if wrk is None:
        print("bench: wrk is not installed; on Debian or Ubuntu: apt-get install wrk", file=sys.stderr)
        return 2
    contenders = find_contenders(options)
    results: dict[str, dict[str, list[Sample]]] = {app: {c.name: [] for c in contenders} for app in options.apps}
    for app in options.apps:
        for number in range(1, options.rounds + 1):
            for contender in contenders:
                if contender.name not in results[app]:
                    continue
                try:
                    sample = measure(contender, APPS[app], wrk, options)
                except Unmeasurable as error:
                    print(f"bench: {contender.name} is left out of {app}: {error}", file=sys.stderr)
                    del results[app][contender.name]
                    continue
                results[app][contender.name].append(sample)
                print(
                    f"{app:8} round {number}/{options.rounds}  {contender.name:22} "
                    f"{sample.requests_per_s:9,.0f} req/s {sample.cpu_us:7.1f} us",
                    file=sys.stderr,
                )
    report = summarise(results, options)
    path = save(report)
    print(table(report))
    print(f"\nwritten to {path}")
    return check(report, options.require)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cavalcade", action="append", metavar="PYTHON", help="interpreter with a Cavalcade to measure; repeatable")
    parser.add_argument("--peers", default=BASE, help=f"comma-separated, of {', '.join(PEERS)} (default: {BASE})")
    parser.add_argument("--apps", default=",".join(APPS), help=f"comma-separated, of {', '.join(APPS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="how long wrk runs each time (default: 4)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="APP=RATIO",
        help="exit 1 when any Cavalcade needs more than RATIO of uvicorn's CPU",
    )
    options = parser.parse_args()
    options.apps = options.apps.split(",")
    options.peers = [peer for peer in options.peers.split(",") if peer]
    for given, known in ((options.apps, APPS), (options.peers, PEERS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is not known; known are {', '.join(known)}")
    return options


def find_contenders(options: argparse.Namespace) -> list[Contender]:
    """Every Cavalcade that was named, once per kind of build, and the peers that are installed beside this script's interpreter."""
    found: dict[str, Contender] = {}
    for python in options.cavalcade or [sys.executable]:
        python = os.path.abspath(python)
        kind = subprocess.check_output([python, "-c", "from cavalcade import build; print(build.kind())"], text=True, cwd=HERE).strip()
        name = f"cavalcade ({kind})"
        if name in found:
            print(f"bench: {python} has {name} again; measured once", file=sys.stderr)
        found.setdefault(name, Contender(name, python, cavalcade))
    for peer in options.peers:
        if importlib.util.find_spec(peer) is None:
            print(f"bench: {peer} is not installed here; left out", file=sys.stderr)
        else:
            found[peer] = Contender(peer, sys.executable, PEERS[peer])
    return list(found.values())


# -- one measurement -----------------------------------------------------------------------------------------------------


def measure(contender: Contender, app: str, wrk: str, options: argparse.Namespace) -> Sample:
    server_cpu, client_cpu = cores()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    server = launch(["taskset", "-c", str(server_cpu), *contender.command(contender.python, app, port)])
    try:
        wait_ready(server, url)
        drive = ["taskset", "-c", str(client_cpu), wrk, "-t1", f"-c{options.connections}", "--latency"]
        subprocess.run([*drive, f"-d{WARM_UP_S}s", url], check=True, capture_output=True)
        before = cpu_s(server.pid)
        done = subprocess.run([*drive, f"-d{options.seconds}s", url], check=True, capture_output=True, text=True)
        used = cpu_s(server.pid) - before
    except subprocess.CalledProcessError as error:
        raise Unmeasurable(f"wrk failed, {(error.stderr or error.stdout)!r}; the server's exit code: {server.poll()}") from error
    finally:
        stop(server)
    return read_wrk(done.stdout, used)


def launch(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a server, from the directory of the apps that are measured, and with what it says of errors kept."""
    return subprocess.Popen(
        command,
        cwd=HERE,
        env={name: value for name, value in os.environ.items() if name not in ("PORT", "WEB_CONCURRENCY")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def cores() -> tuple[int, int]:
    """A core for the server and another for wrk, out of those this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("bench: needs two cores, one for the server and one for wrk")
    return usable[0], usable[1]


def wait_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=BOOT_S) as response:
                response.read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    server.kill()
    assert server.stderr is not None
    raise Unmeasurable(f"no answer on {url}\n{server.stderr.read().decode(errors='replace')}")


def cpu_s(root: int) -> float:
    """User and system time of a process, its threads and all its descendants so far, those that have been reaped included."""
    total = 0.0
    for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process.pid == root:
            total += times.children_user + times.children_system
    return total


def stop(server: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        server.wait()
    assert server.stderr is not None
    server.stderr.close()


UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def read_wrk(text: str, used_s: float) -> Sample:
    if trouble := re.search(r"(Non-2xx or 3xx responses: \d+|Socket errors: .*)", text):
        raise Unmeasurable(trouble[0])
    requests = int(find(r"(\d+) requests in", text)[1])

    def latency(percent: int) -> float:
        match = find(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text)
        return float(match[1]) * UNITS[match[2]]

    return Sample(requests, float(find(r"Requests/sec:\s+([\d.]+)", text)[1]), used_s / requests * 1e6, latency(50), latency(99))


def find(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"bench: wrk's output is not understood:\n{text}")
    return match


# -- the report --------------------------------------------------------------------------------------------------------------


def summarise(results: dict[str, dict[str, list[Sample]]], options: argparse.Namespace) -> dict[str, object]:
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    for app, by_name in results.items():
        base = by_name.get(BASE)
        summary[app] = {}
        for name, samples in by_name.items():
            # Round by round, because the machine's speed differs more between rounds than the servers do within one.
            ratios = [sample.cpu_us / other.cpu_us for sample, other in zip(samples, base or [], strict=bool(base))]
            summary[app][name] = {
                "requests_per_s": statistics.median(sample.requests_per_s for sample in samples),
                "cpu_us_per_request": statistics.median(sample.cpu_us for sample in samples),
                "p50_ms": statistics.median(sample.p50_ms for sample in samples),
                "p99_ms": statistics.median(sample.p99_ms for sample in samples),
                "cpu_ratio_to_uvicorn": statistics.median(ratios) if ratios else None,
            }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cpu": cpu_model(), "cpus": os.cpu_count()},
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "connections": options.connections},
        "summary": summary,
        "rounds": {app: {name: [vars(s) for s in samples] for name, samples in by_name.items()} for app, by_name in results.items()},
    }


def cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor()


def save(report: dict[str, object]) -> Path:
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def table(report: dict[str, object]) -> str:
    summary = report["summary"]
    assert isinstance(summary, dict)
    lines = [
        "",
        "| app | server | req/s | CPU us/request | p50 ms | p99 ms | CPU / uvicorn's |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for app, by_name in summary.items():
        for name, row in by_name.items():
            ratio = row["cpu_ratio_to_uvicorn"]
            lines.append(
                f"| {app} | {name} | {row['requests_per_s']:,.0f} | {row['cpu_us_per_request']:.1f} "
                f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {f'{ratio:.2f}' if ratio else '-'} |"
            )
    return "\n".join(lines)


def check(report: dict[str, object], required: list[str]) -> int:
    summary = report["summary"]
    assert isinstance(summary, dict)
    failed = 0
    for text in required:
        app, _, limit = text.partition("=")
        if not any(name.startswith("cavalcade") and row["cpu_ratio_to_uvicorn"] is not None for name, row in summary.get(app, {}).items()):
            print(f"bench: nothing was measured for --require {text}", file=sys.stderr)
            failed = 1
        for name, row in summary.get(app, {}).items():
            ratio = row["cpu_ratio_to_uvicorn"]
            if name.startswith("cavalcade") and ratio is not None and ratio > float(limit):
                print(f"bench: {name} needs {ratio:.2f} of uvicorn's CPU on {app}; at most {limit} was required", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
