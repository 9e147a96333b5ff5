"""`cavalcade health`: what a container check learns of a server, through its whole life."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from cavalcade.cli.main import main
from cavalcade.testing.clients import WAIT_S


@pytest.fixture
def health(project: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """The exit codes for ready, started and live, and what was said."""

    def ask() -> tuple[tuple[int, ...], str]:
        control = str(project.folder / "c.sock")
        codes = tuple(main(["health", question, "--control", control]) for question in ("ready", "started", "live"))
        captured = capsys.readouterr()
        return codes, captured.out + captured.err

    return ask


def test_it_follows_the_server_from_its_start_to_its_end(project: Any, health: Any) -> None:
    assert health()[0] == (1, 1, 1)
    project.deploy(gated=True)
    with project.server("--control", "c.sock", "--drain-delay", "100", ready=False, workers=1) as server:
        server.wait_line("^importing v1", WAIT_S)
        codes, said = health()
        assert codes == (1, 1, 0)
        assert "main:app is not ready: starting, 0 of 1 workers ready." in said
        project.touch("gate")
        server.wait_line(r"ready in .*: http://", WAIT_S)
        assert health() == ((0, 0, 0), "".join(f"{name}: serving, 1 of 1 workers ready\n" for name in ("ready", "started", "live")))
        server.signal(signal.SIGTERM)
        server.wait_line("SIGTERM: draining")
        codes, said = health()
        assert codes == (1, 0, 0)
        assert "main:app is not ready: draining, 1 of 1 workers ready." in said
        server.signal(signal.SIGINT)
        server.wait_exit(0)
    assert health()[0] == (1, 1, 1)


def test_a_question_that_does_not_exist_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "happy"]) == 2
    assert "'happy' is not one of 'ready', 'started', 'live'" in capsys.readouterr().err
