"""How many requests a stall held up, also where it is the last thing that a worker does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cavalcade.apps.stream import Totals
from cavalcade.worker.channel import Stalled
from cavalcade.worker.witness import Witness


@pytest.mark.parametrize("end", ["beat", "stop"])
@pytest.mark.parametrize(("begun", "waited"), [(0, 0), (3, 3)])
def test_a_stall_is_told_with_those_who_came_while_it_lasted(end: str, begun: int, waited: int) -> None:
    serving: Any = SimpleNamespace(running={}, totals=Totals())
    told: list[Stalled] = []
    witness = Witness(serving, 0.25, None, told.append)
    serving.totals.requests = 10_000
    witness.beat(1.0, 0.9, 1.0)
    witness.beat(2.0, 1.0, 1.1)  # nearly a second too late
    serving.totals.requests += begun
    assert told == []
    if end == "beat":
        witness.beat(2.1, 2.0, 2.1)
    else:
        witness.stop()
    assert [each.waited for each in told] == [waited]
    witness.stop()
    assert len(told) == 1
