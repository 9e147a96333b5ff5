"""The moves that the rules of supervision are made of: each changes the state in one way, and notes the commands that carry it out."""

from __future__ import annotations

from dataclasses import dataclass, field

from cavalcade import limits
from cavalcade.supervisor import commands as do
from cavalcade.supervisor.commands import Level
from cavalcade.supervisor.state import Life, Nursery, NurseryLife, ReloadWish, Roll, Seat, Stage, State, Wish, Worker
from cavalcade.worker import channel

# Why workers are replaced: new code, limits of theirs, somebody's wish or signal, death, a loop that stayed blocked (stall_kill), a failed
# boot; whatever else a worker may say is `OTHER_RESTART`.
RESTARTS = ("reload", "max_requests", "max_age", "max_memory", "asked", "sigterm", "died", "blocked", "boot_failed")
OTHER_RESTART = "other"


@dataclass(frozen=True)
class Failure:
    """Why a worker or a nursery did not become ready."""

    cause: str
    fix: str = ""
    trace: str = ""


@dataclass
class Moves:
    """One turn of the policy: the state, the time, and the commands so far."""

    state: State
    now: float
    out: list[do.Command] = field(default_factory=list)

    def log(self, text: str, level: Level = Level.INFO, *, event: str = "") -> None:
        self.out.append(do.Log(level, text, event))

    def warn(self, text: str, *, event: str = "") -> None:
        self.log(text, Level.WARNING, event=event)

    # -- seats and nurseries -----------------------------------------------------------------------------------------------

    def add_seat(self) -> None:
        self.state.last_seat += 1
        self.state.seats.append(Seat(self.state.last_seat))

    def remove_seat(self, seat: Seat) -> None:
        """Fewer are wanted: whoever is in this seat leaves."""
        self.state.seats.remove(seat)
        for worker in list(self.state.workers.values()):
            if worker.seat is seat:
                self.send_away(worker, self.state.rules.graceful_timeout_s, "fewer workers are wanted")

    def start_nursery(self, generation: int, deaths: int = 0) -> None:
        self.state.nurseries[generation] = Nursery(generation, self.now + self.state.rules.boot_timeout_s, deaths=deaths)
        self.out.append(do.StartNursery(generation))

    def begin_roll(self, who: str) -> None:
        """Begin a reload. Every wish for one that waits is part of it: the code on the disk is read after this."""
        state = self.state
        state.last_generation += 1
        state.roll = Roll(state.last_generation, self.now)
        for wish in state.wishes:
            if isinstance(wish, ReloadWish) and not wish.generation:
                wish.generation = state.last_generation
        self.log(
            f"{who}: reloading {state.rules.app} as generation {state.last_generation}, generation {state.generation} serves meanwhile",
            event="reload",
        )
        self.start_nursery(state.last_generation)

    # -- workers -----------------------------------------------------------------------------------------------------------

    def fork(self, seat: Seat, generation: int) -> None:
        state = self.state
        nursery = state.nurseries.get(generation)
        if nursery is None or nursery.life is not NurseryLife.READY or not state.free_slots:
            return
        state.last_worker += 1
        slot = min(state.free_slots)
        state.free_slots.remove(slot)
        worker = Worker(state.last_worker, seat, slot, generation, self.now, self.now + state.rules.boot_timeout_s)
        state.workers[worker.id] = worker
        self.out.append(do.Fork(worker.id, slot, generation))

    def send_away(self, worker: Worker, grace_s: float, reason: str, kill_after_s: float = limits.KILL_AFTER_S) -> None:
        """Have a worker leave: one that serves may finish, one that boots has nothing to finish. Never lengthens its time."""
        if worker.life is Life.BOOTING:
            worker.life = Life.LEAVING
            worker.left_at = self.now
            worker.deadline = self.now + limits.BOOT_STOP_S
            self.out.append(do.Order(worker.id, channel.Stop()))
        else:
            self.drain(worker, grace_s, reason, kill_after_s)

    def drain(self, worker: Worker, grace_s: float, reason: str, kill_after_s: float = limits.KILL_AFTER_S) -> None:
        deadline = self.now + grace_s + kill_after_s
        if worker.life is Life.LEAVING:
            if worker.deadline <= deadline:
                return
        else:
            worker.life = Life.LEAVING
            worker.left_at = self.now
        worker.deadline = deadline
        stops, shared = self.state.stage is Stage.STOPPING, self.state.shared
        self.out.append(do.Order(worker.id, channel.Drain(grace_s, reason, last=stops and not shared, heirs=stops and shared)))

    def kill(self, worker: Worker) -> None:
        worker.killed = True
        self.out.append(do.Kill(worker.id))

    def forget(self, worker: Worker) -> None:
        del self.state.workers[worker.id]
        self.state.free_slots.add(worker.slot)
        self.out.append(do.Forget(worker.id, worker.slot))

    def count_restart(self, seat: Seat, reason: str) -> None:
        """The worker of a seat is replaced. What `reason` says behind its first word is for people, and would make a counter for each."""
        name = reason.replace(":", " ").partition(" ")[0].lower()
        name = name if name in RESTARTS else OTHER_RESTART
        self.state.restarts[name] = self.state.restarts.get(name, 0) + 1
        seat.restarts += 1
        seat.last_restart = name

    # -- answers -----------------------------------------------------------------------------------------------------------

    def answer(self, wish: Wish, verdict: do.Verdict, text: str, failure: Failure | None = None) -> None:
        """Tell whoever waits how it ended; the wish is settled."""
        if wish in self.state.wishes:
            self.state.wishes.remove(wish)
        fix, trace = (failure.fix, failure.trace) if failure else ("", "")
        state = self.state
        took_s = self.now - wish.began_at
        self.out.append(do.Answer(wish.request, verdict, text, state.generation, state.target, took_s, fix, trace))


def count_workers(count: int) -> str:
    """ "1 worker", "3 workers"."""
    return "1 worker" if count == 1 else f"{count} workers"


def serving_workers(count: int) -> str:
    """ "1 worker serves", "3 workers serve"."""
    return f"{count_workers(count)} {'serves' if count == 1 else 'serve'}"
