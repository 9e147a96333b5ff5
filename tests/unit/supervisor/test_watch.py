"""Who is judged to be blocked, on a clock that is turned by hand."""

from __future__ import annotations

from cavalcade import limits
from cavalcade.observe.blackbox import Frame
from cavalcade.supervisor import verdicts
from cavalcade.supervisor.verdicts import Evidence
from cavalcade.supervisor.watch import Gap, Hopeless, Pulse, Silent, Watch
from cavalcade.worker import channel

STACK = [
    Frame("/usr/lib/x/site-packages/lib/a.py", "3", "inner"),
    Frame("/srv/views.py", "88", "resize"),
    Frame("/srv/main.py", "1", "app"),
]
NAME = "worker 3 (pid 4711)"


def test_an_idle_hour_and_a_busy_one_find_nothing() -> None:
    for beat_s, idle in ((limits.LOOK_S, True), (limits.HEARTBEAT_S, False)):
        now = 1000.0
        watch = Watch(0.25, 30.0, now)
        while now < 4600.0:
            beat = now - now % beat_s
            assert watch.look([Pulse(1, beat, idle), Pulse(2, beat, idle)], now) == []
            now = watch.next_look()


def test_a_silent_worker_is_asked_once_as_soon_as_its_time_is_over_and_given_up_once() -> None:
    now = 1000.0
    watch = Watch(0.25, 30.0, now)
    found = []
    while now < 1040.0:
        found += [(round(now - 1000.0, 2), finding) for finding in watch.look([Pulse(1, 1000.0)], now)]
        now = watch.next_look()
    assert [(at, type(finding)) for at, finding in found[:1]] == [(0.25, Silent)]
    ((at, last),) = found[1:]
    assert isinstance(last, Hopeless)
    assert 30.0 <= at < 30.1


def test_each_silence_is_found_anew() -> None:
    watch = Watch(0.25, 0.0, 1000.0)
    assert watch.look([Pulse(1, 999.7)], 1000.0) == []  # nobody is judged by what was before the watch
    assert watch.look([Pulse(1, 999.9)], 1000.05) == []
    watch = Watch(0.25, 0.0, 1000.0)
    found = []
    now = 1000.0
    for beat in (1000.0, 1001.0):
        while now < beat + 0.9:
            found += watch.look([Pulse(1, beat)], now)
            now = watch.next_look()
    assert found == [Silent(1), Silent(1)]


def test_when_the_supervisor_was_late_itself_nobody_is_judged_by_that_time() -> None:
    watch = Watch(0.25, 1.0, 1000.0)
    assert watch.look([Pulse(1, 1000.0)], 1000.0) == []
    assert watch.look([Pulse(1, 1000.0)], 1005.0) == [Gap(1000.05, 1005.0)]
    assert watch.look([Pulse(1, 1000.0)], watch.next_look()) == []
    assert watch.look([Pulse(1, 1000.0)], watch.next_look()) == []


def test_switched_off_it_finds_nothing() -> None:
    watch = Watch(0.0, 0.0, 1000.0)
    now = 1000.0
    while now < 1100.0:
        assert watch.look([Pulse(1, 1000.0)], now) == []
        now = watch.next_look()


# -- the words -------------------------------------------------------------------------------------------------------------


def test_the_line_names_the_innermost_frame_of_the_users() -> None:
    stalled = channel.Stalled(412, request="GET /resize", waited=12)
    said = verdicts.resumed(NAME, stalled, Evidence(STACK))
    assert said == f"{NAME} was blocked for 412 ms in /srv/views.py:88 resize(), GET /resize; 12 requests waited"


def test_each_cause_has_its_own_words() -> None:
    gc = channel.Stalled(412, gc_ms=400, gc_generation=2, gc_freed=7, waited=1)
    assert verdicts.resumed(NAME, gc, Evidence()) == (
        f"{NAME} was blocked for 412 ms by garbage collection (400 ms, generation 2, 7 objects freed); 1 request waited"
    )
    starved = channel.Stalled(412, starved_ms=380)
    assert verdicts.resumed(NAME, starved, Evidence(STACK)) == (
        f"{NAME} was starved of CPU: of 412 ms it was ready to run for 380 ms and had none; 0 requests waited"
    )
    all_of_it = verdicts.resumed(NAME, channel.Stalled(412, starved_ms=431), Evidence(STACK))
    assert all_of_it == f"{NAME} was starved of CPU: of 412 ms it was ready to run for 412 ms and had none; 0 requests waited"
    collecting = verdicts.resumed(NAME, channel.Stalled(412, gc_ms=400, starved_ms=380), Evidence(STACK))
    assert "starved of CPU" in collecting  # what was running when there was no CPU is not to blame, whatever it was
    stopped = verdicts.resumed(NAME, channel.Stalled(412), Evidence(stopped=True))
    assert stopped == f"{NAME} was stopped (SIGSTOP) for 412 ms; 0 requests waited"
    assert verdicts.resumed(NAME, channel.Stalled(412), Evidence()) == (
        f"{NAME} was blocked for 412 ms outside of any code of the app; 0 requests waited"
    )


def test_a_debugger_and_a_machine_that_stood_still_are_nobodys_fault() -> None:
    assert verdicts.resumed(NAME, channel.Stalled(900), Evidence(STACK, traced=True)) == ""
    assert verdicts.resumed(NAME, channel.Stalled(900), Evidence([Frame("/usr/lib/python3.11/bdb.py", "90", "trace"), *STACK])) == ""
    assert verdicts.resumed(NAME, channel.Stalled(900), Evidence(STACK, machine_s=0.8)) == ""
