"""The rules of supervision: who waits for something is answered once."""

from __future__ import annotations

import pytest
from policy_world import GRACE_S, HUP, TERM, TTOU, Is, World

from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.worker import channel

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
