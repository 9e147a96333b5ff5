"""The whole examination: start the app, send it requests, look around, report."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence

from cavalcade import build
from cavalcade.config.options import Settings
from cavalcade.doctor import checks, facts, verdicts
from cavalcade.doctor.client import Request
from cavalcade.doctor.outline import Outline
from cavalcade.doctor.probe import measure
from cavalcade.doctor.report import Report
from cavalcade.doctor.subject import Subject, outline_of
from cavalcade.doctor.verdicts import Judged, Kind
from cavalcade.errors import CavalcadeError
from cavalcade.worker.entry import new_event_loop


async def examine(settings: Settings, requests: Sequence[Request], count: int, tell: Callable[[str], None]) -> Report:
    """Examine the app. `requests` are what to send, or one without a path: then the app's own paths. `tell` hears what is being done.

    Raises `StartupError` where the app does not start, `CavalcadeError` where it dies under the examination.
    """
    tell(f"starting {settings.app} with one worker")
    sketching = asyncio.create_task(outline_of(settings))
    try:
        async with Subject(settings) as subject:
            outline = await sketching
            if not requests[0].path:
                paths = outline.paths or ["/"]
                requests = [Request(path, *_rest(requests[0])) for path in paths]
            kind = Kind(settings.threads if outline.interface == "wsgi" else 0, frozenset(outline.threaded))
            most = min(count, settings.limit_concurrency or count)
            judged: list[Judged] = []
            for request in requests:
                tell(f"{request}: alone, then {most} at once")
                try:
                    measured = await measure(subject, request, most)
                except (OSError, TimeoutError) as error:
                    raise CavalcadeError(f"The server cannot be reached for {request}: {error}.", fix=_why_gone(subject)) from error
                judged.append(verdicts.judge(measured, kind))
            found = list(checks.all_of(facts.gather(settings, subject, outline)))
            return Report(settings.app, outline.kind, _subject(settings, outline), judged, found)
    finally:
        sketching.cancel()


def _rest(request: Request) -> tuple[str, tuple[tuple[str, str], ...], bytes]:
    return request.method, request.headers, request.body


def _why_gone(subject: Subject) -> str:
    said = subject.said.complaints
    return f"It said last: {said[-1][0]}" if said else "It said nothing; start it and see: cavalcade " + subject.settings.app


def _subject(settings: Settings, outline: Outline) -> str:
    own = new_event_loop(settings)
    loop = type(own).__module__.partition(".")[0]
    own.close()
    kind = outline.kind.removesuffix(" (WSGI)") + (", WSGI" if outline.interface == "wsgi" else "")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{kind}, one worker, {loop}, {python}, cavalcade {build.VERSION} ({build.kind()})"
