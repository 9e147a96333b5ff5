"""What `cavalcade doctor` refuses to try."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.cli.main import main

SEVERAL = '[[app]]\napp = "shop:app"\n[[app]]\napp = "api:make"\npath = "/api"\nfactory = true\n[[app]]\napp = "shop:app"\npath = "/old"\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path", "slow"], "--path /slow"),
        (["--header", "nonsense"], "not a header field"),
        (["--method", "GET /"], "not a method"),
        (["--data", "@nowhere"], "nowhere cannot be read"),
        (["--requests", "1"], "1 is not in the range"),
        (["--wrokers", "2"], "workers"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "main:app", *words]) == 2
    assert said in capsys.readouterr().err


def test_of_several_apps_it_asks_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cavalcade.toml").write_text(SEVERAL)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert "cavalcade.toml:1 names several apps, and one is examined at a time" in said
    assert "Say which: cavalcade doctor shop:app | api:make" in " ".join(said.split())
