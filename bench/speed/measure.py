"""One case: its servers are started, asked for a right answer, warmed up, and measured in turn, round after round.

All servers of a case are up at the same time, on one core, and idle but for the one that is asked: so a round is short, and a slow
minute of the machine hits all of them. The load runs on the other core. Every round begins with another.
"""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import apps
import httpx

from speed import crowd, websocket
from speed.cases import FILE_BODY, Case
from speed.contenders import CONTENDERS, Contender, Start
from speed.process import (
    BENCH,
    HOST,
    Server,
    Unmeasurable,
    cores,
    cpu_s,
    free_port,
    last_words,
    pinned,
    rss_bytes,
    signal_all,
    stop,
    wait_listening,
)
from speed.sample import Sample, read_h2load, read_wrk, with_percentiles

ANSWER_S = 30.0
WARM_UP_S = 1
MIB = 1024 * 1024
TROUBLE = (Unmeasurable, OSError, http.client.HTTPException, httpx.HTTPError, subprocess.SubprocessError)
H2_TARGETS = 500
H2_FIELDS = (
    "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language: en-US,en;q=0.5",
    "accept-encoding: gzip, deflate, br",
    "cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
)


@dataclass(frozen=True)
class Setting:
    """What is the same for all cases of a run."""

    pythons: dict[str, str]  # by environment
    reasons: dict[str, str]  # why an environment, a package or a program is not there
    folder: Path
    certificate: tuple[str, str]
    trust: ssl.SSLContext
    rounds: int
    seconds: int


@dataclass(frozen=True)
class Running:
    """A server that is up."""

    case: Case
    contender: Contender
    setting: Setting
    server: Server
    port: int

    @property
    def url(self) -> str:
        return f"{'https' if self.case.tls else 'http'}://{HOST}:{self.port}"


@dataclass
class Result:
    """One case: what was measured, and why somebody was not, by the names of the contenders."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def run_case(case: Case, names: list[str], setting: Setting) -> Result:
    result = Result(case)
    rounds = case.rounds or setting.rounds
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for name in names:
            with missing(result, name):
                require(CONTENDERS[name], case, setting)
                if case.load != "start":
                    running[name] = stack.enter_context(serving(case, CONTENDERS[name], setting))
                    with awake(running[name]):
                        check_answer(running[name])
                        if case.load in WARMED:
                            drive(running[name], WARM_UP_S)
        for number in range(rounds):
            first = number * len(names) // rounds
            for name in names[first:] + names[:first]:
                if name in result.missing:
                    continue
                with missing(result, name):
                    sample = time_start(case, CONTENDERS[name], setting) if case.load == "start" else measure(running[name])
                    result.samples.setdefault(name, []).append(sample)
                    say(f"{case.name}  round {number + 1}/{rounds}  {name:26} {summary(sample)}")
    return result


@contextmanager
def missing(result: Result, name: str) -> Iterator[None]:
    """Whatever keeps a contender from being measured is written down; what was measured of it before does not count."""
    try:
        yield
    except TROUBLE as error:
        result.missing[name] = " ".join(str(error).split())[:300] or repr(error)
        result.samples.pop(name, None)
        say(f"{result.case.name}  {name} is left out: {result.missing[name]}")


def require(contender: Contender, case: Case, setting: Setting) -> None:
    """Raises `Unmeasurable` where it is not to be had, or has no part in this."""
    if reason := contender.cannot.get(case.name):
        raise Unmeasurable(reason)
    for name in (contender.where, *contender.packages, contender.name, NEEDS.get(case.load, "")):
        if reason := setting.reasons.get(name):
            raise Unmeasurable(reason)


# -- a server ------------------------------------------------------------------------------------------------------------


@contextmanager
def serving(case: Case, contender: Contender, setting: Setting) -> Iterator[Running]:
    server_core, _ = cores()
    start = Start(
        python=setting.pythons.get(contender.where, sys.executable),
        app=case.app,
        port=free_port(),
        workers=case.workers,
        tls=setting.certificate if case.tls else None,
        websocket=case.load == "websocket",
        http2=case.load == "h2load",
        folder=setting.folder,
    )
    server = Server(pinned(server_core, contender.command(start)))
    try:
        wait_listening(server, start.port)
        yield Running(case, contender, setting, server, start.port)
    finally:
        if contender.spins:
            signal_all(server.pid, signal.SIGCONT)
        stop(server)


@contextmanager
def awake(running: Running) -> Iterator[None]:
    """While it is asked something. One that spins is stopped for the rest of the time."""
    if running.contender.spins:
        signal_all(running.server.pid, signal.SIGCONT)
    try:
        yield
    finally:
        if running.contender.spins:
            signal_all(running.server.pid, signal.SIGSTOP)


def check_answer(running: Running) -> None:
    """One request of the kind that is measured, by a client of somebody else. Raises `Unmeasurable` where the answer is wrong."""
    case = running.case
    if case.load == "websocket":
        return  # its client checks every byte
    if case.load == "h2load":
        with httpx.Client(http1=False, http2=True, timeout=ANSWER_S) as client:
            response = client.get(running.url + case.path)
            status, version, body = response.status_code, response.http_version, response.content
        if version != "HTTP/2":
            raise Unmeasurable(f"it answered with {version}")
    else:
        connection = (
            http.client.HTTPSConnection(HOST, running.port, timeout=ANSWER_S, context=running.setting.trust)
            if case.tls
            else http.client.HTTPConnection(HOST, running.port, timeout=ANSWER_S)
        )
        try:
            fields = dict(field.split(": ", 1) for field in case.headers)
            connection.request(case.method, case.path, case.body or None, fields)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        finally:
            connection.close()
    if (status, body) != (200, case.answer):
        raise Unmeasurable(f"a wrong answer: status {status}, {len(body)} bytes, {body[:60]!r}")


def measure(running: Running) -> Sample:
    with awake(running):
        check_answer(running)
        sample = drive(running, running.setting.seconds)
        return replace(sample, rss_mib=rss_bytes(running.server.pid) / MIB)


def drive(running: Running, seconds: int) -> Sample:
    """Raises what a load does; where the server has died, that is the reason."""
    try:
        sample = LOADS[running.case.load](running, seconds)
    except TROUBLE as error:
        if running.server.poll() is not None:
            raise Unmeasurable(f"under load {last_words(running.server)}") from error
        raise
    if running.server.poll() is not None:
        raise Unmeasurable(f"under load {last_words(running.server)}")
    return sample


def time_start(case: Case, contender: Contender, setting: Setting) -> Sample:
    began = time.monotonic()
    with serving(case, contender, setting) as running:
        check_answer(running)
        took_s = time.monotonic() - began
        return Sample(start_ms=took_s * 1000, cpu_us=cpu_s(running.server.pid) * 1e6, rss_mib=rss_bytes(running.server.pid) / MIB)


# -- loads ---------------------------------------------------------------------------------------------------------------


def wrk(running: Running, seconds: int) -> Sample:
    case = running.case
    body = "-"
    if case.body:
        path = running.setting.folder / f"{case.name}.body"
        path.write_bytes(case.body)
        body = str(path)
    _, load_core = cores()
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "-s", str(BENCH / "speed" / "load.lua"), running.url + case.path]
    before = cpu_s(running.server.pid)
    done = execute(pinned(load_core, [*command, "--", case.method, body, *case.headers]), seconds)
    return read_wrk(done, cpu_s(running.server.pid) - before)


def h2load(running: Running, seconds: int) -> Sample:
    case = running.case
    _, load_core = cores()
    with tempfile.TemporaryDirectory(dir=running.setting.folder) as folder:
        log, targets = Path(folder, "log"), Path(folder, "targets")
        command = ["h2load", f"-c{case.connections}", f"-m{case.in_flight}", f"-D{seconds}", f"--log-file={log}"]
        if case.name == "http2-varied":
            targets.write_text("\n".join(f"{running.url}/items/{n}?page={7 * n}&token={99991 * n}" for n in range(H2_TARGETS)) + "\n")
            command += [f"-i{targets}", *(f"-H{each}" for each in H2_FIELDS)]
        else:
            command.append(running.url + case.path)
        before = cpu_s(running.server.pid)
        done = execute(pinned(load_core, command), seconds)
        used_s = cpu_s(running.server.pid) - before
        return read_h2load(done, log.read_text().splitlines(), used_s)


def execute(command: list[str], seconds: int) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + ANSWER_S).stdout
    except subprocess.CalledProcessError as error:
        raise Unmeasurable(f"{command[3]} failed: {(error.stderr or error.stdout)[-300:]!r}") from error


def websockets(running: Running, seconds: int) -> Sample:
    case = running.case
    before = cpu_s(running.server.pid)
    messages, took_s, each_s = websocket.drive(running.port, case.connections, case.in_flight, seconds)
    used_s = cpu_s(running.server.pid) - before
    return with_percentiles(Sample(cpu_us=used_s / messages * 1e6, per_s=messages / took_s), each_s)


def idle(running: Running, seconds: int) -> Sample:
    """Connections that have had an answer each. A few come before, so that what the first ones cost is not in it."""
    count = running.case.connections
    with crowd.opened(running.port, crowd.FEW):
        pass
    before = rss_bytes(running.server.pid)
    with crowd.opened(running.port, count) as lost:
        return Sample(kib_each=(rss_bytes(running.server.pid) - before) / count / 1024, errors=lost)


def tail(running: Running, seconds: int) -> Sample:
    crowd.wait_workers(running.port, running.case.workers)
    with crowd.burning(running.port):
        # CPU per request says nothing where most of it is burnt.
        return replace(wrk(running, seconds), cpu_us=None)


LOADS: dict[str, Callable[[Running, int], Sample]] = {"wrk": wrk, "h2load": h2load, "websocket": websockets, "idle": idle, "tail": tail}
NEEDS = {"wrk": "wrk", "tail": "wrk", "h2load": "h2load"}
WARMED = ("wrk", "h2load", "websocket")


# -- what they need ------------------------------------------------------------------------------------------------------


def write_file() -> None:
    """The file that the app `file` sends."""
    apps.FILE.parent.mkdir(exist_ok=True)
    apps.FILE.write_bytes(FILE_BODY)


def summary(sample: Sample) -> str:
    named = {"us": sample.cpu_us, "/s": sample.per_s, "ms p99": sample.p99_ms, "KiB each": sample.kib_each, "ms to start": sample.start_ms}
    text = ", ".join(f"{value:,.1f} {unit}" for unit, value in named.items() if value is not None)
    return text + (f", {sample.errors} errors" if sample.errors else "")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
