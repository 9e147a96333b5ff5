"""What is told of the last seconds: rates and percentiles."""

from __future__ import annotations

import pytest

from cavalcade.board.ledger import Ledger, private_ledger
from cavalcade.board.ledger_words import BUCKETS, Sums
from cavalcade.supervisor.recent import NOTES, NOTHING, Recent, percentile


def note(recent: Recent, ledger: Ledger, now: float) -> None:
    recent.note({7: Sums(ledger.words())}, Sums(ledger.words()), now)


def test_the_rate_is_that_of_the_last_second_and_the_percentiles_are_those_of_the_last_ten() -> None:
    recent, ledger = Recent(), private_ledger()
    note(recent, ledger, 0.0)
    for _ in range(90):
        ledger.answered("GET", 200, 0, 0.0001, 0.0001)
    note(recent, ledger, 1.0)
    for _ in range(10):
        ledger.answered("GET", 500, 0, 0.9, 0.9)
    note(recent, ledger, 3.0)
    lately = recent.of(7)
    assert (lately.requests_per_s, lately.errors_per_s) == (5.0, 5.0)
    assert lately.p50_s < 0.0005
    assert 0.5 < lately.p95_s < lately.p99_s <= 1.0
    for second in range(NOTES):
        note(recent, ledger, 4.0 + second)
    assert recent.of(7) == recent.of_all() == NOTHING


def test_a_worker_that_is_new_begins_at_nothing_and_one_that_is_gone_is_forgotten() -> None:
    recent, ledger = Recent(), private_ledger()
    ledger.answered("GET", 200, 0, 0.0001, 0.0001)
    note(recent, ledger, 5.0)
    assert recent.of(7).requests_per_s == 1.0
    recent.note({}, Sums(ledger.words()), 6.0)
    assert recent.of(7) == NOTHING


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [({}, 0.5, 0.0), ({0: 4}, 0.5, 0.00025), ({0: 1, 4: 1}, 1.0, 0.01), ({BUCKETS - 1: 3}, 0.5, 10.0), ({0: 99, 13: 1}, 0.99, 0.0005)],
)
def test_a_percentile_lies_within_its_bucket(counts: dict[int, int], share: float, seconds: float) -> None:
    buckets = [counts.get(bucket, 0) for bucket in range(BUCKETS)]
    assert percentile(buckets, share) == pytest.approx(seconds)
