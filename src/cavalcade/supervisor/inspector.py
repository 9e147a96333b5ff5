"""Looks into a worker: it is asked over its channel what it is at, and where it does not answer, its loop is blocked and its thread's stack
is taken from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import zip_longest

import msgspec

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.observe import blackbox
from cavalcade.observe.blackbox import Frame, Notes
from cavalcade.supervisor.children import WorkerChild, order_line
from cavalcade.supervisor.guard import Guard
from cavalcade.supervisor.verdicts import Evidence
from cavalcade.worker import channel
from cavalcade.worker.channel import LiveRequest, StackFrame, ThreadStack

POLL_S = 0.02


class Inspection(msgspec.Struct, omit_defaults=True):
    """What a worker is at. `in_flight` is how many requests are being answered, `requests` the oldest of them.

    A `blocked` one cannot tell: then `stack` is where its thread stands, the outermost frame first, `where` the frame that is most likely
    to blame, and of the requests there is only what it has noted by itself. `note` says in words what is the matter, if anything is.
    """

    worker: int
    pid: int
    generation: int
    phase: str
    in_flight: int = 0
    requests: list[LiveRequest] = []
    threads: list[ThreadStack] = []
    blocked: bool = False
    note: str = ""
    where: str = ""
    stack: list[StackFrame] = []


class Inspector:
    """`workers` is the supervisor's own table, by number; `package` the app's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Mapping[int, WorkerChild], guard: Guard, packages: frozenset[str]) -> None:
        self._loop = loop
        self._workers = workers
        self._guard = guard
        self._packages = packages
        self._last = 0
        self._asked: dict[int, asyncio.Future[channel.Inspected]] = {}
        self._looking: dict[int, asyncio.Task[Inspection]] = {}

    async def inspect(self, worker_id: int, limit: int) -> Inspection | None:
        """Look into a worker; None where there is none of this number. Takes INSPECT_WAIT_S and INSPECT_STACK_S at most."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return None
        self._last += 1
        request = self._last
        asked = self._asked[request] = self._loop.create_future()
        worker.link.send(order_line(channel.Inspect(request, limit)))
        try:
            await asyncio.wait({asked}, timeout=limits.INSPECT_WAIT_S)
        finally:
            del self._asked[request]
        if asked.done():
            told = asked.result()
            return msgspec.structs.replace(_outline(worker), in_flight=told.total, requests=told.requests, threads=told.threads)
        # Several who ask at once get the same look: there is one box for the stack, and it is emptied first.
        look = self._looking.get(worker_id)
        if look is None:
            look = self._looking[worker_id] = self._loop.create_task(self._look_from_outside(worker))
            look.add_done_callback(lambda _: self._looking.pop(worker_id, None))
        return await asyncio.shield(look)

    def on_inspected(self, report: channel.Inspected) -> None:
        """A worker answers. Nobody may be waiting any more."""
        asked = self._asked.get(report.request)
        if asked is not None and not asked.done():
            asked.set_result(report)

    async def _look_from_outside(self, worker: WorkerChild) -> Inspection:
        seen = self._guard.peek(worker)
        box = worker.box
        until = self._loop.time() + limits.INSPECT_STACK_S
        stack: list[Frame] = []
        while box is not None and box.fd >= 0 and not stack and not seen.stopped and not seen.traced and self._loop.time() < until:
            await asyncio.sleep(POLL_S)
            stack = box.stack() if box.fd >= 0 else []
        outline = _outline(worker)
        if worker.link.ended:
            return msgspec.structs.replace(outline, note="It has just ended.")
        notes = box.notes() if box is not None and box.fd >= 0 else Notes()
        culprit = blackbox.culprit(stack, self._packages)
        return msgspec.structs.replace(
            outline,
            in_flight=max(outline.in_flight, notes.in_flight),
            requests=_noted(notes, time.monotonic_ns()),
            blocked=True,
            note=_note(outline, seen, bool(stack)),
            where=culprit.show() if culprit is not None else "",
            stack=channel.show(reversed(stack), self._packages),
        )


def _outline(worker: WorkerChild) -> Inspection:
    """What the board says of it."""
    row = worker.row
    mine = row.get(layout.WORKER_ID) == worker.worker_id
    phase = layout.Phase(row.get(layout.PHASE)).name.lower() if mine else "booting"
    in_flight = row.get(layout.IN_FLIGHT) if mine else 0
    return Inspection(worker.worker_id, worker.find_pid(), worker.nursery.generation, phase, in_flight)


def _noted(notes: Notes, now_ns: int) -> list[LiveRequest]:
    """What it has noted by itself, a moment ago. Clients and ages are as long as the requests, or not there."""
    found = []
    since_s = (now_ns - notes.at_ns) / 1e9
    for line, client, age_s in zip_longest(notes.requests, notes.clients, notes.ages_s):
        method, _, target = line.partition(" ")
        state = "blocks the loop" if line == notes.current else "waits for the loop"
        found.append(LiveRequest(method, target, client or "", "", state, None if age_s is None else round(age_s + since_s, 3)))
    return found


def _note(outline: Inspection, seen: Evidence, known: bool) -> str:
    if seen.stopped:
        return "The process is stopped (SIGSTOP): continue it (SIGCONT) or kill it."
    if seen.traced:
        return "A debugger holds the process."
    what = "It boots, and the import or startup holds its loop" if outline.phase == "booting" else "Its event loop is blocked"
    if not known:
        return f"{what}, and this system has no way to ask for the stack of its thread."
    return f"{what}: this is the stack of its thread. Requests are those that it had noted itself; awaits cannot be seen."
