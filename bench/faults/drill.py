"""What every drill has: a server in a directory of its own, traffic on it, and an outcome that both are entered into."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outcome import Outcome
from subjects import Running, Subject

from cavalcade.testing.live import ServerDied
from cavalcade.testing.traffic import Mix, Traffic, deploy
from cavalcade.testing.traffic_report import Note, Report

RELOAD_S = 20.0  # a reload that takes longer has not worked
SHOWN_LOSSES = 40


@dataclass(frozen=True)
class Options:
    """What may be chosen on the command line."""

    python: str
    loop: str = ""
    seconds: float = 10.0
    reloads: int = 20
    requests: int = 100_000
    workers: int = 3
    shown: bool = False  # show what the server said where a verdict is bad


class Drill:
    """One drill at work: the server, the traffic, the outcome."""

    def __init__(self, name: str, subject: Subject, options: Options) -> None:
        self.options = options
        self.subject = subject
        self.outcome = Outcome(f"{subject.name} ({options.loop})" if options.loop else subject.name, name)
        self.reports: list[Report] = []  # of the traffic that has ended
        self._said: list[str] = []

    @contextmanager
    def server(self, *more: str, workers: int | None = None, release: Callable[[Path], None] = deploy) -> Iterator[Running]:
        """A running server with the traffic's app, version v1, or with what `release` puts into its directory."""
        options = self.options
        loop = ("--loop", options.loop) if options.loop and self.subject.ours else ()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            release(Path(folder))
            server = Running(self.subject, Path(folder), python=options.python, workers=workers or options.workers, options=(*loop, *more))
            server.start()
            try:
                yield server
            except ServerDied as error:
                self.outcome.complaints.append(str(error).splitlines()[0])
                self.say(str(error))
            finally:
                server.end()
            self.say(server.transcript())

    @contextmanager
    def traffic(self, server: Running, mix: Mix | None = None, trust: str | Path = "") -> Iterator[Traffic]:
        """Traffic on the server; its report goes into the outcome. With `trust` it is HTTPS."""
        traffic = Traffic(server.address, mix, trust=trust)
        traffic.start()
        try:
            yield traffic
        finally:
            self.add(traffic.stop())

    @contextmanager
    def last_traffic(self, server: Running, mix: Mix | None = None) -> Iterator[Callable[[int], float]]:
        """Traffic on a server that ends meanwhile, and a function that tells the server so by a signal, and when that was. To be
        refused after it is no loss."""
        traffic = Traffic(server.address, mix)
        traffic.start()
        told: list[float] = []

        def tell(signum: int) -> float:
            told.append(time.monotonic())
            server.signal(signum)
            return told[0]

        try:
            yield tell
        finally:
            self.add(traffic.stop(), lambda note: note.what == "refused" and note.ended >= told[0])

    def add(self, report: Report, forgiven: Callable[[Note], bool] = lambda note: False) -> None:
        """Enter a report into the outcome, without the failures that are `forgiven`."""
        outcome = self.outcome
        self.reports.append(report)
        outcome.requests += report.requests
        outcome.worst_ms = max(outcome.worst_ms, report.worst_ms)
        unforgiven = [note for note in report.failures if not forgiven(note)]
        outcome.failed += len(unforgiven)
        for note in unforgiven:
            outcome.failures[note.what] = outcome.failures.get(note.what, 0) + 1
        for note in unforgiven[:SHOWN_LOSSES]:
            self.say(f"lost: {note.kind} {note.began:.3f}..{note.ended:.3f} {note.what} {note.detail}")

    def require(self, true: bool, complaint: str) -> None:
        if not true:
            self.outcome.complaints.append(complaint)

    def require_lines(self, lines: list[str], *sentences: str) -> None:
        """Require that these lines, and no other, were logged: each matches its sentence from the first word to the last. That there
        was no CPU for a worker is the machine's fault, and no more than worth knowing."""
        starved = [line for line in lines if "starved" in line]
        told = [line for line in lines if line not in starved]
        well = len(told) == len(sentences) and all(map(re.fullmatch, sentences, told))
        self.require(well, f"the log does not say what it should, but: {told}")
        if starved:
            self.outcome.facts.append(f"{len(starved)} lines say that a worker had no CPU")
        if well:
            self.outcome.facts.extend(told)

    def say(self, text: str) -> None:
        """Something worth seeing if the verdict is bad."""
        self._said.append(text)

    def show(self) -> None:
        if self.options.shown and not self.outcome.good:
            print("\n".join(self._said), flush=True)
