"""Tracebacks cut to the user's own frames.

Of the forty frames between the server and the line that failed, the user wrote three. Frames of Cavalcade and of the import
system are dropped; those of libraries between the user's are counted in one line. Where the user has no frame at all, the
last few of the libraries stay, because something must be shown.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

_LAST = 3  # frames of libraries that are shown where there is no frame of the user's
_LEFT_OUT = "<left out>"
_LIBRARY_DIRECTORIES = frozenset({"site-packages", "dist-packages"})
_STDLIB = tuple({str(Path(sysconfig.get_path(name)).resolve()) + "/" for name in ("stdlib", "platstdlib")})

_own_packages: set[str] = set()

Side = Literal["user", "library", "ours"]


def claim(package: str) -> None:
    """Count this top-level package as the user's wherever it is installed: the app itself may live in site-packages."""
    _own_packages.add(package)


def user_frames(exc: BaseException, *, whole: bool = False) -> str:
    """The traceback as Python prints it, with its causes, cut to the user's frames; `whole` leaves every frame in."""
    report = traceback.TracebackException.from_exception(exc)
    if not whole:
        _cut(report, exc)
    return "".join(report.format()).rstrip("\n")


def last_user_line(exc: BaseException) -> traceback.FrameSummary | None:
    """The innermost line of the user's that this exception came through; None where there is none."""
    lines = [line for side, line, _ in _frames(exc.__traceback__) if side == "user"]
    return lines[-1] if lines else None


def count_user_frames(exc: BaseException) -> int:
    """How many of the frames are the user's."""
    return sum(side == "user" for side, _, _ in _frames(exc.__traceback__))


class _Cut(traceback.StackSummary):
    """A stack in which some entries are the count of what was left out."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **options: Any) -> str:
        if frame_summary.filename == _LEFT_OUT:
            return f"  [{frame_summary.name}]\n"
        return super().format_frame_summary(frame_summary, **options)


def _cut(report: traceback.TracebackException, exc: BaseException) -> None:
    frames = _frames(exc.__traceback__)
    report.stack = _Cut(_chosen(frames))
    # Cause and context are None in the report where Python would not print them; then nothing is cut.
    if report.__cause__ is not None and exc.__cause__ is not None:
        _cut(report.__cause__, exc.__cause__)
    if report.__context__ is not None and exc.__context__ is not None:
        _cut(report.__context__, exc.__context__)
    if isinstance(exc, BaseExceptionGroup):
        for part, inner in zip(report.exceptions or (), exc.exceptions, strict=False):
            _cut(part, inner)


def _frames(tb: TracebackType | None) -> list[tuple[Side, traceback.FrameSummary, str]]:
    walked = list(traceback.walk_tb(tb))
    lines = traceback.StackSummary.extract(iter(walked))
    judged = ((*_judge(frame), line) for (frame, _), line in zip(walked, lines, strict=True))
    return [(side, line, package) for side, package, line in judged]


def _chosen(frames: list[tuple[Side, traceback.FrameSummary, str]]) -> list[traceback.FrameSummary]:
    if not any(side == "user" for side, _, _ in frames):
        shown = [line for side, line, _ in frames if side == "library"]
        gap = len(shown) - _LAST
        return ([_gap(gap, [])] if gap > 0 else []) + shown[-_LAST:]
    chosen: list[traceback.FrameSummary] = []
    skipped: list[str] = []
    for side, line, package in frames:
        if side == "user":
            if skipped and chosen:
                chosen.append(_gap(len(skipped), skipped))
            skipped = []
            chosen.append(line)
        elif side == "library":
            skipped.append(package)
    if skipped:
        chosen.append(_gap(len(skipped), skipped))
    return chosen


def _gap(count: int, packages: list[str]) -> traceback.FrameSummary:
    where = f" in {', '.join(dict.fromkeys(packages))}" if packages else ""
    text = f"{count} frame{'s' if count > 1 else ''}{where} left out; --traceback shows all"
    return traceback.FrameSummary(_LEFT_OUT, count, text, lookup_line=False, line="")


def _judge(frame: FrameType) -> tuple[Side, str]:
    """Whose frame this is, and its top-level package.

    Ours are told by module name, not by file: a compiled module's frames carry the path it was built from.
    """
    module = str(frame.f_globals.get("__name__", ""))
    package = module.partition(".")[0]
    file = frame.f_code.co_filename
    if package in _own_packages:
        return "user", package
    if package in ("cavalcade", "importlib", "runpy") or file.startswith("<frozen "):
        return "ours", package
    if file.startswith(_STDLIB) or not _LIBRARY_DIRECTORIES.isdisjoint(Path(file).parts):
        return "library", package
    return "user", package
