"""Carries out what the watch over the workers finds: asks a silent one for its stack, looks at it from outside, and says what was
the matter when it turns again. What can only be seen while a worker lives, its memory and the kernel's count of out-of-memory kills, is
kept here for the day it dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cavalcade import limits
from cavalcade.board import layout, ledger_words
from cavalcade.config.options import Settings
from cavalcade.observe import blackbox, deaths
from cavalcade.observe.deaths import Facts, OomCounters
from cavalcade.supervisor import events as on
from cavalcade.supervisor import signals, verdicts
from cavalcade.supervisor.children import WorkerChild
from cavalcade.supervisor.stalls import Stalls
from cavalcade.supervisor.verdicts import Evidence
from cavalcade.supervisor.watch import Gap, Hopeless, Pulse, Silent, Watch
from cavalcade.worker import channel

log = logging.getLogger("cavalcade")

STALL = {"event": "stall"}
STACK_FRAMES = 12  # of a blocked worker that is given up
_WATCHED = (layout.Phase.READY, layout.Phase.DRAINING)


@dataclass
class Ward:
    """What is known of one worker."""

    rss: int = 0
    pss: int = 0
    pss_at: float = 0.0  # when that was looked at
    seen: list[Evidence] = field(default_factory=list)  # of the silence it is in, of one it has not told of yet, or of its boot
    told: bool = False  # where it is in its boot


class Guard:
    """Looks at the workers from `start` to `stop`. `workers` is the supervisor's own table, by number."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        workers: Mapping[int, WorkerChild],
        post: Callable[[on.Event], None],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._post = post
        self._packages = settings.packages
        self._patience_s = settings.stall_warn
        self._boot_s = settings.boot_timeout - min(limits.BOOT_STACK_S, settings.boot_timeout / 2)
        self._watch = Watch(settings.stall_warn, settings.stall_kill, time.monotonic())
        self._wards: dict[int, Ward] = {}
        self._gaps: list[Gap] = []  # the last few
        self._told: Gap | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sample_at = 0.0
        self._shared_at = 0.0
        self._oom = OomCounters()
        self.stalls = Stalls()

    def start(self) -> None:
        """Look, and go on looking."""
        now = time.monotonic()
        for found in self._watch.look(self._pulses(), now):
            match found:
                case Silent():
                    self.ask(self._workers[found.worker_id])
                case Hopeless():
                    self._give_up(self._workers[found.worker_id], found.seconds)
                case Gap():
                    self._gaps = [*self._gaps[-7:], found]
        self._look_at_boots(now)
        if now >= self._sample_at:
            self._sample_at = now + limits.MEMORY_SAMPLE_S
            for worker in self._workers.values():
                self.sample(worker)
            self._sample_shared(now)
        self._timer = self._loop.call_later(max(0.0, self._watch.next_look() - time.monotonic()), self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self, worker_id: int) -> None:
        """The worker is gone."""
        self._wards.pop(worker_id, None)
        self._watch.forget(worker_id)

    def _pulses(self) -> list[Pulse]:
        pulses = []
        for worker in self._workers.values():
            row = worker.row
            # Booting is never judged: an import may hold the GIL for as long as boot_timeout allows.
            if row.get(layout.WORKER_ID) == worker.worker_id and row.get(layout.PHASE) in _WATCHED:
                beat = row.get(layout.HEARTBEAT_NS) / 1e9
                pulses.append(Pulse(worker.worker_id, beat, idle=not row.get(layout.CONNECTIONS)))
        return pulses

    def _ward(self, worker_id: int) -> Ward:
        return self._wards.setdefault(worker_id, Ward())

    def _look_at_boots(self, now: float) -> None:
        """A boot is not judged here; but when its time is nearly over, what it waits for must be known before it is killed."""
        for worker in list(self._workers.values()):
            row = worker.row
            if row.get(layout.WORKER_ID) != worker.worker_id or row.get(layout.PHASE) != layout.Phase.BOOTING or worker.box is None:
                continue
            ward = self._ward(worker.worker_id)
            if not ward.seen and now >= row.get(layout.STARTED_NS) / 1e9 + self._boot_s:
                self.ask(worker)
            elif ward.seen and not ward.told:  # it has had the time between two looks to answer
                ward.told = True
                stack = worker.box.stack()
                frame = blackbox.culprit(stack, self._packages)
                if frame is None:  # the loop turns, so it is the lifespan that waits
                    stack = blackbox.frames(worker.box.notes().awaiting)
                    frame = blackbox.culprit(stack, self._packages)
                where = f": it is in {frame.show()}" if frame else ""
                self._post(on.BootStack(worker.worker_id, where, blackbox.show_stack(stack, STACK_FRAMES)))

    # -- the silent ------------------------------------------------------------------------------------------------------

    def ask(self, worker: WorkerChild) -> Evidence:
        """Have the worker write down where it is, into its box. What is known at once is returned."""
        pid = worker.find_pid()
        ward = self._ward(worker.worker_id)
        self._latest(worker)  # the box is emptied, and what it holds may belong to a silence that has not been told of yet
        seen = self._new_evidence()
        ward.seen = [*ward.seen[-1:], seen]
        seen.stopped, seen.traced = look_at(pid)
        # A stopped process would answer when it is continued, and blame whoever runs then.
        if seen.stopped or seen.traced or worker.box is None or blackbox.DUMP_SIGNAL is None or blackbox.ASK_SIGNAL is None:
            return seen
        worker.box.rewind()
        try:
            signals.signal_main_thread(pid, blackbox.DUMP_SIGNAL)
            os.kill(pid, blackbox.ASK_SIGNAL)
        except ProcessLookupError:  # it is dead, and that is told elsewhere
            pass
        return seen

    def peek(self, worker: WorkerChild) -> Evidence:
        """The same, for somebody who looks only: a worker that boots is not taken for late by it."""
        seen = self.ask(worker)
        if worker.row.get(layout.PHASE) == layout.Phase.BOOTING:
            self._ward(worker.worker_id).seen.remove(seen)
        return seen

    def _give_up(self, worker: WorkerChild, seconds: float) -> None:
        seen = self._latest(worker)
        seen.stopped, seen.traced = look_at(worker.find_pid())
        name = f"worker {worker.worker_id} (pid {worker.pid})"
        if seen.stopped:
            log.warning("%s", verdicts.stays_stopped(name, seconds), extra=STALL)
        elif not seen.traced and not blackbox.debugged(seen.stack):
            request = worker.box.notes().current if worker.box is not None else ""
            in_flight = worker.row.get(layout.IN_FLIGHT)
            self.stalls.add(verdicts.code_place(seen), in_flight, seconds, in_flight * seconds)
            text = verdicts.hopeless(name, seconds, seen, request)
            self._post(on.LoopBlocked(worker.worker_id, seconds, text, blackbox.show_stack(seen.stack, STACK_FRAMES)))

    def on_stalled(self, worker: WorkerChild, report: channel.Stalled) -> None:
        """The worker's loop turns again."""
        if time.monotonic() - self._watch.next_look() > limits.STALL_OWN_S:  # this came first, but we have been away as well
            self.stop()
            self.start()
        began = report.ended - report.ms / 1000
        seen = self._take_evidence(worker, began, report.ended)
        for gap in self._gaps:
            seen.machine_s += max(0.0, min(gap.ended, report.ended) - max(gap.began, began))
        if place := verdicts.place(report, seen):
            self.stalls.add(place, report.waited, report.ms / 1000, report.delay_ms / 1000)
        line = verdicts.resumed(f"worker {worker.worker_id} (pid {worker.pid})", report, seen)
        if line:
            log.warning("%s", line, extra=STALL)
        elif seen.machine_s and self._gaps[-1] is not self._told:  # told once, for all workers
            self._told = self._gaps[-1]
            log.warning("%s", verdicts.machine(self._told.ended - self._told.began), extra=STALL)

    def _new_evidence(self) -> Evidence:
        return Evidence(packages=self._packages, patience_s=self._patience_s, asked_at=time.monotonic())

    def _latest(self, worker: WorkerChild) -> Evidence:
        """What was seen when it last fell silent, and what it has written since."""
        ward = self._ward(worker.worker_id)
        if not ward.seen:  # nobody has looked
            return self._new_evidence()
        if worker.box is not None:
            ward.seen[-1].stack = worker.box.stack()
        return ward.seen[-1]

    def _take_evidence(self, worker: WorkerChild, began: float, ended: float) -> Evidence:
        """What was seen of this silence, and of no other: it may be silent again. What is older is forgotten."""
        self._latest(worker)
        ward = self._ward(worker.worker_id)
        then = [seen for seen in ward.seen if began <= seen.asked_at <= ended]
        ward.seen = [seen for seen in ward.seen if seen.asked_at > ended]
        return then[-1] if then else self._new_evidence()  # it may have been over before anybody looked

    # -- the dead --------------------------------------------------------------------------------------------------------

    def sample(self, worker: WorkerChild) -> None:
        """Look how large a worker is and where the kernel counts it; it cannot be seen any more when it is dead."""
        pid = worker.find_pid()
        if pid:
            rss = deaths.rss_of(pid)
            if rss:
                self._ward(worker.worker_id).rss = rss
            self._oom.watch(pid)

    def _sample_shared(self, now: float) -> None:
        """Look at the memory of one worker with what it shares: the kernel walks its whole map for that. All have their turn in time."""
        workers = [worker for worker in self._workers.values() if worker.find_pid()]
        if workers and now >= self._shared_at:
            self._shared_at = now + limits.SHARED_SAMPLE_S / len(workers)
            worker = min(workers, key=lambda worker: self._ward(worker.worker_id).pss_at)
            ward = self._ward(worker.worker_id)
            ward.pss, ward.pss_at = deaths.pss_of(worker.find_pid()), now

    def rss(self, worker_id: int) -> int:
        """How large a worker was when it was last looked at, in bytes; 0 where nobody could look."""
        ward = self._wards.get(worker_id)
        return ward.rss if ward is not None else 0

    def pss(self, worker_id: int) -> int:
        """The same, of which memory that it shares with others is counted in part."""
        ward = self._wards.get(worker_id)
        return ward.pss if ward is not None else 0

    def facts(self, worker: WorkerChild) -> Facts:
        """What there is to say of a worker that has just died. Its row is still as it left it."""
        row = worker.row
        mine = row.get(layout.WORKER_ID) == worker.worker_id
        box = worker.box
        notes = box.notes() if box is not None else blackbox.Notes()
        in_flight = row.get(layout.IN_FLIGHT) if mine else 0
        if mine and notes.at_ns > row.get(layout.HEARTBEAT_NS):  # it was asked while it was blocked
            in_flight = notes.in_flight
        return Facts(
            rss=self._ward(worker.worker_id).rss,
            requests=worker.ledger.get(ledger_words.REQUESTS) if mine else 0,
            in_flight=in_flight,
            paths=tuple(notes.requests),
            oom=self._oom.take(worker.find_pid()),
            trace=deaths.crash_frames(box.text()) if box is not None else "",
        )


def look_at(pid: int) -> tuple[bool, bool]:
    """Whether a process is stopped, and whether a debugger is attached to it. False where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False, False
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return fields.get("State", "").strip().startswith("T"), fields.get("TracerPid", "0").strip() != "0"
