"""The directory of the app's metrics: nobody removes that of a server that lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cavalcade.observe.app_metrics import VARIABLE
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.app_directory import AppDirectory


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [tmp_path / "cavalcade"])
    return tmp_path / "cavalcade"


def make(handed: str = "") -> AppDirectory:
    made = AppDirectory.maybe_make({}, handed)
    assert made is not None
    return made


def age(path: Path) -> None:
    """As if it had been made before this process began: a clock that was set since says so of a live one."""
    for each in (path, *path.iterdir()):
        os.utime(each, (0, 0))


def test_that_of_a_live_server_stays_whatever_the_clock_says(runtime: Path) -> None:
    first = make()
    age(first.path)
    second = make()
    assert set(runtime.iterdir()) == {first.path, second.path}
    first.remove()
    second.remove()
    assert list(runtime.iterdir()) == []


def test_that_of_a_dead_server_goes_when_the_next_one_starts(runtime: Path) -> None:
    child = os.fork()
    if child == 0:
        make()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(runtime.iterdir())) == 1
    after = make()
    assert list(runtime.iterdir()) == [after.path]


def test_whoever_goes_on_with_it_keeps_it_alive(runtime: Path) -> None:
    old = make()
    new = make(old.handed)
    assert new.path == old.path
    old.close()
    age(new.path)
    other = make()
    assert set(runtime.iterdir()) == {new.path, other.path}


def test_one_that_the_user_has_named_is_left_alone(tmp_path: Path) -> None:
    named = AppDirectory.maybe_make({VARIABLE: str(tmp_path / "mine")}, "")
    assert named is not None
    assert named.handed == ""
    named.remove()
    assert (tmp_path / "mine").is_dir()
