"""The files of prometheus-client's multiprocess mode, as processes leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from cavalcade.observe.app_metrics import AppMetrics


@pytest.mark.parametrize("content", [b"", b"\x40\0\0\0\0\0\0\0cut"], ids=["empty", "cut short"])
def test_a_file_of_a_living_process_that_cannot_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    file = MmapedDict(str(tmp_path / f"counter_{os.getpid()}.db"))
    file.write_value(mmap_key("orders", "orders_total", [], [], "Orders."), 3.0, 0.0)
    file.close()
    (tmp_path / f"histogram_{os.getpid()}.db").write_bytes(content)
    assert {sample.name: sample.value for metric in AppMetrics(tmp_path).collect() for sample in metric.samples} == {"orders_total": 3.0}
