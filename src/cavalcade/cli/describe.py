"""What a running server tells, in words for people."""

from __future__ import annotations

from collections.abc import Iterator

from cavalcade.cli import table, worker_table
from cavalcade.cli.instances import Instance
from cavalcade.cli.worker_table import COLUMNS
from cavalcade.supervisor.inspector import Inspection
from cavalcade.supervisor.spans import span
from cavalcade.supervisor.status import Status
from cavalcade.worker.channel import LiveRequest, StackFrame

_LEFT = ("name", "stage")


def describe(status: Status) -> list[str]:
    """The lines of `cavalcade status`."""
    rows = [[column.show(worker) for column in COLUMNS] for worker in status.workers]
    lines = [
        worker_table.title(status),
        *worker_table.summary(status),
        "",
        *table.lines([column.title for column in COLUMNS], rows, worker_table.LEFT),
    ]
    worst = worker_table.worst_places(status.stalls)
    return [*lines, *(["", "blocked the loop, worst first:", *(f"  {line}" for line in worst)] if worst else [])]


def list_instances(instances: list[Instance]) -> list[str]:
    """The table of `cavalcade ps`."""
    head = ("name", "pid", "stage", "workers", "gen", "age", "req/s", "in flight", "listening on")
    rows = [
        (
            worker_table.name(status),
            str(status.pid),
            worker_table.stage(status),
            f"{status.workers_ready}/{status.workers_wanted}",
            str(status.generation),
            span(status.uptime_s),
            f"{status.requests_per_s:.0f}",
            str(status.in_flight),
            ", ".join(status.listeners),
        )
        for status in (instance.status for instance in instances)
    ]
    return table.lines(head, rows, _LEFT)


# -- inspect ---------------------------------------------------------------------------------------------------------------


def describe_inspection(found: Inspection, *, full: bool) -> Iterator[str]:
    """The lines of `cavalcade inspect`. Unless `full`, frames of libraries are counted, but for where it stands in the end."""
    count = "1 request" if found.in_flight == 1 else f"{found.in_flight} requests"
    yield f"worker {found.worker} (pid {found.pid}), generation {found.generation}, {found.phase}: {count} in flight"
    if found.note:
        yield found.note
    if found.stack:
        yield from _indent(_stack(found.stack, full))
    for request in found.requests:
        yield ""
        yield _request_line(request)
        yield from _indent(_stack(request.stack, full))
    if found.requests and found.in_flight > len(found.requests):
        yield ""
        yield f"and {found.in_flight - len(found.requests)} that are younger"
    for thread in found.threads:
        yield ""
        yield f"thread {thread.name}, for no request that is known"
        yield from _indent(_stack(thread.stack, full))


def _request_line(request: LiveRequest) -> str:
    facts = [
        f"for {span(request.age_s)}" if request.age_s is not None else "",
        f"from {request.client}" if request.client else "",
        request.state,
        f"route {request.route}" if request.route and request.route != request.target.partition("?")[0] else "",
        f"id {request.request_id}" if request.request_id else "",
    ]
    return f"{request.method} {request.target}  {', '.join(fact for fact in facts if fact)}"


def _stack(frames: list[StackFrame], full: bool) -> Iterator[str]:
    hidden = 0
    for place, frame in enumerate(frames):
        if full or frame.own or place == len(frames) - 1:
            if hidden:
                yield f"  ({hidden} of libraries)"
                hidden = 0
            yield f"{'' if frame.own else '  '}{frame.at}"
        else:
            hidden += 1


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
