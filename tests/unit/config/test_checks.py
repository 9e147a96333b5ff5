"""Addresses, and options that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.config import checks
from cavalcade.config.sources import resolve
from cavalcade.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        (":8000", "0.0.0.0:8000"),
        ("localhost", "localhost:8000"),
        ("[::1]:80", "[::1]:80"),
        ("[::]", "[::]:8000"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:///run/app.sock", "unix:/run/app.sock"),
        ("unix:app.sock", "unix:app.sock"),
        ("my-host.example:0", "my-host.example:0"),
    ],
)
def test_an_address_has_one_canonical_form(text: str, canonical: str) -> None:
    assert checks.address(text) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8000", "write 127.0.0.1:8000, or :8000 for every interface"),
        ("/run/app.sock", "write unix:/run/app.sock"),
        ("http://localhost:8000/", "write localhost:8000"),
        ("::1:8000", "in brackets"),
        ("[::1", r"\[::1\]:8000"),
        ("[::1]8000", r"\[::1\]:8000"),
        ("host:port", "the port must be a number"),
        ("host:99999", "the port must be a number"),
        ("host:", "the port must be a number"),
        ("a b:80", "not a host name"),
        ("[zz::]:80", "not a host name"),
        ("unix:", "has no path"),
        ("fd://3", "not offered"),
    ],
)
def test_a_bad_address_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checks.address(text)


def test_a_host_with_a_port_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="give it as port, or both as bind"):
        checks.host_name("0.0.0.0:80")


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "unix:/x"])
def test_split_and_join_are_each_others_inverse(text: str) -> None:
    halves = checks.split(text)
    assert halves is None if text.startswith("unix:") else checks.join(*(halves or ("", 0))) == text


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
