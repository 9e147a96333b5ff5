"""The rules of supervision, against a world of make-believe processes and a clock that is turned by hand."""

from __future__ import annotations

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
from cavalcade.supervisor.state import Rules, Stage, State
from cavalcade.worker import channel

HUP, TERM, INT, TTIN, TTOU = Signals.SIGHUP, Signals.SIGTERM, Signals.SIGINT, Signals.SIGTTIN, Signals.SIGTTOU
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


class World:
    """What the commands are carried out on. Every command is checked against what may be asked for at that moment."""

    def __init__(self, workers: int = 2, **rules: Any) -> None:
        self.state = State(Rules(workers, boot_timeout_s=BOOT_S, graceful_timeout_s=GRACE_S, **rules))
        self.now = 1000.0
        self.workers: dict[int, Process] = {}
        self.nurseries: dict[int, str] = {}
        self.exit: int | None = None
        self.served_at: float | None = None
        self.lines: list[tuple[Level, str]] = []
        self.errors: list[do.Explain] = []
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
            case do.Order(worker_id, order):
                assert worker_id in self.workers
                self.workers[worker_id].order = order
                self.workers[worker_id].life = Is.LEAVING
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
            case do.Serving():
                assert self.served_at is None
                self.served_at = self.now
            case do.Exit(code):
                assert not self.workers, "exit with workers left"
                assert not self.nurseries, "exit with a nursery left"
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

    def signal(self, signum: Signals) -> None:
        self.send(on.Signalled(signum))

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


@pytest.mark.parametrize("signum", [Signals.SIGUSR1, Signals.SIGUSR2])
def test_signals_without_a_meaning_yet_do_no_harm(signum: Signals) -> None:
    world = World(1).up()
    world.signal(signum)
    assert world.those(Is.SERVING) == [1]


# -- every event at every moment -----------------------------------------------------------------------------------------

ONE_OF_EACH: list[on.Event] = [
    on.Start(),
    on.Tick(),
    *(on.Signalled(signum) for signum in (HUP, TERM, INT, TTIN, TTOU, Signals.SIGUSR1, Signals.SIGQUIT)),
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
    moments["stopping"].signal(TERM)
    moments["stopped"].signal(TERM)
    moments["stopped"].roll()
    return moments


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=repr)
@pytest.mark.parametrize("moment", list(_moments()))
def test_every_event_at_every_moment_leaves_a_server_that_can_still_be_stopped(moment: str, event: on.Event) -> None:
    world = _moments()[moment]
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
        else:
            wake = policy.next_wake(world.state, world.now)
            assert wake is not None, "nothing left to wait for, and no exit"
            world.after(max(0.0, wake - world.now))
    assert world.exit is not None
    assert world.now - began <= GRACE_S + 3 * limits.KILL_AFTER_S


class AnythingMayHappen(RuleBasedStateMachine):
    """Random lives of a server: every rule is something the outside world can do. `World` checks every command."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(3)

    @initialize(is_up=st.booleans(), prompt=st.booleans())
    def start(self, is_up: bool, prompt: bool) -> None:
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
    @rule(signum=st.sampled_from([HUP, HUP, HUP, TTIN, TTOU, Signals.SIGUSR1]))
    def signalled(self, signum: Signals) -> None:
        self.world.signal(signum)

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


AnythingMayHappen.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnythingMayHappen = AnythingMayHappen.TestCase
