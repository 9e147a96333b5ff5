"""A world of make-believe processes and a clock that is turned by hand, for the rules of supervision."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from signal import Signals
from typing import Any

from cavalcade import limits
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor import policy
from cavalcade.supervisor.commands import Level
from cavalcade.supervisor.state import Rules, Stage, State
from cavalcade.worker import channel

HUP, TERM, INT, TTIN, TTOU = Signals.SIGHUP, Signals.SIGTERM, Signals.SIGINT, Signals.SIGTTIN, Signals.SIGTTOU
USR2 = Signals.SIGUSR2
GRACE_S = 20.0
BOOT_S = 10.0


class Is(enum.Enum):
    FORKING = "forking"
    BOOTING = "booting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass
class Process:
    slot: int
    generation: int
    life: Is = Is.FORKING
    pid: int = 0
    order: channel.Order | None = None
    killed: bool = False
    announced: bool = False  # told to let its responses say `Connection: close`


class World:
    """What the commands are carried out on. Every command is checked against what may be asked for at that moment."""

    def __init__(self, workers: int = 2, shared: bool = False, **rules: Any) -> None:
        self.state = State(Rules(workers, boot_timeout_s=BOOT_S, graceful_timeout_s=GRACE_S, **rules), shared=shared)
        self.successor = ""
        self.now = 1000.0
        self.workers: dict[int, Process] = {}
        self.nurseries: dict[int, str] = {}
        self.exit: int | None = None
        self.served_at: float | None = None
        self.lines: list[tuple[Level, str]] = []
        self.errors: list[do.Explain] = []
        self.asked: set[int] = set()
        self.answers: dict[int, do.Answer] = {}
        self.pid = 100
        self.prompt = True  # who is told to drain says at once that it accepts no more

    # -- events ----------------------------------------------------------------------------------------------------------

    def send(self, event: on.Event) -> list[do.Command]:
        if isinstance(event, on.ChannelClosed) and event.worker_id in self.workers:
            self.workers[event.worker_id].life = Is.LEAVING  # dead, or as good as dead
        if isinstance(event, on.NurseryReady) and self.nurseries.get(event.generation) == "starting":
            self.nurseries[event.generation] = "ready"
        before = self.count(Is.SERVING)
        commands = policy.step(self.state, event, self.now)
        match event:
            case on.WorkerReported(worker_id, channel.Ready()) if worker_id in self.those(Is.BOOTING):
                self.workers[worker_id].life = Is.SERVING
            case on.WorkerReported(worker_id, channel.BootFailed()) if worker_id in self.those(Is.BOOTING):
                self.workers[worker_id].life = Is.LEAVING
        for command in commands:
            self.carry_out(command)
        if self.state.stage is not Stage.STOPPING:
            # The promise of every reload, recycling and scaling: who serves is not sent away before another has taken over.
            assert self.count(Is.SERVING) >= min(before, self.state.target)
        if self.prompt:
            for command in commands:
                if isinstance(command, do.Order) and isinstance(command.order, channel.Drain) and command.worker_id in self.workers:
                    self.send(on.WorkerReported(command.worker_id, channel.Draining()))
        return commands

    def carry_out(self, command: do.Command) -> None:
        assert self.exit is None, "commands after the exit"
        match command:
            case do.StartNursery(generation):
                assert generation not in self.nurseries, "two nurseries of one generation"
                assert self.state.stage is not Stage.STOPPING
                self.nurseries[generation] = "starting"
            case do.StopNursery(generation, force):
                assert generation in self.nurseries
                self.nurseries[generation] = "killed" if force else "quitting"
            case do.Fork(worker_id, slot, generation):
                assert self.state.stage is not Stage.STOPPING, "forked while stopping"
                assert self.nurseries.get(generation) == "ready", "no nursery that could fork"
                assert worker_id not in self.workers
                assert slot not in {process.slot for process in self.workers.values()}, "a slot with two owners"
                self.workers[worker_id] = Process(slot, generation)
            case do.Order(worker_id, channel.AnnounceStop()):
                assert worker_id in self.workers
                self.workers[worker_id].announced = True
            case do.Order(worker_id, order):
                assert worker_id in self.workers
                if not isinstance(order, channel.Sole | channel.ReopenLogs):
                    self.workers[worker_id].order = order
                    self.workers[worker_id].life = Is.LEAVING
            case do.StartUpgrade():
                assert self.successor == ""
                self.successor = "running"
            case do.HandOver():
                assert self.successor == "running"
                self.successor = ""
            case do.StopUpgrade(_, force):
                assert self.successor == "running" or force
                self.successor = "killed" if force else "leaving"
            case do.Kill(worker_id):
                assert worker_id in self.workers
                self.workers[worker_id].killed = True
                self.workers[worker_id].life = Is.LEAVING
            case do.Forget(worker_id, slot):
                assert worker_id not in self.workers, "forgotten before it is gone"
            case do.Log(level, text):
                self.lines.append((level, text))
            case do.Explain():
                self.errors.append(command)
            case do.Answer(request):
                assert request in self.asked, "an answer to a question that nobody has asked"
                assert request not in self.answers, "answered twice"
                self.answers[request] = command
            case do.Serving():
                assert self.served_at is None
                self.served_at = self.now
            case do.Exit(code):
                assert not self.workers, "exit with workers left"
                assert not self.nurseries, "exit with a nursery left"
                assert self.answers.keys() == self.asked, "exit with a wish unanswered"
                self.exit = code

    def nursery_ready(self, generation: int) -> None:
        self.send(on.NurseryReady(generation, 50 + generation))

    def nursery_exits(self, generation: int, status: int | None = 0) -> None:
        del self.nurseries[generation]
        self.send(on.NurseryExited(generation, status))

    def forked(self, worker_id: int) -> None:
        self.pid += 1
        process = self.workers[worker_id]
        process.pid = self.pid
        if process.life is Is.FORKING:
            process.life = Is.BOOTING
        self.send(on.WorkerForked(worker_id, self.pid))

    def ready(self, worker_id: int) -> None:
        if not self.workers[worker_id].pid:
            self.forked(worker_id)
        self.send(on.WorkerReported(worker_id, channel.Ready(0.5, 0.1)))

    def fails(self, worker_id: int, cause: str = "Importing main failed.", trace: str = "the frames") -> None:
        self.send(on.WorkerReported(worker_id, channel.BootFailed("AppLoadError", cause, "the fix", trace)))

    def exits(self, worker_id: int, status: int | None = 0) -> None:
        del self.workers[worker_id]
        self.send(on.WorkerExited(worker_id, status))

    def successor_exits(self) -> None:
        self.successor = ""
        self.send(on.UpgradeExited(-9))

    def signal(self, signum: Signals) -> None:
        self.send(on.Signalled(signum))

    # Each wish returns its request, for `answers`.

    def reload(self) -> int:
        return self.wish(on.Reload(self.next_request()))

    def scale(self, workers: int, *, relative: bool = False) -> int:
        return self.wish(on.Scale(self.next_request(), workers, relative))

    def recycle(self, worker_id: int | None = None) -> int:
        return self.wish(on.Recycle(self.next_request(), worker_id))

    def next_request(self) -> int:
        return len(self.asked) + 1

    def wish(self, event: on.Reload | on.Scale | on.Recycle) -> int:
        self.asked.add(event.request)
        self.send(event)
        return event.request

    def verdict(self, request: int) -> do.Verdict | None:
        answer = self.answers.get(request)
        return answer.verdict if answer else None

    def after(self, seconds: float) -> None:
        """Let time pass; every deadline in it gets its tick at its own time."""
        end = self.now + seconds
        while True:
            wake = policy.next_wake(self.state, self.now)
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            self.send(on.Tick())
        self.now = end

    def until_a_fork(self) -> None:
        while not self.those(Is.FORKING):
            wake = policy.next_wake(self.state, self.now)
            assert wake is not None
            self.after(wake - self.now)

    # -- whole stories ---------------------------------------------------------------------------------------------------

    def up(self) -> World:
        """The first start, without a hitch."""
        self.send(on.Start())
        self.nursery_ready(1)
        for worker_id in self.those(Is.FORKING):
            self.ready(worker_id)
        assert self.served_at == self.now
        return self

    def roll(self) -> None:
        """Whatever is asked of the world is done at once, until nothing more is asked."""
        for _ in range(1000):
            if starting := [generation for generation, how in self.nurseries.items() if how == "starting"]:
                self.nursery_ready(starting[0])
            elif fresh := self.those(Is.FORKING) + self.those(Is.BOOTING):
                self.ready(fresh[0])
            elif leaving := self.those(Is.LEAVING):
                self.exits(leaving[0], -9 if self.workers[leaving[0]].killed else 0)
            elif ending := self.ending():
                self.nursery_exits(ending[0], -9 if self.nurseries[ending[0]] == "killed" else 0)
            else:
                return
        raise AssertionError("no end of it")

    def ending(self) -> list[int]:
        """Nurseries that have been killed, and those that were told to quit and have no worker left."""
        used = {process.generation for process in self.workers.values()}
        return [
            generation for generation, how in self.nurseries.items() if how == "killed" or (how == "quitting" and generation not in used)
        ]

    # -- questions -------------------------------------------------------------------------------------------------------

    def those(self, life: Is) -> list[int]:
        return [worker_id for worker_id, process in self.workers.items() if process.life is life]

    def count(self, life: Is) -> int:
        return len(self.those(life))

    def generations(self) -> list[int]:
        """Of the workers that serve."""
        return [process.generation for process in self.workers.values() if process.life is Is.SERVING]

    def said(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)


def end(world: World) -> None:
    """Stop it, with processes that hear nothing and go only by SIGKILL, or at the end of their time."""
    world.now += 1
    if world.state.stage is not Stage.GONE:
        world.signal(TERM)
    began = world.now
    for _ in range(10000):
        if world.exit is not None:
            break
        if dying := [worker_id for worker_id, process in world.workers.items() if process.killed]:
            world.exits(dying[0], -9)
        elif ending := world.ending():
            world.nursery_exits(ending[0], -9)
        elif world.successor == "killed":
            world.successor_exits()
        else:
            wake = policy.next_wake(world.state, world.now)
            assert wake is not None, "nothing left to wait for, and no exit"
            world.after(max(0.0, wake - world.now))
    assert world.exit is not None
    assert world.now - began <= GRACE_S + 3 * limits.KILL_AFTER_S + world.state.rules.drain_delay_s
