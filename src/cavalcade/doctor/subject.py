"""The server under examination, as its examiner sees it: an ordinary server with one worker, on a free port of the loopback interface, in
processes of its own. What it says is read as it comes; how it judges its own loop and pools is what the doctor builds on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import msgspec
import psutil

from cavalcade.config.options import Settings
from cavalcade.doctor.outline import Outline
from cavalcade.errors import AppLoadError, StartupError

STALL_S = 0.05  # finer than an operator would want to hear of: what one request blocks adds up over many
STOP_S = 5.0
SETTLE_S = 0.5  # after so long without a line the log has everything
_MARGIN_S = 10.0
_MANAGER = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)  # not ours to talk to
_LINE_BYTES = 1 << 20

_LISTENING = re.compile(r"^listening on (?P<url>https?://\S+)")
_READY = re.compile(r"\(pid (?P<pid>\d+)\) ready after .*\(import (?P<import_s>[\d.]+) s, startup (?P<startup_s>[\d.]+) s\)")
_STALL = re.compile(
    r"was blocked for (?P<ms>\d+) ms(?P<gc> by garbage collection \(.*?\))?(?: outside of any code of the app)?"
    r"(?: in (?P<where>.+?:\d+ \S+\(\)))?(?:, (?P<request>[A-Z]+ .*?))?; (?P<waited>\d+) requests? waited$"
)
_POOL = re.compile(
    r": (?P<name>[^:]+) is full: (?:all (?P<threads>\d+) threads are|its one thread is) busy(?P<where>.*?); (?P<waiting>\d+) call"
)
_STARVED = re.compile(r"was starved of CPU|the machine stood still or had no CPU")
_THREADS = re.compile(r"^preload: importing .* has started threads, which do not exist in the workers: (?P<names>.*); start them")


@dataclass(frozen=True)
class Stall:
    """A time in which the loop did not turn. `where` is "app/views.py:88 resize()", "" where it was no code of the app."""

    ms: int
    where: str
    waited: int
    gc: bool = False


@dataclass(frozen=True)
class PoolFull:
    """A pool whose threads were all busy while others waited."""

    name: str
    threads: int
    where: str  # ", all with GET /report in app/views.py:88 report()", or ""
    fix: str


@dataclass
class Said:
    """What the server has said, sorted by what it means."""

    stalls: list[Stall] = field(default_factory=list)
    pools: list[PoolFull] = field(default_factory=list)
    starved: int = 0  # times that the machine was short of CPUs
    forked_threads: str = ""  # names of threads that preload loses
    complaints: list[tuple[str, str]] = field(default_factory=list)  # other warnings and errors, each with its fix
    failures: list[str] = field(default_factory=list)  # last lines of the app's tracebacks

    def take(self, line: dict[str, str]) -> None:
        """One line of the log."""
        message, fix = line.get("message", ""), line.get("fix", "")
        if stall := _STALL.search(message):
            self.stalls.append(Stall(int(stall["ms"]), stall["where"] or "", int(stall["waited"]), stall["gc"] is not None))
        elif pool := _POOL.search(message):
            self.pools.append(PoolFull(pool["name"].strip(), int(pool["threads"] or 1), pool["where"], fix))
        elif _STARVED.search(message):
            self.starved += 1
        elif threads := _THREADS.match(message):
            self.forked_threads = threads["names"]
        elif trace := line.get("traceback", "").strip():
            self.failures.append(trace.splitlines()[-1])
        elif line.get("level") in ("warning", "error", "critical"):
            self.complaints.append((message, fix))


class Subject:
    """The server, as an asynchronous context manager: entered when it is ready. Raises `StartupError` where it does not become so."""

    def __init__(self, settings: Settings) -> None:
        self.settings = examined(settings)
        self.url = ""
        self.pid = 0  # of its worker
        self.import_s = self.startup_s = 0.0
        self.said = Said()
        self._lines = 0  # that were read, and that there were when the log was last looked at
        self._heard = -1
        self._last: dict[str, str] = {}
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = process = await _python("cavalcade.doctor.child", self.settings, stdout=asyncio.subprocess.DEVNULL)
        self._reader = asyncio.create_task(self._read(process))
        try:
            await self._wait(lambda: bool(self.url and self.pid), self.settings.boot_timeout + _MARGIN_S)
        except BaseException:
            await self.stop()
            raise
        if not self.pid:
            await self.stop()
            raise self._reason()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def settle(self) -> None:
        """Wait until the log has what happened: a stall is told some beats after it, and several come one after the other."""
        while self._lines != self._heard:
            self._heard = self._lines
            await self._wait(lambda: self._lines != self._heard, SETTLE_S)
        self._heard = -1

    def cpu_s(self) -> float:
        """The CPU time that the worker has used so far."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """The memory that the worker has."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def stop(self) -> None:
        """End it, with whatever it still does."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S + _MARGIN_S):
                await process.wait()
        except TimeoutError:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for each in family:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _wait(self, done: Callable[[], bool], patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while not done() and self._reader is not None and not self._reader.done():
                    self._news.clear()
                    news = asyncio.ensure_future(self._news.wait())
                    await asyncio.wait({news, self._reader}, return_when=asyncio.FIRST_COMPLETED)
                    news.cancel()
        except TimeoutError:
            pass

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                raw = await process.stderr.readline()
            except ValueError:  # longer than any line of ours
                continue
            if not raw:
                return
            try:
                line = msgspec.json.decode(raw, type=dict[str, object])
            except msgspec.DecodeError:
                continue  # the app's own words
            self._lines += 1
            self._take({name: text for name, text in line.items() if isinstance(text, str)})
            self._news.set()

    def _take(self, line: dict[str, str]) -> None:
        message = line.get("message", "")
        if not self.url and (listening := _LISTENING.search(message)):
            self.url = listening["url"]
        elif ready := _READY.search(message):
            self.pid = int(ready["pid"])
            self.import_s, self.startup_s = float(ready["import_s"]), float(ready["startup_s"])
        else:
            if line.get("level") in ("error", "critical"):
                self._last = line
            self.said.take(line)

    def _reason(self) -> StartupError:
        line = self._last
        cause = line.get("message") or f"The server was not ready within {self.settings.boot_timeout:g} s."
        return AppLoadError(cause, fix=line.get("fix", ""), trace=line.get("traceback", ""))


def examined(settings: Settings) -> Settings:
    """The settings that the app is examined with: its own, but for what would hide what is looked for, or disturb a server that runs."""
    return dataclasses.replace(
        settings,
        workers=1,
        bind=("127.0.0.1:0",),
        control="off",
        pid="",
        log_config="",
        log_format="json",
        log_level="info",
        traceback=False,
        access_log=False,
        ssl_cert_reqs="none",  # whoever examines has no certificate
        ssl_ca_certs="",
        ssl_crl="",
        stall_warn=STALL_S,
        stall_kill=0.0,
        max_requests=0,
        max_age=0.0,
        max_memory=0,
        drain_delay=0.0,
        graceful_timeout=min(settings.graceful_timeout, STOP_S),
    )


async def outline_of(settings: Settings) -> Outline:
    """What the app says of itself, asked in a process of its own. Empty where it does not say."""
    process = await _python("cavalcade.doctor.outline", settings, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    try:
        async with asyncio.timeout(settings.boot_timeout):
            told, _ = await process.communicate()
    except TimeoutError:
        told = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(told, type=Outline)
    except msgspec.DecodeError:
        return Outline()


async def _python(module: str, settings: Settings, *, stdout: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env={name: value for name, value in os.environ.items() if name not in _MANAGER},
        start_new_session=True,  # Ctrl-C is for the examiner, who ends it
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(settings) + b"\n")
    await process.stdin.drain()
    return process
