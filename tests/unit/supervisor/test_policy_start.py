"""The rules of supervision: the first start, and deaths."""

from __future__ import annotations

import pytest
from policy_world import BOOT_S, Is, World

from cavalcade import limits
from cavalcade.supervisor import events as on

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
