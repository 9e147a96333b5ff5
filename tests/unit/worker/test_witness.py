"""What a worker says of its own blocking."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cavalcade.board.ledger import private_ledger
from cavalcade.board.ledger_words import REQUESTS
from cavalcade.worker import channel
from cavalcade.worker.witness import Witness, client_of


def test_a_blocking_that_is_told_as_the_worker_leaves_counts_those_who_waited() -> None:
    """Five have been answered before it, and three waited: none of the five is taken off."""
    told: list[channel.Stalled] = []
    ledger = private_ledger()
    ledger.set(REQUESTS, 5)
    serving: Any = SimpleNamespace(running={}, ledger=ledger)
    witness = Witness(serving, 0.25, None, told.append)
    witness.start()
    witness.beat(10.0, 9.9, 10.0)
    witness.beat(12.0, 10.0, 10.1)
    ledger.set(REQUESTS, 8)
    witness.stop()
    assert [(stalled.waited, stalled.delay_ms) for stalled in told] == [(3, 1.5 * told[0].ms)]


@pytest.mark.parametrize(
    ("client", "shown"), [(("::1", 40000), "[::1]:40000"), (("127.0.0.1", 40000), "127.0.0.1:40000"), (("", None), ""), ("odd", "")]
)
def test_a_client_is_shown_as_an_address_is_written(client: Any, shown: str) -> None:
    """RFC 3986 section 3.2.2; and an app may have put anything into its scope."""
    call: Any = SimpleNamespace(scope={"client": client})
    assert client_of(call) == shown
