"""The rules of supervision: stopping, and the delay before it."""

from __future__ import annotations

from signal import Signals

import pytest
from policy_world import GRACE_S, HUP, INT, TERM, Is, World

from cavalcade import limits
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor.state import Stage
from cavalcade.worker import channel

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
    assert world.verdict(request) is do.Verdict.STOPPING
    assert sorted(world.generations()) == [1, 1, 2]
    world.exits(5)
    world.signal(HUP)
    assert not world.those(Is.FORKING)
    world.roll()
    assert sorted(world.generations()) == [1, 1, 2]
