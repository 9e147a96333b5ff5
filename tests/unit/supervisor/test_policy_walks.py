"""The rules of supervision: random lives of a server."""

from __future__ import annotations

from signal import Signals

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from policy_world import HUP, INT, TERM, TTIN, TTOU, USR2, Is, World, end

from cavalcade import limits
from cavalcade.supervisor import events as on
from cavalcade.supervisor import policy
from cavalcade.supervisor.state import Life, Stage
from cavalcade.worker import channel

WALKS = hypothesis_settings(max_examples=150, stateful_step_count=60, deadline=None)


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
