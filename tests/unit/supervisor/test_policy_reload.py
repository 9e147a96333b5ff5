"""The rules of supervision: reloads, workers that ask to retire, and scaling."""

from __future__ import annotations

import pytest
from policy_world import BOOT_S, GRACE_S, HUP, TERM, TTIN, TTOU, Is, World

from cavalcade.supervisor import events as on
from cavalcade.worker import channel

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
