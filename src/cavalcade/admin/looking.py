"""What can be looked at: how the server is, what a worker is at, the configuration, the log."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cavalcade import limits
from cavalcade.admin import streams
from cavalcade.admin.answers import Answer, Asked, BadRequest, reject, say, show
from cavalcade.config.values import OPTIONS, visible
from cavalcade.observe import logs
from cavalcade.supervisor.journal import Entry
from cavalcade.supervisor.status import answer

LEVELS = ("debug", "info", "warning", "error", "critical")


# -- probes ----------------------------------------------------------------------------------------------------------------


async def livez(asked: Asked) -> Answer:
    """The supervisor answers."""
    return _probe(asked, "live")


async def readyz(asked: Asked) -> Answer:
    """Requests should be sent here."""
    return _probe(asked, "ready")


async def startupz(asked: Asked) -> Answer:
    """It has been ready once."""
    return _probe(asked, "started")


def _probe(asked: Asked, question: str) -> Answer:
    yes, line = answer(asked.desk.status(), question)
    return say(200, "yes", line) if yes else say(503, "no", line)


async def metrics(asked: Asked) -> Answer:
    """For Prometheus, in its text format or in OpenMetrics."""
    body, content_type = asked.desk.metrics(asked.header(b"accept"))
    return Answer(200, body, content_type)


# -- status ----------------------------------------------------------------------------------------------------------------


async def status(asked: Asked) -> Answer:
    """`supervisor.status.Status`."""
    return show(asked.desk.status())


async def workers(asked: Asked) -> Answer:
    """The workers of the status."""
    return show(asked.desk.status().workers)


async def stack(asked: Asked) -> Answer:
    """`supervisor.inspector.Inspection`: what a worker is at."""
    text = asked.words["worker"]
    limit = asked.number("limit", default=limits.INSPECT_REQUESTS, most=limits.INSPECT_REQUESTS_MAX)
    found = await asked.desk.inspect(worker_number(text), limit)
    return no_worker(text) if found is None else show(found)


def worker_number(text: str) -> int:
    """The number in a path; -1, which is nobody's, where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def no_worker(text: str) -> Answer:
    return reject(404, f"There is no worker {text[:40]}.", fix="`cavalcade status` lists them, and GET /workers")


async def config(asked: Asked) -> Answer:
    """Every option with its value and where that came from. Secrets are hidden."""
    settings, origins = asked.desk.settings(), asked.desk.origins
    return show(
        {
            name: {"value": visible(option, getattr(settings, name)), "origin": origins.get(name, "default")}
            for name, option in OPTIONS.items()
        }
    )


# -- the log ---------------------------------------------------------------------------------------------------------------


async def recent(asked: Asked) -> Answer:
    """The last lines of the log, of the supervisor and its workers; with `follow=1` a stream of those that come."""
    lines = asked.number("lines", default=100, most=limits.JOURNAL_LINES)
    after = asked.number("after", default=0, most=2**53)
    worker = asked.query.get("worker", "")
    least = LEVELS.index(_level(asked.query.get("level", "debug")))

    def wanted(entry: Entry) -> bool:
        return LEVELS.index(entry.level) >= least and worker in ("", str(entry.worker))

    journal = asked.desk.journal
    if not asked.flag("follow", default=False):
        entries = [entry for entry in journal.since(after) if wanted(entry)]
        return show(entries[-lines:] if lines else [])
    return streams.answer(_follow(asked, after, lines, wanted))


def _follow(asked: Asked, after: int, lines: int, wanted: streams.Wanted) -> AsyncIterator[bytes]:
    known = [entry for entry in asked.desk.journal.since(after) if wanted(entry)]
    return streams.entries(asked, known[-lines:] if lines else [], wanted)


def _level(name: str) -> str:
    try:
        return logs.level(name)
    except ValueError as problem:
        raise BadRequest(f"{problem}.") from None
