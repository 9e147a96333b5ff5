"""The commands for a running server, where there is none, or none that answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cavalcade.cli.describe import describe
from cavalcade.cli.main import main
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.stalls import StallStatus
from cavalcade.supervisor.status import ReloadStatus, Status, WorkerStatus

LOOKING = [["status"], ["top", "--once"], ["inspect", "1"], ["logs"]]
STEERING = [["reload"], ["scale", "3"], ["recycle", "all"], ["drain"], ["log-level", "info"], ["stop"]]
COMMANDS = LOOKING + STEERING


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of anybody's is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAVALCADE_CONTROL", raising=False)
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [tmp_path / "cavalcade"])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_server_every_command_exits_with_1_and_says_where_it_has_looked(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("x No running server was found.\n  -> Only servers of this user")
    assert str(tmp_path / "cavalcade") in captured.err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_each_has_its_exit_codes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([words[0], "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit codes: 0 done; 1 no server to be reached, or it stops; 2 it makes no sense; 3 refused" in text
    assert "--control PATH" in text


def test_a_path_without_a_socket_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reload", "--control", "gone.sock"]) == 1
    assert capsys.readouterr().err.startswith("x There is no control socket gone.sock.\n")


def test_a_socket_that_nobody_listens_on_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "stale.sock"))
    assert main(["reload", "--control", "stale.sock"]) == 1
    assert capsys.readouterr().err.startswith("x Nobody listens on stale.sock.\n")


@pytest.fixture(
    params=[
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ]
)
def stranger(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A socket that somebody else listens on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "other.sock"))
        sock.listen(8)

        def answer() -> None:
            client, _ = sock.accept()
            with client:
                client.recv(65536)
                client.sendall(request.param)

        thread = threading.Thread(target=answer)
        thread.start()
        yield "other.sock"
        thread.join()


def test_a_socket_of_something_else_is_said_so(stranger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--control", stranger]) == 1
    assert capsys.readouterr().err.startswith("x other.sock does not answer as a control socket: ")


def test_the_variable_of_the_option_names_the_socket_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CAVALCADE_CONTROL", "named.sock")
    assert main(["status"]) == 1
    assert "There is no control socket named.sock." in capsys.readouterr().err
    monkeypatch.setenv("CAVALCADE_CONTROL", "auto")
    assert main(["status"]) == 1
    assert "No running server was found." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scale"], "Missing argument"),
        (["scale", "many"], "How many workers? 'many' is no number: 4, +1, -1"),
        (["scale", "1.5"], "How many workers?"),
        (["scale", "3", "--wrokers"], "unexpected extra argument (--wrokers)"),
        (["recycle"], "Missing argument"),
        (["recycle", "-1"], "No such option"),
        (["recycle", "one"], "Which worker? 'one' is neither a number nor all"),
        (["reload", "--pid", "0"], "--pid"),
        (["reload", "main:app"], "unexpected extra argument (main:app)"),
    ],
)
def test_what_cannot_be_understood_exits_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def a_status(**changes: object) -> Status:
    values: dict[str, object] = {
        "version": "1.0",
        "build": "compiled",
        "app": "main:app",
        "name": "main:app",
        "pid": 10,
        "uptime_s": 3700.0,
        "listeners": ["http://127.0.0.1:8000", "unix:/run/x"],
        "stage": "serving",
        "ready": True,
        "degraded": False,
        "generation": 2,
        "reloading": 0,
        "last_reload": None,
        "workers_wanted": 2,
        "workers_ready": 2,
        "workers": [WorkerStatus(3, 1234, 2, "ready", 61.0, 12345, 1, 20), WorkerStatus(10, 0, 2, "booting", 0.25, 0, 0, 0)],
        "connections": 20,
        "in_flight": 1,
        "totals": {"requests": 99999},
    }
    return Status(**(values | changes))  # type: ignore[arg-type]


def test_a_status_for_people_is_a_few_lines_and_a_table() -> None:
    first, second = WorkerStatus(3, 1234, 2, "ready", 5.0, 12345, 1, 20), WorkerStatus(10, 0, 2, "booting", 0.25, 0, 0, 0, slot=2)
    first = msgspec.structs.replace(first, slot=1, requests_per_s=12.0, busy=1.0, loop_lag_s=0.9, blocked=True, p95_s=0.035, rss=48 << 20)
    first = msgspec.structs.replace(first, restarts=2, last_restart="crash")
    stalls = [StallStatus("main.py:40 slow()", 2, 3, 1.5, 2.5), StallStatus("elsewhere", 1, 0, 0.3)]
    lately = {"requests_per_s": 12.0, "errors_per_s": 0.5, "p50_s": 0.002, "p95_s": 0.035, "p99_s": 1.2, "queued": 3}
    assert describe(a_status(workers=[first, second], stalls=stalls, **lately)) == [
        "main:app: serving, up 1 h 1 min, pid 10, cavalcade 1.0 (compiled)",
        "listening on http://127.0.0.1:8000, unix:/run/x",
        "2 of 2 workers ready, generation 2",
        "99999 requests, 12 a second, 0.5 failed (5xx); p50 2.0 ms, p95 35 ms, p99 1.2 s",
        "1 in flight, 3 queued, 20 connections",
        "",
        "slot  worker   pid  gen  phase      age  requests  req/s  in flight  conns  busy     lag    p95     RSS  restarts  last reason",
        "   1       3  1234    2  blocked  5.0 s     12345     12          1     20  100%  900 ms  35 ms  48 MiB         2  crash",
        "   2      10     -    2  booting  0.2 s         0      0          0      0    0%       -      -       -         0",
        "",
        "blocked the loop, worst first:",
        "  main.py:40 slow(): 2 times, 1.5 s in all; 3 requests waited, together 2.5 s",
        "  elsewhere: once, 0.3 s in all; nobody waited",
    ]


def test_a_status_says_what_is_out_of_the_ordinary() -> None:
    workers = [WorkerStatus(3, 1234, 2, "ready", 5.0, 1, 0, 0, "max_requests: it has served 1")]
    last = ReloadStatus(False, 3, "Reload refused: worker 9: bad\nmore of it", 30.0)
    lines = describe(a_status(name="shop", degraded=True, reloading=4, workers=workers, last_reload=last))
    assert lines[0].startswith("shop (main:app): serving, degraded, up ")
    assert "2 of 2 workers ready, generation 2, generation 4 on its way" in lines
    assert "last reload 30 s ago: Reload refused: worker 9: bad" in lines
    assert lines[-1].endswith("  retires: max_requests: it has served 1")


# -- what the configuration says -----------------------------------------------------------------------------------------


def test_the_control_path_of_the_configuration_is_where_a_command_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cavalcade.toml").write_text('control = "web.sock"\n')
    assert main(["status"]) == 1
    assert capsys.readouterr().err.startswith("x There is no control socket web.sock (control in cavalcade.toml:1).\n")
    assert main(["status", "--control", "other.sock"]) == 1
    assert capsys.readouterr().err.startswith("x There is no control socket other.sock.\n")
    assert main(["status", "--pid", "1"]) == 1
    assert capsys.readouterr().err.startswith("x No running server was found.\n")


def test_a_broken_configuration_is_said_and_keeps_nobody_from_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cavalcade.toml").write_text("nonsense = 1\n")
    assert main(["stop"]) == 1
    note, error, *_ = capsys.readouterr().err.splitlines()
    assert note.startswith('note: the configuration here is not used to find the server: cavalcade.toml:1: unknown option "nonsense"')
    assert error == "x No running server was found."
