"""The command line as its users meet it: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cavalcade import build
from cavalcade.cli.main import main
from cavalcade.config.values import OPTIONS
from cavalcade.supervisor import start as supervisor

Run = Callable[..., subprocess.CompletedProcess[str]]

APP = "async def app(scope, receive, send):\n    raise NotImplementedError\n"
STARTS = """
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    print("startup ran", flush=True)
    yield
    print("shutdown ran", flush=True)

app = FastAPI(lifespan=lifespan)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and an environment that configures nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("CAVALCADE_") or name in ("PORT", "WEB_CONCURRENCY", "FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def cavalcade(here: Path) -> Run:
    """Runs `python -m cavalcade` to its end, in the directory."""

    def run(*words: str, code: int, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cavalcade", *words]
        done = subprocess.run(argv, cwd=here, env=os.environ | (env or {}), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


# -- help and versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["serve", "--help"], ["main:app", "--help"], ["check", "-h"], ["config", "show", "--help"]]
)
def test_help_has_every_option_the_signals_and_the_exit_codes(here: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    missing = [name for name in OPTIONS if name != "app" and f"--{name.replace('_', '-')}" not in text]
    assert not missing
    for word in ("HUP", "TTIN, TTOU", "TERM", "INT", "Exit codes", "--no-access-log", "--timeout-keep-alive", "CAVALCADE_<NAME>"):
        assert word in text


def test_version_names_the_build_the_python_and_the_engines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"cavalcade {build.VERSION} (")
    assert "pure Python" in first or "compiled" in first
    assert re.fullmatch(r"CPython 3\.\d+\.\S+, uvloop \d\S+, httptools \d\S+", second)


# -- usage -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["main:app", "--wrokers", "4"], "x --wrokers: unknown option; did you mean --workers?"),
        (
            ["main:app", "-k", "uvicorn.workers.UvicornWorker"],
            "x -k: unknown option; not needed: every worker has an event loop, and serves WSGI apps in its threads",
        ),
        (["main:app", "--uds=/run/x"], "x --uds: unknown option; use bind unix:/path"),
        (["main:app", "--workers"], "requires an argument"),
        (["main:app", "--access-log=no"], "does not take a value"),
        (["main:app", "other:app"], "x One APP, not 2: main:app other:app"),
        (["chekc", "main:app"], "  -> Did you mean: cavalcade check main:app"),
        (["config", "shwo"], "No such command 'shwo'"),
        (["gone.py"], "There is no file"),
        ([], "x No app was named, and none was found in"),
    ],
)
def test_a_command_line_that_cannot_be_understood_exits_with_2(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_every_problem_of_every_source_is_printed_at_once(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "cavalcade.toml").write_text("prot = 1\n")
    monkeypatch.setenv("CAVALCADE_WROKERS", "1")
    assert main(["main:app", "--wrokers", "1", "--prot=2", "--keep-alive", "soon"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_an_error_is_drawn_with_marks_and_colours_where_those_are_wanted(cavalcade: Run) -> None:
    plain = cavalcade("main:app", "--nope", code=2).stderr
    drawn = cavalcade("main:app", "--nope", code=2, env={"FORCE_COLOR": "1", "PYTHONUTF8": "1"}).stderr
    assert plain.isascii()
    assert "✗" in drawn
    assert "\x1b[" in drawn


# -- config show ---------------------------------------------------------------------------------------------------------------


def test_config_show_prints_every_value_with_its_origin(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    (here / "cavalcade.toml").write_text('# first\nkeep_alive = "2m"\n')
    monkeypatch.setenv("PORT", "9001")
    assert main(["config", "show", "-w", "3", "--no-access-log"]) == 0
    captured = capsys.readouterr()
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in captured.out.splitlines()}
    assert set(rows) == set(OPTIONS)
    assert rows["workers"] == ["3", "--workers"]
    assert rows["keep_alive"] == ["120s", "cavalcade.toml:2"]
    assert rows["bind"] == ["0.0.0.0:9001", "PORT"]
    assert rows["access_log"] == ["false", "--access-log"]
    assert rows["app"] == ["main:app", "found: FastAPI app in main.py"]
    assert "Pin it: cavalcade main:app" in captured.err


def test_config_show_as_json_is_one_object(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json", "--bind", "unix:/tmp/x.sock"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["bind"] == {"value": ["unix:/tmp/x.sock"], "origin": "--bind"}
    assert table["app"] == {"value": "", "origin": "default"}


# -- check -----------------------------------------------------------------------------------------------------------------------


def test_check_tries_config_bind_import_and_lifespan(cavalcade: Run, here: Path) -> None:
    (here / "main.py").write_text(STARTS)
    done = cavalcade("check", "main:app", "--port", "0", code=0)
    assert [re.sub(r" in [\d.]+ s.*$", "", line) for line in done.stdout.splitlines()] == [
        f"ok  config: main:app from {here}",
        "ok  bind: 127.0.0.1:0",
        "ok  import: main:app (FastAPI)",
        "startup ran",
        "shutdown ran",
        "ok  lifespan: started and shut down",
    ]


def test_check_guesses_the_app_and_says_so(cavalcade: Run, here: Path) -> None:
    (here / "app").mkdir()
    (here / "app" / "main.py").write_text("from fastapi import FastAPI\napi = FastAPI()\n")
    done = cavalcade("check", "--port=0", code=0)
    assert "import: main:api (FastAPI)" in done.stdout
    assert "Pin it: cavalcade main:api --app-dir app" in done.stderr


def test_check_fails_with_3_where_the_port_is_taken_before_any_user_code_runs(cavalcade: Run, here: Path) -> None:
    (here / "main.py").write_text("print('imported')\n" + APP)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        done = cavalcade("check", "main:app", f"--port={holder.getsockname()[1]}", code=3)
    assert "in use" in done.stderr
    assert str(os.getpid()) in done.stderr
    assert "imported" not in done.stdout


def test_check_fails_with_3_where_the_import_fails(cavalcade: Run, here: Path) -> None:
    (here / "main.py").write_text("import json\n\nraise RuntimeError('boom')\n")
    done = cavalcade("check", "main:app", "--port=0", code=3)
    assert done.stderr.splitlines() == [
        "x Importing main failed at main.py line 3: RuntimeError: boom",
        "    Traceback (most recent call last):",
        f'      File "{here}/main.py", line 3, in <module>',
        "        raise RuntimeError('boom')",
        "    RuntimeError: boom",
    ]


def test_check_fails_with_3_where_the_startup_fails_or_takes_too_long(cavalcade: Run, here: Path) -> None:
    (here / "fails.py").write_text(STARTS.replace('print("startup ran", flush=True)', "raise RuntimeError('no database')"))
    assert "RuntimeError: no database" in cavalcade("check", "fails:app", "--port=0", code=3).stderr
    (here / "hangs.py").write_text(STARTS.replace('print("startup ran", flush=True)', "import asyncio; await asyncio.Event().wait()"))
    assert "not complete after 0.2 s" in cavalcade("check", "hangs:app", "--port=0", "--boot-timeout=200ms", code=3).stderr


def test_with_json_every_line_is_an_object_errors_and_tracebacks_included(cavalcade: Run, here: Path) -> None:
    (here / "main.py").write_text(APP)
    (here / "bad.py").write_text("1 / 0\n")
    good = cavalcade("check", "main:app", "--port=0", "--log-format=json", code=0)
    bad = cavalcade("check", "bad:app", "--port=0", code=3, env={"CAVALCADE_LOG_FORMAT": "json"})
    usage = cavalcade("main:app", "--wrokers=1", "--log-format", "json", code=2)
    cut = cavalcade("main:app", "--log-format", "json", "--workers", code=2)
    (here / "cavalcade.toml").write_text('log_format = "json"\nnope = 1\n')
    file = cavalcade("main:app", code=2)
    runs = [good, bad, usage, cut, file]
    lines = [[json.loads(line) for line in (run.stdout + run.stderr).splitlines()] for run in runs]
    assert all(lines)
    assert lines[1][-1]["traceback"].endswith("ZeroDivisionError: division by zero")
    assert lines[2][0]["message"] == "--wrokers: unknown option; did you mean --workers?"
    assert lines[4][0]["message"].startswith('cavalcade.toml:2: unknown option "nope"')


# -- serve -----------------------------------------------------------------------------------------------------------------------


def test_serve_exits_with_3_and_the_users_frames_where_the_app_cannot_start(cavalcade: Run, here: Path) -> None:
    (here / "main.py").write_text("raise RuntimeError('boom')\n")
    done = cavalcade("main:app", "--port=0", code=3)
    assert done.stderr.count("RuntimeError: boom\n") >= 1
    assert done.stderr.count("Traceback") == 1


def test_a_factory_nobody_declared_is_called_and_told_once(here: Path) -> None:
    (here / "main.py").write_text(APP + "def create_app():\n    return app\n")
    argv = [sys.executable, "-m", "cavalcade", "--bind", "127.0.0.1:0", "-w", "2", "main:create_app"]
    with subprocess.Popen(argv, cwd=here, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if " ready in " in line:
                break
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
    assert process.returncode == 0, said
    assert said.count("main:create_app is a factory: called it") == 1


def test_an_error_that_nothing_foresaw_exits_with_1_and_its_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> int:
        raise LookupError("a bug")

    monkeypatch.setattr(supervisor, "run", broken)
    assert main(["main:app"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("x Cavalcade itself failed: LookupError: a bug\n")
    assert "Traceback (most recent call last):" in said
