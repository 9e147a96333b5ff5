"""The worker's stamps on the board, and what it tells of its own blocking."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from cavalcade.board import layout
from cavalcade.board.ledger import private_ledger
from cavalcade.board.ledger_words import REQUESTS
from cavalcade.board.row import Row
from cavalcade.worker import channel
from cavalcade.worker.heartbeat import Heartbeat
from cavalcade.worker.witness import Witness


def test_a_client_that_is_accepted_after_a_blocking_is_counted_among_those_who_waited() -> None:
    """It may be the first connection of that moment, which makes the worker stamp its row at once."""
    assert asyncio.run(_block_and_accept()) == 2


async def _block_and_accept() -> int:
    """How many waited for it, as the worker tells."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[channel.Stalled] = loop.create_future()
    ledger = private_ledger()
    row = Row(memoryview(bytearray(layout.ROW_BYTES)).cast("Q"))
    context: Any = SimpleNamespace(loop=loop, load=0, serving=SimpleNamespace(running={}, ledger=ledger))
    heartbeat = Heartbeat(context, row, lambda now: None, Witness(context.serving, 0.02, None, told.set_result))
    heartbeat.start()
    try:
        time.sleep(0.2)  # blocks
        over = time.monotonic_ns()
        while row.get(layout.HEARTBEAT_NS) < over:
            await asyncio.sleep(0)
        stamped = row.get(layout.HEARTBEAT_NS)
        context.load = 1
        context.on_first()
        assert row.get(layout.HEARTBEAT_NS) > stamped
        ledger.set(REQUESTS, 2)
        return (await told).waited
    finally:
        heartbeat.stop()
