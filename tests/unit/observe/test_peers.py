"""The log of bad clients: a flood is a line a second, and in the end the lines and their counts are all of it."""

from __future__ import annotations

import logging
import math
import re

import pytest

from cavalcade.observe.peers import PeerLog


def test_a_flood_is_a_line_a_second_and_none_of_it_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    peers = PeerLog()
    caplog.set_level(logging.WARNING, "cavalcade")
    for number in range(1000):
        now = 100.0 + number / 400
        peers.closed(now, f"client {number}", "it is slow")
        peers.catch_up(now)
    assert len(caplog.messages) == 3
    peers.catch_up(103.4)
    assert caplog.messages[-1].startswith("connection of client 999 closed: it is slow; ")
    counts = [int(found[1]) for line in caplog.messages if (found := re.search(r"; (\d+) more like it since the last such line$", line))]
    assert len(caplog.messages) + sum(counts) == 1000


def test_one_that_came_too_soon_is_said_when_its_time_is_here_or_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    peers = PeerLog()
    for now, why in ((1.0, "one"), (1.1, "two")):
        peers.closed(now, "a client", why)
    peers.catch_up(1.5)
    assert caplog.messages == ["connection of a client closed: one"]
    peers.catch_up(math.inf)
    peers.catch_up(math.inf)
    assert caplog.messages == ["connection of a client closed: one", "connection of a client closed: two"]
