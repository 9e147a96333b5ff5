"""Options that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.config.sources import resolve
from cavalcade.errors import ConfigError


def test_values_that_contradict_each_other_or_the_disk_are_all_reported(tmp_path: Path) -> None:
    given = {
        "app_dir": "gone",
        "log_config": "gone.json",
        "pid": "gone/x.pid",
        "root_path": "api/",
        "limit_request_line": "1M",
        "bind": ["127.0.0.1:5", "127.0.0.1:5"],
    }
    with pytest.raises(ConfigError) as caught:
        resolve(given, cwd=tmp_path, environ={})
    assert caught.value.problems == [
        '--app-dir: app_dir "gone" is not a directory',
        '--log-config: log_config "gone.json" is not a file',
        f'--pid: pid "gone/x.pid" cannot be written: {tmp_path / "gone"} is not a directory',
        '--root-path: root_path "api" must start with "/": write "/api"',
        "--limit-request-line: limit_request_line is more than limit_request_head, which counts the whole head",
        "--bind: bind 127.0.0.1:5 is given twice",
    ]


def test_a_root_path_loses_its_last_slash(tmp_path: Path) -> None:
    assert resolve({"root_path": "/api/"}, cwd=tmp_path, environ={}).settings.root_path == "/api"
