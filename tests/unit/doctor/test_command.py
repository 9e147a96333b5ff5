"""What `cavalcade doctor` refuses to try."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.cli.main import main


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
