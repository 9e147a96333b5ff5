"""The rules of supervision, against a world of make-believe processes and a clock that is turned by hand."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from signal import Signals
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cavalcade import limits
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor import policy
from cavalcade.supervisor.commands import Level
from cavalcade.supervisor.state import Life, Rules, Stage, State
from cavalcade.worker import channel

WALKS = hypothesis_settings(max_examples=150, stateful_step_count=60, deadline=None)

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


# -- the first start -----------------------------------------------------------------------------------------------------


def test_the_first_start_forks_all_workers_at_once_and_says_when_they_are_ready() -> None:
    world = World(4)
    world.send(on.Start())
    assert world.nurseries == {1: "starting"}
    world.nursery_ready(1)
    assert world.those(Is.FORKING) == [1, 2, 3, 4]
    for worker_id in (3, 1, 2):
        world.ready(worker_id)
    assert world.served_at is None
    world.ready(4)
    assert world.served_at is not None


def test_a_failure_at_the_first_start_stops_all_and_is_told_once() -> None:
    world = World(4)
    world.send(on.Start())
    world.nursery_ready(1)
    for worker_id in (1, 2, 3, 4):
        world.forked(worker_id)
    world.ready(1)
    for worker_id in (2, 3, 4):
        world.fails(worker_id)
    assert [error.trace for error in world.errors] == ["the frames"]
    assert world.count(Is.SERVING) == 0
    for worker_id in (2, 3, 4):
        world.exits(worker_id, 3)
    assert world.exit is None
    world.roll()
    assert world.exit == 3


def test_what_hangs_after_a_failed_start_is_killed_within_two_seconds() -> None:
    world = World(3)
    world.send(on.Start())
    world.nursery_ready(1)
    world.ready(1)
    world.fails(2)
    world.after(1.5)
    assert all(process.killed for process in world.workers.values())


@pytest.mark.parametrize(("status", "word"), [(0, "exited with status 0"), (-11, "was killed by SIGSEGV"), (None, "is not known")])
def test_a_worker_that_is_gone_without_a_word_at_the_first_start_is_a_failure_too(status: int | None, word: str) -> None:
    world = World(1)
    world.send(on.Start())
    world.nursery_ready(1)
    world.exits(1, status)
    world.roll()
    assert world.exit == 3
    assert word in world.errors[0].cause


def test_a_boot_that_takes_too_long_is_killed_and_is_a_failure() -> None:
    world = World(1)
    world.send(on.Start())
    world.nursery_ready(1)
    world.forked(1)
    world.after(BOOT_S - 0.1)
    assert not world.errors
    world.after(0.2)
    assert world.workers[1].killed
    assert "not ready within 10 s (boot_timeout)" in world.errors[0].cause
    world.roll()
    assert world.exit == 3


def test_a_nursery_that_cannot_import_the_app_is_a_failed_start() -> None:
    world = World(2, preload=True)
    world.send(on.Start())
    world.send(on.NurseryFailed(1, "Importing main failed.", "fix", "frames"))
    world.nursery_exits(1, 3)
    assert world.exit == 3
    assert [error.cause for error in world.errors] == ["Importing main failed."]


@pytest.mark.parametrize("status", [0, 1, -11])
def test_a_nursery_that_is_gone_before_it_can_fork_is_a_failed_start(status: int) -> None:
    world = World(2)
    world.send(on.Start())
    world.nursery_exits(1, status)
    assert world.exit == 3
    assert len(world.errors) == 1


def test_a_nursery_that_hangs_in_its_import_is_killed_at_the_boot_timeout() -> None:
    world = World(2, preload=True)
    world.send(on.Start())
    world.after(BOOT_S)
    assert world.nurseries == {1: "killed"}
    world.roll()
    assert world.exit == 3


def test_a_fork_that_the_kernel_refuses_at_the_first_start_is_a_failure() -> None:
    world = World(1)
    world.send(on.Start())
    world.nursery_ready(1)
    del world.workers[1]
    world.send(on.ForkFailed(1, "Resource temporarily unavailable"))
    world.roll()
    assert world.exit == 3
    assert "Resource temporarily unavailable" in world.errors[0].cause


# -- deaths --------------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_at_once_and_the_line_says_how_it_died() -> None:
    world = World(2).up()
    world.after(3600)
    world.exits(1, -9)
    assert world.those(Is.FORKING) == [3]
    died = "worker 1 (pid 101) was killed by SIGKILL, not by us: somebody has sent it; after 1 h"
    assert world.said(f"{died}, 0 requests served, none in flight at its last beat, generation 1; replaced at once, 1 of 2 workers serve")


def test_deaths_in_a_row_are_backed_off_1_2_4_up_to_30_seconds_while_the_others_serve() -> None:
    world = World(2).up()
    pauses = []
    victim = 1
    for _ in range(9):
        world.exits(victim, 1)
        died_at = world.now
        world.until_a_fork()
        pauses.append(world.now - died_at)
        (victim,) = world.those(Is.FORKING)
        world.ready(victim)
        assert world.count(Is.SERVING) == 2
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_worker_that_has_lived_long_starts_the_back_off_anew() -> None:
    world = World(1).up()
    for status in (1, 1):
        world.exits(max(world.workers), status)
        world.after(1.0)
        world.ready(max(world.workers))
    world.after(limits.HEALTHY_AFTER_S)
    world.exits(max(world.workers), 1)
    assert world.count(Is.FORKING) == 1


def test_degraded_is_said_once_and_so_is_its_end() -> None:
    world = World(2).up()
    for _ in range(3):
        victim = next(iter(set(world.those(Is.FORKING)) | {1} & set(world.workers)))
        world.exits(victim, 1)
        world.after(5)
    assert [line for _, line in world.lines if line.startswith("degraded")] == ["degraded: 1 of 2 workers serve"]
    world.ready(world.those(Is.FORKING)[0])
    assert world.said("no longer degraded: 2 workers serve")


def test_the_same_failed_boot_shows_its_traceback_once() -> None:
    world = World(2).up()
    world.exits(1, 1)
    for _ in range(3):
        world.forked(world.those(Is.FORKING)[0])
        (booting,) = world.those(Is.BOOTING)
        world.fails(booting)
        world.exits(booting, 3)
        world.until_a_fork()
    assert len(world.errors) == 1
    assert world.count(Is.SERVING) == 1


def test_a_worker_without_a_channel_may_not_stay() -> None:
    world = World(2).up()
    world.send(on.ChannelClosed(1))
    world.after(limits.KILL_AFTER_S)
    assert world.workers[1].killed
    world.exits(1, -9)
    assert world.those(Is.FORKING) == [3]


def test_when_the_nursery_dies_its_workers_serve_on_and_another_is_started() -> None:
    world = World(2).up()
    world.nursery_exits(1, -9)
    assert world.count(Is.SERVING) == 2
    assert world.nurseries == {1: "starting"}
    world.exits(2, -9)
    assert not world.those(Is.FORKING)
    world.nursery_ready(1)
    assert world.those(Is.FORKING) == [3]


def test_a_nursery_that_keeps_dying_is_started_with_back_off() -> None:
    world = World(1).up()
    world.nursery_exits(1, -9)
    world.nursery_exits(1, -9)
    assert not world.nurseries
    world.after(0.9)
    assert not world.nurseries
    world.after(0.2)
    assert world.nurseries == {1: "starting"}
    assert world.count(Is.SERVING) == 1


def test_another_nursery_that_dies_before_it_can_fork_is_tried_again_and_its_old_deadline_means_nothing() -> None:
    world = World(1).up()
    world.nursery_exits(1, -9)
    world.after(5)
    world.nursery_exits(1, 1)
    world.after(1)
    assert world.nurseries == {1: "starting"}
    world.nursery_ready(1)
    world.after(2 * BOOT_S)
    assert world.nurseries == {1: "ready"}
    assert world.count(Is.SERVING) == 1


# -- reload --------------------------------------------------------------------------------------------------------------


def test_a_reload_goes_worker_by_worker_and_each_successor_is_ready_before_the_old_one_drains() -> None:
    world = World(3).up()
    world.signal(HUP)
    assert world.nurseries == {1: "ready", 2: "starting"}
    world.nursery_ready(2)
    for old, new in ((1, 4), (2, 5), (3, 6)):
        assert world.those(Is.FORKING) == [new]
        world.forked(new)
        assert old in world.those(Is.SERVING)
        world.ready(new)
        assert world.workers[old].order == channel.Drain(GRACE_S, "replaced")
    assert world.generations() == [2, 2, 2]
    assert world.nurseries[1] == "quitting"
    assert world.said("reloaded in 0.0 s: 3 workers of generation 2")
    world.roll()
    assert world.nurseries == {2: "ready"}


def test_a_reload_is_done_when_no_old_worker_accepts_any_more() -> None:
    world = World(2).up()
    world.prompt = False
    world.signal(HUP)
    world.nursery_ready(2)
    world.ready(3)
    world.ready(4)
    assert world.generations() == [2, 2]
    world.send(on.WorkerReported(1, channel.Draining()))
    assert not world.said("reloaded in")
    world.exits(2, -9)
    assert world.said("reloaded in")


@pytest.mark.parametrize("how", ["reported", "exit 0", "segfault", "timeout", "fork refused"])
def test_new_code_that_fails_is_removed_and_the_old_serves_on(how: str) -> None:
    world = World(2).up()
    world.signal(HUP)
    world.nursery_ready(2)
    if how == "fork refused":
        del world.workers[3]
        world.send(on.ForkFailed(3, "no memory"))
    else:
        world.forked(3)
        if how == "reported":
            world.fails(3)
        elif how == "timeout":
            world.after(BOOT_S)
        else:
            world.exits(3, 0 if how == "exit 0" else -11)
    assert len(world.errors) == 1
    assert world.errors[0].cause.startswith("Reload refused: ")
    assert world.generations() == [1, 1]
    world.roll()
    assert world.nurseries == {1: "ready"}
    assert world.generations() == [1, 1]
    assert not world.those(Is.FORKING)


@pytest.mark.parametrize("how", ["cannot import", "dies", "hangs"])
def test_a_new_nursery_that_fails_is_removed_and_the_old_serves_on(how: str) -> None:
    world = World(2, preload=True).up()
    world.signal(HUP)
    if how == "cannot import":
        world.send(on.NurseryFailed(2, "Importing main failed."))
    elif how == "dies":
        world.nursery_exits(2, -11)
    else:
        world.after(BOOT_S)
    world.roll()
    assert world.nurseries == {1: "ready"}
    assert world.generations() == [1, 1]
    assert len(world.errors) == 1


def test_a_reload_that_fails_half_way_goes_back_to_the_old_generation_without_a_gap() -> None:
    world = World(3).up()
    world.signal(HUP)
    world.nursery_ready(2)
    world.ready(4)
    world.forked(5)
    world.fails(5)
    assert sorted(world.generations()) == [1, 1, 2]
    world.roll()
    assert world.generations() == [1, 1, 1]
    assert world.nurseries == {1: "ready"}


def test_a_reload_after_a_refused_one_is_accepted() -> None:
    world = World(2).up()
    world.signal(HUP)
    world.nursery_ready(2)
    world.forked(3)
    world.fails(3)
    world.signal(HUP)
    world.roll()
    assert world.generations() == [3, 3]
    assert list(world.nurseries) == [3]


def test_hups_during_a_reload_are_followed_by_one_more_reload() -> None:
    world = World(2).up()
    world.signal(HUP)
    world.signal(HUP)
    world.signal(HUP)
    world.roll()
    assert world.generations() == [3, 3]
    assert list(world.nurseries) == [3]


def test_a_hup_during_the_first_start_is_followed_when_it_is_done() -> None:
    world = World(2)
    world.send(on.Start())
    world.signal(HUP)
    world.nursery_ready(1)
    assert list(world.nurseries) == [1]
    world.roll()
    assert world.generations() == [2, 2]


def test_an_old_worker_that_dies_before_the_new_code_is_proven_is_replaced_by_old_code() -> None:
    world = World(2).up()
    world.signal(HUP)
    world.exits(2, -9)
    assert [process.generation for process in world.workers.values() if process.life is Is.FORKING] == [1]


def test_an_old_worker_that_dies_after_the_new_code_is_proven_is_replaced_by_new_code() -> None:
    world = World(3).up()
    world.signal(HUP)
    world.nursery_ready(2)
    world.ready(4)
    world.exits(3, -9)
    assert {process.generation for process in world.workers.values() if process.life is Is.FORKING} == {2}


@pytest.mark.parametrize("moment", ["nursery starting", "worker booting", "half way"])
def test_a_term_in_the_middle_of_a_reload_is_obeyed_at_once(moment: str) -> None:
    world = World(2).up()
    world.signal(HUP)
    if moment != "nursery starting":
        world.nursery_ready(2)
        world.forked(3)
    if moment == "half way":
        world.ready(3)
    world.signal(TERM)
    assert world.count(Is.SERVING) == 0
    assert not world.those(Is.BOOTING)
    if moment == "nursery starting":
        assert world.nurseries[2] == "killed"
    world.roll()
    assert world.exit == 0


# -- retirement ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_asks_to_retire_drains_when_its_successor_is_ready() -> None:
    world = World(2).up()
    world.send(on.WorkerReported(2, channel.Retire("SIGTERM")))
    assert world.those(Is.SERVING) == [1, 2]
    world.ready(3)
    assert world.workers[2].order == channel.Drain(GRACE_S, "SIGTERM")
    assert world.those(Is.SERVING) == [1, 3]


def test_workers_that_ask_to_retire_together_go_one_by_one() -> None:
    world = World(3).up()
    for worker_id in (1, 2, 3):
        world.send(on.WorkerReported(worker_id, channel.Retire("SIGTERM")))
    assert world.count(Is.FORKING) == 1
    world.ready(4)
    assert world.count(Is.FORKING) == 1
    assert world.count(Is.SERVING) == 3


def test_as_many_as_max_surge_are_replaced_at_a_time() -> None:
    world = World(3, max_surge=2).up()
    for worker_id in (1, 2, 3):
        world.send(on.WorkerReported(worker_id, channel.Retire("SIGTERM")))
    assert world.count(Is.FORKING) == 2
    world.ready(4)
    assert world.count(Is.FORKING) == 2
    assert world.count(Is.SERVING) == 3


def test_where_the_successor_fails_the_retiring_worker_serves_on() -> None:
    world = World(1).up()
    world.send(on.WorkerReported(1, channel.Retire("SIGTERM")))
    world.forked(2)
    world.fails(2)
    world.exits(2, 3)
    assert world.those(Is.SERVING) == [1]
    world.after(1.0)
    world.roll()
    assert world.count(Is.SERVING) == 1
    assert 1 not in world.workers


# -- scaling -------------------------------------------------------------------------------------------------------------


def test_ttin_adds_one_and_ttou_drains_the_youngest() -> None:
    world = World(2).up()
    world.after(5)
    world.signal(TTIN)
    world.ready(3)
    assert world.count(Is.SERVING) == 3
    world.signal(TTOU)
    assert world.those(Is.SERVING) == [1, 2]
    assert world.workers[3].order == channel.Drain(GRACE_S, "fewer workers are wanted")


def test_ttou_to_zero_is_refused() -> None:
    world = World(1).up()
    world.signal(TTOU)
    assert world.those(Is.SERVING) == [1]
    assert world.said("SIGTTOU: refused")


def test_ttin_beyond_the_most_is_refused() -> None:
    world = World(2, workers_max=2).up()
    world.signal(TTIN)
    assert not world.those(Is.FORKING)
    assert world.said("SIGTTIN: refused, 2 is the most")


def test_ttou_takes_a_worker_that_still_boots_before_one_that_serves() -> None:
    world = World(2).up()
    world.signal(TTIN)
    world.forked(3)
    world.signal(TTOU)
    assert world.those(Is.SERVING) == [1, 2]
    assert world.workers[3].order == channel.Stop()


def test_without_a_free_slot_a_fork_waits_for_one() -> None:
    world = World(2, slots=2).up()
    world.signal(HUP)
    world.nursery_ready(2)
    assert not world.those(Is.FORKING)
    world.exits(1, -9)
    assert world.count(Is.FORKING) == 1


# -- stopping ------------------------------------------------------------------------------------------------------------


def test_term_drains_all_and_exits_with_0() -> None:
    world = World(2).up()
    world.signal(TERM)
    assert [process.order for process in world.workers.values()] == [channel.Drain(GRACE_S, "the server stops", last=True)] * 2
    assert world.nurseries == {1: "quitting"}
    world.roll()
    assert world.exit == 0


@pytest.mark.parametrize("signum", [INT, Signals.SIGQUIT])
def test_int_and_quit_do_the_same_with_a_short_grace(signum: Signals) -> None:
    world = World(1).up()
    world.signal(signum)
    assert world.workers[1].order == channel.Drain(limits.INTERRUPT_GRACE_S, "the server stops", last=True)


def test_a_worker_that_will_not_go_is_killed_and_the_stop_was_not_clean() -> None:
    world = World(2).up()
    world.signal(TERM)
    world.after(GRACE_S + limits.KILL_AFTER_S - 0.1)
    assert not any(process.killed for process in world.workers.values())
    world.after(0.2)
    assert all(process.killed for process in world.workers.values())
    world.roll()
    assert world.exit == 1


def test_a_second_signal_cancels_and_a_third_kills() -> None:
    world = World(2).up()
    world.signal(TERM)
    world.after(1)
    world.signal(INT)
    assert [process.order for process in world.workers.values()] == [channel.Stop()] * 2
    world.after(1)
    assert not any(process.killed for process in world.workers.values())
    world.signal(TERM)
    assert all(process.killed for process in world.workers.values())
    world.roll()
    assert world.exit == 1


def test_the_same_signal_twice_within_a_blink_is_one_press_of_a_key() -> None:
    world = World(1).up()
    world.signal(INT)
    world.now += 0.05
    world.signal(INT)
    assert world.workers[1].order == channel.Drain(limits.INTERRUPT_GRACE_S, "the server stops", last=True)


def test_a_term_before_anything_is_ready_is_a_clean_stop() -> None:
    world = World(2)
    world.send(on.Start())
    world.nursery_ready(1)
    world.forked(1)
    world.signal(TERM)
    world.after(limits.BOOT_STOP_S)
    assert all(process.killed for process in world.workers.values())
    world.roll()
    assert world.exit == 0
    assert not world.errors


def test_a_worker_that_crashes_while_it_drains_makes_the_stop_unclean() -> None:
    world = World(2).up()
    world.signal(TERM)
    world.exits(1, -11)
    world.roll()
    assert world.exit == 1
    assert world.said("was killed by SIGSEGV while it drained")


def test_a_stop_never_lengthens_the_time_of_a_worker_that_leaves_already() -> None:
    world = World(1).up()
    world.signal(INT)
    world.after(1)
    world.signal(TERM)
    world.after(limits.INTERRUPT_GRACE_S + limits.KILL_AFTER_S - 1)
    assert world.workers[1].killed


def test_a_stop_shortens_the_time_of_a_worker_that_a_reload_drains() -> None:
    world = World(1).up()
    world.signal(HUP)
    world.nursery_ready(2)
    world.ready(2)
    assert world.workers[1].order == channel.Drain(GRACE_S, "replaced")
    world.signal(INT)
    assert world.workers[1].order == channel.Drain(limits.INTERRUPT_GRACE_S, "the server stops", last=True)


def test_a_nursery_that_does_not_quit_is_killed() -> None:
    world = World(1).up()
    world.signal(TERM)
    world.exits(1)
    world.after(limits.KILL_AFTER_S)
    assert world.nurseries == {1: "killed"}
    world.roll()
    assert world.exit == 0


def test_requests_that_were_cancelled_at_the_end_of_the_grace_are_named() -> None:
    world = World(1).up()
    world.signal(TERM)
    world.send(on.WorkerReported(1, channel.Drained(["GET /slow"])))
    assert world.said("1 cancelled at the end of its grace: GET /slow")


def test_usr1_has_every_process_reopen_its_log_files() -> None:
    world = World(2).up()
    commands = world.send(on.Signalled(Signals.SIGUSR1))
    assert do.ReopenLogs() in commands
    assert [command for command in commands if isinstance(command, do.Order)] == [do.Order(n, channel.ReopenLogs()) for n in (1, 2)]
    assert world.those(Is.SERVING) == [1, 2]


# -- upgrade -------------------------------------------------------------------------------------------------------------


def test_an_upgrade_hands_over_first_and_then_drains_with_the_sockets_left_open() -> None:
    world = World(2).up()
    world.signal(USR2)
    assert world.successor == "running"
    commands = world.send(on.UpgradeReady(77))
    drains = [command.order for command in commands if isinstance(command, do.Order)]
    assert drains == [channel.Drain(GRACE_S, "the server stops", last=False, heirs=True)] * 2
    assert commands.index(do.HandOver()) < min(commands.index(do.Order(n, drains[0])) for n in (1, 2))
    assert world.said("upgraded: whoever connects from now on is served by pid 77")
    world.roll()
    assert world.exit == 0


def test_upgraded_is_said_only_when_no_old_worker_accepts_any_more() -> None:
    world = World(2).up()
    world.prompt = False
    world.signal(USR2)
    world.send(on.UpgradeReady(77))
    world.send(on.WorkerReported(1, channel.Draining()))
    assert not world.said("upgraded")
    world.exits(2, -9)
    assert world.said("upgraded: whoever connects")


@pytest.mark.parametrize("late", [on.UpgradeReady(77), on.UpgradeFailed("again")], ids=repr)
def test_a_failed_upgrade_changes_nothing_and_can_be_tried_again(late: on.Event) -> None:
    world = World(2).up()
    world.signal(USR2)
    world.send(on.UpgradeFailed("no module.", "the fix", "the frames"))
    assert world.errors[-1] == do.Explain("Upgrade refused: no module.", "the fix", "the frames", "upgrade")
    world.send(late)
    assert len(world.errors) == 1
    world.signal(USR2)
    assert world.said("SIGUSR2: refused, the new server that failed is still leaving")
    world.send(on.UpgradeExited(3))
    assert world.those(Is.SERVING) == [1, 2]
    world.successor = ""
    world.signal(USR2)
    assert world.successor == "running"


def test_a_new_server_that_is_never_ready_is_removed_by_force_in_the_end() -> None:
    world = World(1).up()
    world.signal(USR2)
    world.after(2 * BOOT_S + limits.UPGRADE_START_S)
    assert world.said("the new server is removed")
    assert world.errors[-1].cause == "Upgrade refused: the new server was not ready within 50 s."
    world.after(GRACE_S + limits.KILL_AFTER_S)
    assert world.successor == "killed"


def test_pid_1_cannot_be_upgraded() -> None:
    world = World(1, is_init=True).up()
    world.signal(USR2)
    assert world.said("SIGUSR2: refused, this is pid 1")
    assert world.successor == ""


@pytest.mark.parametrize(
    ("before", "why"), [(HUP, "a reload is on its way"), (TERM, "the server stops"), (USR2, "an upgrade is on its way already")]
)
def test_an_upgrade_waits_for_nothing_but_says_what_is_in_its_way(before: Signals, why: str) -> None:
    world = World(1).up()
    world.signal(before)
    world.signal(USR2)
    assert world.said(f"SIGUSR2: refused, {why}")


def test_a_stop_during_an_upgrade_stops_both_and_waits_for_the_other() -> None:
    world = World(1).up()
    world.signal(USR2)
    commands = world.send(on.Signalled(TERM))
    assert do.StopUpgrade(together=True) in commands
    world.roll()
    assert world.exit is None
    world.send(on.UpgradeExited(1))
    assert world.exit == 0


def test_a_new_server_gives_back_what_it_has_until_it_takes_over() -> None:
    world = World(1, shared=True).up()
    world.signal(USR2)
    assert world.said("SIGUSR2: refused, the server still starts")
    world.signal(TERM)
    assert world.workers[1].order == channel.Drain(GRACE_S, "the server stops", last=False, heirs=True)


def test_once_it_has_taken_over_a_new_server_is_like_any_other() -> None:
    world = World(1, shared=True).up()
    assert do.Order(1, channel.Sole()) in world.send(on.TakeOver(7))
    world.signal(TERM)
    assert world.workers[1].order == channel.Drain(GRACE_S, "the server stops", last=True)


def test_a_new_server_leaves_when_the_old_one_has_stopped() -> None:
    world = World(1, shared=True).up()
    world.send(on.CalledOff(7))
    assert world.said("the server that was to be upgraded, pid 7, has stopped")
    world.roll()
    assert world.exit == 1


# -- wishes: who waits is answered once ------------------------------------------------------------------------------------

DONE, REJECTED, FAILED, STOPPING = do.Verdict.DONE, do.Verdict.REJECTED, do.Verdict.FAILED, do.Verdict.STOPPING


def test_a_reload_that_was_wished_for_is_answered_when_the_last_worker_is_new() -> None:
    world = World(2).up()
    request = world.reload()
    world.nursery_ready(2)
    world.after(2.0)
    world.ready(3)
    assert not world.answers
    world.ready(4)
    answer = world.answers[request]
    assert (answer.verdict, answer.generation, answer.workers, answer.seconds) == (DONE, 2, 2, 2.0)
    assert answer.text == "reloaded in 2.0 s: 2 workers of generation 2"


def test_a_refused_reload_is_answered_with_the_cause_the_fix_and_the_trace() -> None:
    world = World(2).up()
    request = world.reload()
    world.nursery_ready(2)
    world.forked(3)
    world.fails(3)
    answer = world.answers[request]
    assert (answer.verdict, answer.generation, answer.fix, answer.trace) == (FAILED, 1, "the fix", "the frames")
    assert answer.text == "Reload refused: worker 3 (pid 103): Importing main failed."


def test_reloads_wished_for_during_a_reload_wait_for_one_more_and_share_it() -> None:
    world = World(2).up()
    first = world.reload()
    others = [world.reload(), world.reload()]
    world.nursery_ready(2)
    world.ready(3)
    world.ready(4)
    assert world.verdict(first) is DONE
    assert not any(other in world.answers for other in others)
    world.roll()
    assert [world.answers[other].generation for other in others] == [3, 3]
    assert list(world.nurseries) == [3]


def test_a_reload_that_waited_behind_a_refused_one_gets_its_own_verdict() -> None:
    world = World(1).up()
    first, second = world.reload(), world.reload()
    world.nursery_ready(2)
    world.forked(2)
    world.fails(2)
    assert world.verdict(first) is FAILED
    world.roll()
    assert world.verdict(second) is DONE
    assert world.answers[second].generation == 3


def test_a_hup_during_a_reload_that_somebody_waits_for_does_not_change_its_answer() -> None:
    world = World(1).up()
    request = world.reload()
    world.signal(HUP)
    world.roll()
    assert (world.verdict(request), world.answers[request].generation) == (DONE, 2)
    assert world.generations() == [3]


def test_a_reload_wished_for_during_the_first_start_is_answered_after_it() -> None:
    world = World(2)
    world.send(on.Start())
    request = world.reload()
    world.roll()
    assert (world.verdict(request), world.answers[request].generation) == (DONE, 2)


def test_who_waits_when_the_first_start_fails_is_told_that_the_server_stops() -> None:
    world = World(1)
    world.send(on.Start())
    request = world.reload()
    world.nursery_ready(1)
    world.forked(1)
    world.fails(1)
    assert world.verdict(request) is STOPPING


@pytest.mark.parametrize("how", ["TERM", "stop", "drain delay"])
def test_an_order_to_stop_answers_everybody_and_whoever_comes_after_it(how: str) -> None:
    world = World(2, drain_delay_s=5.0 if how == "drain delay" else 0.0).up()
    requests = [world.reload(), world.reload(), world.scale(4), world.recycle()]
    assert not world.answers
    world.send(on.Stop() if how == "stop" else on.Signalled(TERM))
    requests += [world.reload(), world.scale(1), world.recycle()]
    assert [world.verdict(request) for request in requests] == [STOPPING] * 7
    assert world.nurseries[2] == "killed"


def test_scale_is_answered_when_so_many_serve() -> None:
    world = World(2).up()
    request = world.scale(4)
    assert world.count(Is.FORKING) == 2
    world.ready(3)
    assert request not in world.answers
    world.ready(4)
    assert (world.verdict(request), world.answers[request].workers) == (DONE, 4)
    world.after(1)
    fewer = world.scale(-3, relative=True)
    assert world.verdict(fewer) is DONE
    assert world.those(Is.SERVING) == [1]
    same = world.scale(1)
    assert world.verdict(same) is DONE


@pytest.mark.parametrize(
    ("workers", "why"), [(0, "one worker is the least"), (-1, "one worker is the least"), (5, "4 is the most workers")]
)
def test_scaling_to_none_or_too_many_is_rejected_and_changes_nothing(workers: int, why: str) -> None:
    world = World(2, workers_max=4).up()
    request = world.scale(workers)
    assert world.verdict(request) is REJECTED
    assert why in world.answers[request].text
    assert world.state.target == 2


def test_scaling_that_fails_is_taken_back_with_those_that_were_ready_already() -> None:
    world = World(2).up()
    request = world.scale(4)
    world.ready(3)
    world.forked(4)
    world.fails(4)
    answer = world.answers[request]
    assert (answer.verdict, answer.workers, answer.trace) == (FAILED, 2, "the frames")
    world.roll()
    assert world.those(Is.SERVING) == [1, 2]


def test_new_workers_that_fail_in_a_reload_refuse_the_reload_and_the_scaling_goes_on_with_the_old_code() -> None:
    world = World(1).up()
    reload = world.reload()
    world.nursery_ready(2)
    world.ready(2)
    scale = world.scale(2)
    assert world.state.roll is None
    assert world.verdict(reload) is DONE
    again = world.reload()
    world.nursery_ready(3)
    world.roll()
    assert world.verdict(scale) is DONE
    assert world.verdict(again) is DONE


def test_scaling_in_a_reload_that_is_refused_goes_on_with_the_old_code() -> None:
    world = World(2).up()
    reload = world.reload()
    world.nursery_ready(2)
    world.ready(3)  # proven: whoever is forked now is new
    scale = world.scale(3)
    new = world.those(Is.FORKING)
    for worker_id in new:
        world.forked(worker_id)
    world.fails(new[0])
    assert world.verdict(reload) is FAILED
    assert scale not in world.answers
    world.roll()
    assert world.verdict(scale) is DONE
    assert world.generations() == [1, 1, 1]


@pytest.mark.parametrize("by", ["wish", "signal"])
def test_a_later_number_of_workers_overtakes_an_earlier_one(by: str) -> None:
    world = World(2).up()
    first = world.scale(5)
    if by == "wish":
        world.scale(3)
    else:
        world.signal(TTOU)
    assert world.verdict(first) is REJECTED
    assert world.answers[first].text.startswith("Overtaken: ")
    world.roll()
    assert world.count(Is.SERVING) == (3 if by == "wish" else 4)


def test_scaling_and_recycling_fail_where_the_nursery_cannot_come_back() -> None:
    world = World(2).up()
    world.nursery_exits(1, -9)
    requests = [world.scale(3), world.recycle()]
    world.nursery_exits(1, 1)
    assert [world.verdict(request) for request in requests] == [FAILED, FAILED]
    assert world.state.target == 2
    assert world.those(Is.SERVING) == [1, 2]


def test_recycling_all_goes_one_by_one_and_is_answered_after_the_last() -> None:
    world = World(3).up()
    request = world.recycle()
    for old, new in ((1, 4), (2, 5), (3, 6)):
        assert request not in world.answers
        assert world.those(Is.FORKING) == [new]
        assert old in world.those(Is.SERVING)
        world.ready(new)
    assert world.verdict(request) is DONE
    assert world.those(Is.SERVING) == [4, 5, 6]


def test_recycling_is_answered_when_the_old_worker_accepts_no_more() -> None:
    world = World(1).up()
    world.prompt = False
    request = world.recycle(1)
    world.ready(2)
    assert request not in world.answers
    world.send(on.WorkerReported(1, channel.Draining()))
    assert world.verdict(request) is DONE


def test_recycling_one_leaves_the_others() -> None:
    world = World(2).up()
    request = world.recycle(2)
    world.roll()
    assert world.verdict(request) is DONE
    assert world.those(Is.SERVING) == [1, 3]


def test_recycling_is_done_too_when_the_worker_dies_and_another_takes_its_place() -> None:
    world = World(2).up()
    request = world.recycle(2)
    world.forked(3)
    world.exits(2, -9)
    assert request not in world.answers
    world.ready(3)
    assert world.verdict(request) is DONE


@pytest.mark.parametrize(
    ("worker_id", "why"),
    [(99, "There is no worker 99."), (2, "worker 2 (pid 102) leaves."), (3, "worker 3 (pid 103) boots and is as fresh")],
)
def test_what_cannot_be_recycled_is_rejected(worker_id: int, why: str) -> None:
    world = World(2).up()
    world.after(1)
    world.scale(1)
    world.scale(2)
    world.forked(3)
    request = world.recycle(worker_id)
    assert world.verdict(request) is REJECTED
    assert world.answers[request].text.startswith(why)


def test_recycling_all_while_nobody_serves_is_rejected() -> None:
    world = World(1)
    world.send(on.Start())
    assert world.verdict(world.recycle()) is REJECTED


def test_a_replacement_that_fails_ends_the_wish_and_the_worker_is_not_replaced_any_more() -> None:
    world = World(2).up()
    request = world.recycle()
    world.forked(3)
    world.fails(3)
    assert (world.verdict(request), world.answers[request].trace) == (FAILED, "the frames")
    world.exits(3, 3)
    world.after(60)
    assert not world.those(Is.FORKING)
    assert world.those(Is.SERVING) == [1, 2]


def test_a_replacement_that_fails_for_one_wish_is_still_made_for_another() -> None:
    world = World(2).up()
    everybody, one = world.recycle(), world.recycle(2)
    world.forked(3)
    world.fails(3)
    assert world.verdict(everybody) is FAILED
    world.after(1.0)
    world.roll()
    assert world.verdict(one) is DONE
    assert world.those(Is.SERVING) == [1, 4]


def test_taking_a_scaling_back_never_takes_who_serves_before_who_does_not() -> None:
    world = World(3).up()
    world.scale(1)
    world.scale(2)
    scale = world.scale(3)
    world.ready(5)
    world.forked(4)
    world.fails(4)
    assert world.verdict(scale) is FAILED
    assert world.those(Is.SERVING) == [1, 5]


def test_a_workers_own_reason_to_retire_outlives_a_wish_that_failed() -> None:
    world = World(1).up()
    world.recycle()
    world.send(on.WorkerReported(1, channel.Retire("max_requests")))
    world.forked(2)
    world.fails(2)
    world.exits(2, 3)
    world.after(1.0)
    world.roll()
    assert 1 not in world.workers
    assert world.workers.keys() == {3}


def test_recycling_during_a_reload_is_done_by_the_reload() -> None:
    world = World(2).up()
    reload, recycle = world.reload(), world.recycle(1)
    world.roll()
    assert (world.verdict(reload), world.verdict(recycle)) == (DONE, DONE)
    assert len(world.workers) == 2
    assert world.state.last_worker == 4  # nobody was replaced twice


def test_a_wish_to_stop_is_the_same_wish_when_it_comes_again_and_a_signal_after_it_forces() -> None:
    world = World(1).up()
    world.send(on.Stop())
    world.after(1)
    world.send(on.Stop())
    assert world.workers[1].order == channel.Drain(GRACE_S, "the server stops", last=True)
    world.signal(TERM)
    assert world.workers[1].order == channel.Stop()
    world.roll()
    assert world.exit == 1


# -- drain delay -----------------------------------------------------------------------------------------------------------


def test_term_with_a_drain_delay_serves_on_for_it_and_then_stops() -> None:
    world = World(2, drain_delay_s=5.0).up()
    world.signal(TERM)
    assert world.state.stage is Stage.DRAIN_DELAY
    assert all(process.announced for process in world.workers.values())
    world.after(4.9)
    assert world.count(Is.SERVING) == 2
    world.after(0.1)
    assert [process.order for process in world.workers.values()] == [channel.Drain(GRACE_S, "the server stops", last=True)] * 2
    world.roll()
    assert world.exit == 0


@pytest.mark.parametrize(("signum", "grace_s"), [(TERM, GRACE_S), (INT, limits.INTERRUPT_GRACE_S)])
def test_a_second_signal_skips_the_drain_delay_and_the_third_forces(signum: Signals, grace_s: float) -> None:
    world = World(1, drain_delay_s=60.0).up()
    world.signal(TERM)
    world.after(1)
    world.signal(signum)
    assert world.workers[1].order == channel.Drain(grace_s, "the server stops", last=True)
    world.after(1)
    world.signal(TERM)
    assert world.workers[1].order == channel.Stop()
    world.roll()
    assert world.exit == 1


def test_the_same_term_twice_within_a_blink_does_not_skip_the_drain_delay() -> None:
    world = World(1, drain_delay_s=60.0).up()
    world.signal(TERM)
    world.now += 0.05
    world.signal(TERM)
    assert world.those(Is.SERVING) == [1]


@pytest.mark.parametrize("signum", [INT, Signals.SIGQUIT])
def test_int_and_quit_know_no_drain_delay(signum: Signals) -> None:
    world = World(1, drain_delay_s=60.0).up()
    world.signal(signum)
    assert world.workers[1].order == channel.Drain(limits.INTERRUPT_GRACE_S, "the server stops", last=True)


def test_a_term_before_the_server_was_ever_ready_has_no_drain_delay() -> None:
    world = World(2, drain_delay_s=60.0)
    world.send(on.Start())
    world.nursery_ready(1)
    world.ready(1)
    world.signal(TERM)
    assert world.state.stage is Stage.STOPPING


def test_in_the_drain_delay_the_dead_are_replaced_and_nobody_else() -> None:
    world = World(2, drain_delay_s=60.0).up()
    world.signal(TERM)
    world.send(on.WorkerReported(1, channel.Retire("max_requests")))
    assert not world.those(Is.FORKING)
    world.exits(2, -9)
    assert world.those(Is.FORKING) == [3]
    world.ready(3)
    assert world.those(Is.SERVING) == [1, 3]
    assert world.workers[3].announced


def test_a_nursery_that_dies_in_the_drain_delay_is_started_again() -> None:
    world = World(1, drain_delay_s=60.0).up()
    world.signal(TERM)
    world.nursery_exits(1, -9)
    world.exits(1, -9)
    world.nursery_ready(1)
    world.ready(2)
    assert world.those(Is.SERVING) == [2]


def test_a_reload_half_way_is_given_up_in_the_drain_delay_and_its_ready_workers_serve_on() -> None:
    world = World(3, drain_delay_s=60.0).up()
    request = world.reload()
    world.nursery_ready(2)
    world.ready(4)
    world.forked(5)
    world.signal(TERM)
    assert world.workers[5].order == channel.Stop()
    assert world.verdict(request) is STOPPING
    assert sorted(world.generations()) == [1, 1, 2]
    world.exits(5)
    world.signal(HUP)
    assert not world.those(Is.FORKING)
    world.roll()
    assert sorted(world.generations()) == [1, 1, 2]


# -- every event at every moment -----------------------------------------------------------------------------------------

ONE_OF_EACH: list[on.Event] = [
    on.Start(),
    on.Tick(),
    *(on.Signalled(signum) for signum in (HUP, TERM, INT, TTIN, TTOU, Signals.SIGUSR1, Signals.SIGUSR2, Signals.SIGQUIT)),
    on.Reload(1),
    *(on.Scale(1, workers, relative) for workers, relative in ((0, False), (1, False), (4, False), (1, True), (-1, True))),
    *(on.Recycle(1, worker_id) for worker_id in (None, 1, 99)),
    on.Stop(),
    on.UpgradeReady(77),
    on.UpgradeFailed("no"),
    on.UpgradeExited(3),
    on.TakeOver(77),
    on.CalledOff(77),
    on.NurseryReady(1, 7),
    on.NurseryReady(9, 7),
    on.NurseryFailed(1, "no"),
    on.NurseryFailed(9, "no"),
    on.NurseryExited(9, 0),
    on.WorkerForked(99, 7),
    on.ForkFailed(99, "no"),
    on.ChannelClosed(99),
    on.WorkerExited(99, 0),
    *(on.WorkerReported(worker_id, report) for worker_id in (1, 99) for report in (channel.Retire("x"), channel.Drained(["x"]))),
    on.WorkerReported(99, channel.Ready()),
    on.WorkerReported(99, channel.BootFailed("x", "x")),
]


def _moments() -> dict[str, World]:
    moments = {"new": World(2), "starting": World(2), "booting": World(2)}
    moments["starting"].send(on.Start())
    moments["booting"].send(on.Start())
    moments["booting"].nursery_ready(1)
    for name in ("serving", "rolling", "half way", "stopping", "stopped"):
        moments[name] = World(2).up()
    moments["rolling"].signal(HUP)
    moments["half way"].signal(HUP)
    moments["half way"].nursery_ready(2)
    moments["half way"].ready(3)
    moments["draining"] = World(2, drain_delay_s=5.0).up()
    moments["draining"].signal(TERM)
    moments["wished for"] = World(2).up()
    for wish in (moments["wished for"].recycle, moments["wished for"].reload, moments["wished for"].reload):
        wish()
    moments["wished for"].scale(3)
    moments["stopping"].signal(TERM)
    moments["stopped"].signal(TERM)
    moments["stopped"].roll()
    return moments


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=repr)
@pytest.mark.parametrize("moment", list(_moments()))
def test_every_event_at_every_moment_leaves_a_server_that_can_still_be_stopped(moment: str, event: on.Event) -> None:
    world = _moments()[moment]
    if isinstance(event, on.Reload | on.Scale | on.Recycle):
        world.wish(dataclasses.replace(event, request=world.next_request()))
    else:
        world.send(event)
    end(world)


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


class AnythingMayHappen(RuleBasedStateMachine):
    """Random lives of a server: every rule is something the outside world can do. `World` checks every command."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(3)

    @initialize(
        is_up=st.booleans(), prompt=st.booleans(), drain_delay_s=st.sampled_from([0.0, 0.0, 2.0]), max_surge=st.sampled_from([1, 1, 2])
    )
    def start(self, is_up: bool, prompt: bool, drain_delay_s: float, max_surge: int) -> None:
        self.world = World(3, drain_delay_s=drain_delay_s, max_surge=max_surge)
        self.world.prompt = prompt
        if is_up:
            self.world.up()
        else:
            self.world.send(on.Start())

    def pick(self, data: st.DataObject, *lives: Is) -> int | None:
        fits = [worker_id for worker_id, process in self.world.workers.items() if process.life in lives]
        return data.draw(st.sampled_from(fits)) if fits else None

    def alive(self) -> bool:
        return self.world.exit is None

    @precondition(alive)
    @rule(signum=st.sampled_from([HUP, HUP, HUP, TTIN, TTOU, Signals.SIGUSR1, USR2]))
    def signalled(self, signum: Signals) -> None:
        self.world.signal(signum)

    @precondition(alive)
    @rule(data=st.data(), what=st.sampled_from(["reload", "scale", "scale by", "recycle", "recycle all"]))
    def wished_for(self, data: st.DataObject, what: str) -> None:
        match what:
            case "reload":
                self.world.reload()
            case "scale":
                self.world.scale(data.draw(st.integers(0, 6)))
            case "scale by":
                self.world.scale(data.draw(st.integers(-3, 3)), relative=True)
            case "recycle":
                self.world.recycle(self.pick(data, *Is) or 99)
            case _:
                self.world.recycle()

    @precondition(alive)
    @rule(really=st.integers(0, 9))
    def wished_to_stop(self, really: int) -> None:
        if really == 0:
            self.world.send(on.Stop())

    @precondition(alive)
    @rule(signum=st.sampled_from([TERM, INT]), really=st.integers(0, 9))
    def asked_to_stop(self, signum: Signals, really: int) -> None:
        if really == 0:
            self.world.signal(signum)

    @precondition(lambda self: not self.alive())
    @rule()
    def rest(self) -> None:
        """It has come to its end; nothing more may happen."""
        assert self.world.send(on.Signalled(TERM)) == []

    @precondition(lambda self: self.alive() and self.world.successor)
    @rule(how=st.sampled_from(["fails", "exits", "exits", "is ready"]))
    def successor_does(self, how: str) -> None:
        if how == "fails":
            self.world.send(on.UpgradeFailed("no"))
        elif how == "exits":
            self.world.successor_exits()
        else:
            self.world.send(on.UpgradeReady(77))

    @precondition(alive)
    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 3.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.after(seconds)

    @precondition(alive)
    @rule(data=st.data(), how=st.sampled_from(["ready", "ready", "ready", "cannot import", "dies"]))
    def nursery_does(self, data: st.DataObject, how: str) -> None:
        world = self.world
        starting = [generation for generation, now in world.nurseries.items() if now == "starting"]
        if how == "ready" and starting:
            world.nursery_ready(starting[0])
        elif how == "cannot import" and starting:
            world.send(on.NurseryFailed(starting[0], "no"))
            if world.nurseries.get(starting[0]) == "starting":
                world.nurseries[starting[0]] = "failed"
        elif how == "dies" and world.nurseries:
            world.nursery_exits(data.draw(st.sampled_from(sorted(world.nurseries))), -9)
        elif ending := world.ending():
            world.nursery_exits(ending[0], 0)

    @precondition(alive)
    @rule(data=st.data())
    def worker_is_forked(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.FORKING)
        if worker_id is not None:
            self.world.forked(worker_id)

    @precondition(alive)
    @rule(data=st.data())
    def fork_is_refused(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.FORKING)
        if worker_id is not None:
            del self.world.workers[worker_id]
            self.world.send(on.ForkFailed(worker_id, "no memory"))

    @precondition(alive)
    @rule(data=st.data())
    def worker_is_ready(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.BOOTING)
        if worker_id is not None:
            self.world.ready(worker_id)

    @precondition(alive)
    @rule(data=st.data())
    def boot_fails(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.BOOTING)
        if worker_id is not None:
            self.world.fails(worker_id)

    @precondition(alive)
    @rule(data=st.data(), reason=st.sampled_from(["SIGTERM", ""]))
    def worker_retires(self, data: st.DataObject, reason: str) -> None:
        worker_id = self.pick(data, Is.BOOTING, Is.SERVING)
        if worker_id is not None:
            self.world.send(on.WorkerReported(worker_id, channel.Retire(reason)))

    @precondition(alive)
    @rule(data=st.data())
    def channel_breaks(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.BOOTING, Is.SERVING, Is.LEAVING)
        if worker_id is not None:
            self.world.send(on.ChannelClosed(worker_id))

    @precondition(alive)
    @rule(data=st.data(), status=st.sampled_from([0, 1, 3, -9, -11, None]))
    def worker_dies(self, data: st.DataObject, status: int | None) -> None:
        worker_id = self.pick(data, Is.FORKING, Is.BOOTING, Is.SERVING, Is.LEAVING, Is.LEAVING)
        if worker_id is not None:
            self.world.exits(worker_id, status)

    @invariant()
    def never_two_that_serve_in_one_place(self) -> None:
        if self.world.state.stage is Stage.SERVING:
            assert self.world.count(Is.SERVING) <= self.world.state.target

    @invariant()
    def a_deadline_in_the_past_does_not_stay(self) -> None:
        """Or the loop would turn for nothing."""
        self.world.send(on.Tick())
        wake = policy.next_wake(self.world.state, self.world.now)
        assert wake is None or wake > self.world.now or self.world.exit is not None

    def teardown(self) -> None:
        if self.world.exit is None and self.world.state.stage is not Stage.NEW:
            for generation, how in self.world.nurseries.items():
                if how == "failed":
                    self.world.nurseries[generation] = "killed"
            end(self.world)


@pytest.mark.any_build
class TestAnythingMayHappen(AnythingMayHappen.TestCase):
    settings = WALKS


class NobodyDies(RuleBasedStateMachine):
    """Random reloads, replacements and scalings that succeed or fail at any point, in a world where no serving worker crashes.

    The promise: the number of workers that serve, once it has been reached, never falls below what is wanted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(3).up()
        self.reached = 3

    def pick(self, data: st.DataObject, *lives: Is) -> int | None:
        fits = [worker_id for worker_id, process in self.world.workers.items() if process.life in lives]
        return data.draw(st.sampled_from(fits)) if fits else None

    @rule()
    def hup(self) -> None:
        self.world.signal(HUP)

    @rule()
    def reload(self) -> None:
        self.world.reload()

    @rule(workers=st.integers(0, 5))
    def scale(self, workers: int) -> None:
        self.world.scale(workers)

    @rule(signum=st.sampled_from([TTIN, TTOU]))
    def scale_by_one(self, signum: Signals) -> None:
        self.world.signal(signum)

    @rule(data=st.data())
    def recycle(self, data: st.DataObject) -> None:
        self.world.recycle(self.pick(data, Is.SERVING))

    @rule()
    def recycle_all(self) -> None:
        self.world.recycle()

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.SERVING)
        if worker_id is not None:
            self.world.send(on.WorkerReported(worker_id, channel.Retire("max_requests")))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.after(seconds)

    @rule(works=st.booleans())
    def nursery(self, works: bool) -> None:
        starting = [generation for generation, how in self.world.nurseries.items() if how == "starting"]
        if starting and works:
            self.world.nursery_ready(starting[0])
        elif starting:
            self.world.nursery_exits(starting[0], 1)
        elif ending := self.world.ending():
            self.world.nursery_exits(ending[0], 0)

    @rule(data=st.data(), works=st.sampled_from([True, True, False]))
    def boot(self, data: st.DataObject, works: bool) -> None:
        worker_id = self.pick(data, Is.FORKING, Is.BOOTING)
        if worker_id is None:
            return
        if not self.world.workers[worker_id].pid:
            self.world.forked(worker_id)
        if works:
            self.world.ready(worker_id)
        else:
            self.world.fails(worker_id)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker_id = self.pick(data, Is.LEAVING)
        if worker_id is not None:
            self.world.exits(worker_id, 0)

    @invariant()
    def as_many_serve_as_are_wanted(self) -> None:
        serving = self.world.count(Is.SERVING)
        self.reached = min(self.world.state.target, max(self.reached, serving))
        assert serving >= self.reached

    @invariant()
    def one_replacement_at_a_time(self) -> None:
        state = self.world.state
        replacing = [worker for worker in state.in_life(Life.BOOTING) if state.holder(worker.seat, Life.READY)]
        assert len(replacing) <= 1

    def teardown(self) -> None:
        """Left alone, everything comes to rest: what is wanted serves, of one generation, and nobody waits any more."""
        world = self.world
        world.after(2 * limits.BACKOFF_MAX_S)
        for _ in range(100):
            world.roll()
            wake = policy.next_wake(world.state, world.now)
            if wake is None:
                break
            world.after(max(0.0, wake - world.now))
        assert world.count(Is.SERVING) == world.state.target == len(world.workers)
        assert len(set(world.generations())) == 1
        assert world.answers.keys() == world.asked


@pytest.mark.any_build
class TestNobodyDies(NobodyDies.TestCase):
    settings = WALKS
