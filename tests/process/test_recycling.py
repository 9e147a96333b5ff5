"""A worker that has grown is replaced before it leaves; the rest of recycling is in test_faults.py and test_handover.py."""

from __future__ import annotations

from typing import Any

import pytest

from cavalcade.testing.clients import get


@pytest.mark.slow
def test_a_worker_that_stays_over_its_memory_is_replaced_first(project: Any) -> None:
    project.deploy(prologue="hoard = bytearray(b'x' * 2**28) if not (HERE / 'mended').exists() else b''")
    with project.server("--max-memory", "200MiB", workers=1) as server:
        (grown,) = server.worker_pids
        project.touch("mended")
        assert get(server, "/pid") == str(grown)
        server.wait_line(rf"worker 1 \(pid {grown}\) retires \(max_memory: \d+ MiB after 1 request", 30.0)
        ready = server.wait_line(r"worker 2 \(pid (\d+)\) ready after .*; worker 1 \(pid \d+\) drains", 30.0)
        server.wait_line(rf"worker 1 \(pid {grown}\) has left", 30.0)
        assert get(server, "/pid") == ready[1]
