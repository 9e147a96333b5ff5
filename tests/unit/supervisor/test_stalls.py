"""What is counted about blocked loops."""

from __future__ import annotations

from cavalcade import limits
from cavalcade.supervisor.stalls import ELSEWHERE, Stalls, StallStatus


def test_stalls_are_counted_by_place_and_the_worst_comes_first() -> None:
    stalls = Stalls()
    stalls.add("a.py:1", 2, 0.5, 1.0)
    stalls.add("b.py:2", 0, 2.0, 0.0)
    stalls.add("a.py:1", 3, 0.25, 0.5)
    assert stalls.worst() == [StallStatus("b.py:2", 1, 0, 2.0), StallStatus("a.py:1", 2, 5, 0.75, 1.5)]


def test_the_table_is_bounded_and_nothing_is_lost_from_the_sums() -> None:
    stalls = Stalls()
    for number in range(limits.STALL_PLACES + 50):
        stalls.add(f"a.py:{number}", 1, 1.0, 0.5)
    stalls.add("a.py:0", 1, 1.0, 0.5)
    worst = stalls.worst()
    assert len(worst) == limits.STALL_PLACES + 1
    assert worst[0] == StallStatus(ELSEWHERE, 50, 50, 50.0, 25.0)
    assert sum(entry.requests for entry in worst) == limits.STALL_PLACES + 51


def test_what_another_server_has_counted_is_counted_once_however_often_it_tells() -> None:
    stalls = Stalls()
    stalls.add("a.py:1", 2, 0.5, 1.0)
    stalls.inherit([StallStatus("a.py:1", 3, 3, 1.0, 1.5)])
    stalls.inherit([StallStatus("a.py:1", 4, 5, 2.0, 2.5), StallStatus("b.py:2", 1, 0, 0.5)])
    assert stalls.worst() == [StallStatus("a.py:1", 5, 7, 2.5, 3.5), StallStatus("b.py:2", 1, 0, 0.5)]
