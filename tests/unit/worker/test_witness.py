"""What a worker says of its own blocking."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cavalcade.worker import channel
from cavalcade.worker.witness import Witness


def test_a_blocking_that_is_told_as_the_worker_leaves_counts_those_who_waited() -> None:
    """Five have been answered before it, and three waited: none of the five is taken off."""
    told: list[channel.Stalled] = []
    serving: Any = SimpleNamespace(running={}, totals=SimpleNamespace(requests=5))
    witness = Witness(serving, 0.25, None, told.append)
    witness.start()
    witness.beat(10.0, 9.9, 10.0)
    witness.beat(12.0, 10.0, 10.1)
    serving.totals.requests = 8
    witness.stop()
    assert [stalled.waited for stalled in told] == [3]
