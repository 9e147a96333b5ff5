"""When a worker asks to be replaced."""

from __future__ import annotations

from typing import Any

from cavalcade import limits
from cavalcade.board.ledger import Ledger, private_ledger
from cavalcade.board.ledger_words import REQUESTS
from cavalcade.config.options import Settings
from cavalcade.worker.recycle import Recycle

MIB = limits.MIB


def recycle(ledger: Ledger | None = None, rss: list[int] | None = None, **settings: Any) -> Recycle:
    return Recycle(Settings(**settings), ledger or private_ledger(), 1000.0, read_rss=lambda: rss[0] if rss else 0)


def test_requests_are_counted_to_the_limit_and_its_jitter_and_said_once() -> None:
    asked = set()
    for _ in range(50):
        ledger = private_ledger()
        worker = recycle(ledger, max_requests=100, max_requests_jitter=10)
        while not (reason := worker.due(1000.0)):
            ledger.add(REQUESTS, 1)
        assert reason == f"max_requests: it has served {ledger.get(REQUESTS)}"
        assert worker.due(1000.0) == ""
        asked.add(ledger.get(REQUESTS))
    assert len(asked) > 1
    assert asked <= set(range(100, 111))


def test_age_has_a_tenth_of_jitter() -> None:
    worker = recycle(max_age=100.0)
    assert worker.due(1099.0) == ""
    assert worker.due(1111.0) == "max_age: it is 111 s old"


def test_memory_must_stay_over_the_limit() -> None:
    rss = [200 * MIB]
    worker = recycle(rss=rss, max_memory=100 * MIB)
    for second in range(limits.MEMORY_SAMPLES - 1):
        assert worker.due(1000.0 + second) == ""
    rss[0] = 50 * MIB  # it was a spike
    assert worker.due(1010.0) == ""
    rss[0] = 150 * MIB
    reasons = [worker.due(1020.0 + tenth / 10) for tenth in range(10 * limits.MEMORY_SAMPLES)]
    assert [reason for reason in reasons if reason] == ["max_memory: 150 MiB after 0 requests, over 100 MiB for 5 samples"]


def test_without_a_limit_a_worker_stays() -> None:
    ledger = private_ledger()
    ledger.set(REQUESTS, 10**9)
    assert recycle(ledger, rss=[1 << 40]).due(1e9) == ""
