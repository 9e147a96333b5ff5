"""`cavalcade.run()`: the server from Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cavalcade
from cavalcade.errors import ConfigError, UsageError

HELLO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
RUN = HELLO + "\nimport cavalcade\n"


def environment(**extra: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVALCADE_") and name not in ("PORT", "WEB_CONCURRENCY")
    }
    return kept | extra


@contextmanager
def script(path: Path, text: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    argv = [sys.executable, str(path)]
    with subprocess.Popen(
        argv, cwd=cwd or path.parent, env=env or environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_ready(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What was printed up to the ready line, and the URL in it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        found = re.search(r"\bready\b.*?(http://[\d.]+:\d+)", line)
        if found:
            return said, found[1]
    raise AssertionError(said)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
        return body


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


GUARDED = "\nif __name__ == '__main__':\n    {call}\n    print('returned', flush=True)\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_app_object_is_served_in_this_process_until_a_signal(tmp_path: Path, loop: str, signum: signal.Signals) -> None:
    call = f"cavalcade.run(app, bind='127.0.0.1:0', loop='{loop}')"
    with script(tmp_path / "main.py", RUN + GUARDED.format(call=call)) as process:
        said, url = until_ready(process)
        assert f"pid {process.pid}" in said
        assert fetched(url) == b"hello"
        process.send_signal(signum)
        code, rest = ended(process)
    assert code == 0, rest
    assert rest.endswith("returned\n")


def test_an_app_object_too_is_served_for_the_drain_delay(tmp_path: Path) -> None:
    call = "cavalcade.run(app, bind='127.0.0.1:0', drain_delay=100)"
    with script(tmp_path / "main.py", RUN + GUARDED.format(call=call)) as process:
        _, url = until_ready(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert any("SIGTERM: draining, still serving for 100 s" in line for line in process.stdout)
        assert fetched(url) == b"hello"
        process.send_signal(signal.SIGTERM)
        code, rest = ended(process)
    assert code == 0, rest


def test_an_import_string_is_served_by_workers_and_returns_after_a_clean_stop(tmp_path: Path) -> None:
    call = "cavalcade.run('main:app', bind='127.0.0.1:0', workers=2)"
    with script(tmp_path / "main.py", RUN + GUARDED.format(call=call)) as process:
        said, url = until_ready(process)
        assert "2 workers" in said
        assert fetched(url) == b"hello"
        process.terminate()
        code, rest = ended(process)
    assert code == 0, rest
    assert rest.endswith("returned\n")


def test_the_app_beside_the_script_is_found_from_another_directory(tmp_path: Path) -> None:
    call = "cavalcade.run('main:app', bind='127.0.0.1:0')"
    (tmp_path / "elsewhere").mkdir()
    with script(tmp_path / "src" / "main.py", RUN + GUARDED.format(call=call), cwd=tmp_path / "elsewhere") as process:
        assert fetched(until_ready(process)[1]) == b"hello"
        process.terminate()
        assert ended(process)[0] == 0


def test_a_run_without_a_guard_fails_with_3_and_says_which_line_to_add(tmp_path: Path) -> None:
    with script(tmp_path / "main.py", RUN + "cavalcade.run('main:app', bind='127.0.0.1:0')\n") as process:
        code, said = ended(process)
    assert code == 3, said
    assert "cavalcade.run() was called while main:app was being imported" in said
    assert 'if __name__ == "__main__":' in said


def test_web_concurrency_does_not_break_an_app_object(tmp_path: Path) -> None:
    call = "cavalcade.run(app, bind='127.0.0.1:0')"
    with script(tmp_path / "main.py", RUN + GUARDED.format(call=call), env=environment(WEB_CONCURRENCY="4")) as process:
        said, url = until_ready(process)
        assert "WEB_CONCURRENCY=4 is not used" in said
        assert fetched(url) == b"hello"
        process.terminate()
        assert ended(process)[0] == 0


def test_a_startup_failure_is_shown_and_exits_with_3(tmp_path: Path) -> None:
    call = "cavalcade.run(3, bind='127.0.0.1:0')"
    with script(tmp_path / "main.py", RUN + GUARDED.format(call=call)) as process:
        code, said = ended(process)
    assert code == 3
    assert "the app is an int, not an app." in said
    assert "returned" not in said


def test_unknown_and_bad_options_raise_at_once_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        cavalcade.run("main:app", wrokers=4, keep_alive="soon")
    assert caught.value.problems == [
        "run(wrokers=...): unknown option; did you mean run(workers=...)?",
        'run(keep_alive=...): must be a duration such as 30s, 250ms, 5m or a number of seconds, not "soon"',
    ]


def test_an_app_object_with_several_workers_is_refused_with_the_line_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def app(scope: object, receive: object, send: object) -> None: ...

    with pytest.raises(ConfigError) as caught:
        cavalcade.run(app, workers=4)
    assert caught.value.problems == ["run(workers=...): 4 workers need an import string: an app object cannot be sent to another process"]
    assert 'cavalcade.run("module:app", workers=...)' in caught.value.fix


async def call_inside_a_loop() -> None:
    cavalcade.run("main:app")


def test_a_run_inside_a_running_loop_is_refused_with_what_to_use(run: object) -> None:
    with pytest.raises(UsageError, match="inside a running event loop"):
        run(call_inside_a_loop())  # type: ignore[operator]


def test_the_package_offers_its_three_names_without_loading_them() -> None:
    modules = "[name for name in sys.modules if name.startswith('cavalcade.')]"
    code = f"import sys, cavalcade\nprint({modules}, sorted(cavalcade.__all__), cavalcade.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"['cavalcade.build'] ['Config', 'Server', '__version__', 'run'] {cavalcade.__version__}\n"
    assert {"Config", "Server", "run"} <= set(dir(cavalcade))
    with pytest.raises(AttributeError, match="nothing"):
        cavalcade.nothing  # noqa: B018
