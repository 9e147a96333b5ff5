"""The rules of supervision: every event at every moment."""

from __future__ import annotations

import dataclasses
from signal import Signals

import pytest
from policy_world import HUP, INT, TERM, TTIN, TTOU, World, end

from cavalcade.supervisor import events as on
from cavalcade.worker import channel

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
