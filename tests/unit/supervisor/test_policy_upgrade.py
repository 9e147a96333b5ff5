"""The rules of supervision: handing over to another server."""

from __future__ import annotations

from signal import Signals

import pytest
from policy_world import BOOT_S, GRACE_S, HUP, TERM, USR2, Is, World

from cavalcade import limits
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.worker import channel


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
