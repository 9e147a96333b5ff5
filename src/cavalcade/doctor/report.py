"""What the doctor says: to a person, at most 80 columns wide, or to a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cavalcade.doctor.findings import Finding, Gravity
from cavalcade.doctor.verdicts import Judged, Verdict, seconds

_WIDTH = 80
_COLOURS = {
    Verdict.ASYNC: "32",
    Verdict.BLOCKS: "31",
    Verdict.FAILS: "31",
    Verdict.THREADS: "33",
    Verdict.CPU: "33",
    Verdict.LIMITED: "33",
}
_GRAVITY_COLOURS = {Gravity.PROBLEM: "31;1", Gravity.ADVICE: "33", Gravity.NOTE: "2"}
_TELLING = (Verdict.ASYNC, Verdict.BLOCKS, Verdict.THREADS, Verdict.CPU, Verdict.LIMITED)


@dataclass(frozen=True)
class Report:
    """Everything that was found. `subject` is one line about what was examined."""

    app: str
    kind: str
    subject: str
    paths: Sequence[Judged]
    checked: Sequence[Finding]

    @property
    def findings(self) -> list[Finding]:
        """The gravest first; of the same gravity those of the paths first."""
        found = [*(finding for judged in self.paths for finding in judged.findings), *self.checked]
        return sorted(found, key=lambda finding: -finding.gravity)

    @property
    def problems(self) -> int:
        return sum(finding.gravity is Gravity.PROBLEM for finding in self.findings)

    @property
    def answer(self) -> str:
        """Does a process manager in front keep this app asynchronous?"""
        telling = [judged for judged in self.paths if judged.verdict in _TELLING]
        blocking = [judged for judged in telling if judged.verdict is Verdict.BLOCKS]
        if not telling:
            return "Nothing that was asked for waits, so nothing could overlap. Name a path that does: --path /report"
        if blocking:
            names = ", ".join(str(judged.measured.request) for judged in blocking)
            return f"The process manager keeps it so, but code of the app does not: {names} blocks the event loop."
        if all(judged.verdict is Verdict.ASYNC for judged in telling):
            best = max(telling, key=lambda judged: judged.measured.overlap).measured
            return (
                f"Yes. {best.requests} at once of {best.request} took {seconds(best.wall_s)} in one worker behind the process manager, "
                f"where one alone takes {seconds(best.alone_s)}."
            )
        return "Yes, the event loop was never blocked; what limits the requests below is not the process manager."


def draw(report: Report, *, plain: bool) -> str:
    """The report for a person. `plain` is without colours."""

    def paint(text: str, colour: str) -> str:
        return text if plain or not colour else f"\x1b[{colour}m{text}\x1b[0m"

    lines = [*_wrapped(f"{report.app}: {report.subject}"), "", paint("Does it stay asynchronous behind a process manager?", "1")]
    lines += [*_wrapped(report.answer), ""]
    for judged in report.paths:
        name = str(judged.measured.request)
        lines.append(f"  {paint(name, '1')}")
        lines += [paint(line, _COLOURS.get(judged.verdict, "")) for line in _wrapped(judged.words, "      ")]
        if judged.measured.requests:
            lines += _wrapped(_numbers(judged), "      ")
    if report.findings:
        lines += ["", paint("Findings, the gravest first", "1")]
    for finding in report.findings:
        word = f"{finding.gravity.word:8}"
        first, *rest = _wrapped(f"{word}{finding.text}", "  ", "          ")
        lines += ["", first.replace(word, paint(word, _GRAVITY_COLOURS[finding.gravity]), 1), *rest]
        if finding.fix:
            lines += _wrapped(f"-> {finding.fix}", "          ", "             ")
    lines += ["", _sum(report)]
    return "\n".join(lines)


def as_data(report: Report) -> dict[str, Any]:
    """The report for a program. The names stay what they are."""
    return {
        "app": report.app,
        "kind": report.kind,
        "subject": report.subject,
        "answer": report.answer,
        "healthy": not report.problems,
        "paths": [_path_data(judged) for judged in report.paths],
        "findings": [{"check": each.check, "gravity": each.gravity.word, "text": each.text, "fix": each.fix} for each in report.findings],
    }


def _path_data(judged: Judged) -> dict[str, Any]:
    measured, longest = judged.measured, judged.measured.longest
    return {
        "method": measured.request.method,
        "path": measured.request.path,
        "verdict": judged.verdict.name.lower(),
        "words": judged.words,
        "status": measured.answer.status,
        "alone_s": round(measured.alone_s, 6),
        "requests": measured.requests,
        "wall_s": round(measured.wall_s, 6),
        "overlap": round(measured.overlap, 2),
        "cpu_s": round(measured.cpu_s, 3),
        "longest_stall_ms": longest.ms if longest else 0,
        "longest_stall_at": longest.where if longest else "",
        "pool_threads": measured.pool.threads if measured.pool else 0,
    }


def _numbers(judged: Judged) -> str:
    measured, longest = judged.measured, judged.measured.longest
    text = f"alone {seconds(measured.alone_s)}, {measured.requests} at once {seconds(measured.wall_s)}: "
    text += f"overlap {measured.overlap:.1f} of {measured.requests}"
    return text + (f"; the loop stood still for up to {seconds(longest.ms / 1000)}" if longest else "")


def _sum(report: Report) -> str:
    counts = [(sum(each.gravity is gravity for each in report.findings), gravity) for gravity in reversed(Gravity)]
    plural = {Gravity.PROBLEM: "problems", Gravity.ADVICE: "pieces of advice", Gravity.NOTE: "notes"}
    single = {Gravity.PROBLEM: "1 problem", Gravity.ADVICE: "1 piece of advice", Gravity.NOTE: "1 note"}
    parts = [single[gravity] if count == 1 else f"{count or 'no'} {plural[gravity]}" for count, gravity in counts]
    return f"{parts[0]}, {parts[1]}, {parts[2]}"


def _wrapped(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
