"""What a whole run prints: each line in its place, in its shape, once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest

from cavalcade.testing import LiveServer, write_app

APP = textwrap.dedent("""
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["path"] == "/fail":
            raise RuntimeError("line one\\nline two \\x1b[31m")
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            raise RuntimeError("after the head")
        if scope["path"] == "/task":
            async def lost():
                raise LookupError("in a task nobody waits for")
            asyncio.ensure_future(lost())
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
""")


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            pytest.fail(f"not JSON: {line!r}")
        assert isinstance(value, dict)
        assert value.keys() >= {"time", "level", "logger", "message", "pid"}, line
        found.append(value)
    return found


def test_every_line_of_a_run_with_failures_is_a_json_object(tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    with LiveServer("main:app", "--workers", "2", "--log-format", "json", cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/").status_code == 200
            assert client.get("/fail").status_code == 500
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                client.get("/late")
            assert client.get("/task").status_code == 200
        with socket.create_connection(server.address) as peer:
            peer.sendall(b"\x16\x03\x01\x02\x00 this is not HTTP \xff\r\n\r\n")
            while peer.recv(4096):
                pass
        server.wait_line('"target":"/task"', stream="stdout")  # a worker that is killed takes its last batch along
        mark = server.mark()
        server.signal(signal.SIGKILL, server.worker_pids[0])
        server.wait_line(r"worker \d+ \(pid \d+\) ready", after=mark)
        write_app(tmp_path, "def broken(:")
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line("Reload refused", after=mark)
        server.stop()
    said = parsed(server.lines)
    assert any("line two" in line.get("traceback", "") and "RuntimeError" in line["traceback"] for line in said)
    assert any("nobody waits for" in line.get("traceback", "") for line in said)
    assert any("main.py" in json.dumps(line) and "SyntaxError" in json.dumps(line) for line in said)
    targets = [line["target"] for line in parsed(server.access_lines)]
    assert targets.count("/fail") == targets.count("/task") == 1


@pytest.mark.parametrize(
    ("app", "source", "code", "word"),
    [
        ("main:app", "import notinstalled", 3, "notinstalled"),
        ("main:nope", APP, 3, "nope"),
        ("missing:app", APP, 3, "missing"),
        ("main:app", "async def app(scope, receive, send):\n    raise RuntimeError('no database')", 3, "no database"),
    ],
)
def test_a_failed_start_is_json_too(tmp_path: Path, app: str, source: str, code: int, word: str) -> None:
    write_app(tmp_path, source)
    with LiveServer(app, "--log-format", "json", "--lifespan", "on", cwd=tmp_path, ready=False) as server:
        server.wait_exit(code)
    assert word in json.dumps(parsed(server.lines))
    assert server.access_lines == []


def test_a_bad_option_is_json_where_json_was_asked_for(tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    with LiveServer("main:app", "--log-format", "json", "--wrokers", "2", cwd=tmp_path, ready=False) as server:
        server.wait_exit(2)
    assert "workers" in json.dumps(parsed(server.lines))


def test_each_event_and_each_request_is_printed_once(tmp_path: Path) -> None:
    # The app sets up logging as apps do: a root handler, and every existing logger disabled.
    setup = textwrap.dedent(
        """
        import logging.config
        logging.config.dictConfig({"version": 1, "formatters": {"f": {"format": "ROOT %(name)s %(message)s"}},
            "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}}, "root": {"handlers": ["h"], "level": "DEBUG"}})
        """
    )
    write_app(tmp_path, setup + APP)
    with LiveServer("main:app", "--workers", "2", cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url) as client:
            client.get("/once")
            client.get("/fail")
    text = "\n".join(server.lines)
    assert not [line for line in server.lines if line.startswith("ROOT cavalcade")]
    assert text.count("RuntimeError: line one") == 1
    assert len([line for line in server.lines if "ready in" in line]) == 1
    assert [line.split('"')[1] for line in server.access_lines] == ["GET /once HTTP/1.1", "GET /fail HTTP/1.1"]


def test_a_log_config_gets_the_whole_run(tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    (tmp_path / "logging.json").write_text(
        json.dumps(
            {
                "formatters": {"f": {"format": "%(levelname)s %(name)s %(message)s"}},
                "handlers": {
                    "all": {"class": "logging.FileHandler", "filename": "all.log", "formatter": "f"},
                    "out": {"class": "logging.StreamHandler", "formatter": "f"},
                },
                "loggers": {
                    "cavalcade": {"handlers": ["all", "out"], "level": "INFO"},
                    "cavalcade.access": {"handlers": ["all"], "level": "INFO", "propagate": False},
                },
            }
        )
    )
    with LiveServer("main:app", "--log-config", "logging.json", cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url) as client:
            client.get("/once")
    lines = (tmp_path / "all.log").read_text().splitlines()
    assert len([line for line in lines if line.startswith("INFO cavalcade.access 127.0.0.1:") and '"GET /once HTTP/1.1" 200' in line]) == 1
    assert len([line for line in lines if "INFO cavalcade ready in" in line]) == 1
    assert server.access_lines == []


@pytest.mark.parametrize("kind", ["never read", "closed"])
def test_a_stdout_that_nobody_reads_stops_no_worker(tmp_path: Path, kind: str) -> None:
    write_app(tmp_path, APP)
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", "cavalcade", "main:app", "--bind", "127.0.0.1:0"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=write_fd, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        os.close(write_fd)
        if kind == "closed":
            os.close(read_fd)
        assert server.stderr is not None
        url = next(line for line in server.stderr if "ready in" in line).split("http://")[1].split()[0]
        with httpx.Client(base_url=f"http://{url}", timeout=10.0) as client:
            target = "/" + "x" * 1500
            # More than a pipe holds, several times over.
            assert {client.get(target).status_code for _ in range(200)} == {200}
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        server.stderr.close()
        if kind != "closed":
            os.close(read_fd)


def test_usr1_opens_log_files_anew_after_they_were_moved_away(tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    log, moved = tmp_path / "server.log", tmp_path / "server.log.1"
    config = {
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": str(log), "formatter": "f"},
            "err": {"class": "logging.StreamHandler"},  # for the test to wait on
        },
        "formatters": {"f": {"format": "%(process)d %(name)s %(message)s"}},
        "loggers": {"cavalcade": {"handlers": ["file", "err"], "level": "INFO", "propagate": False}},
    }
    (tmp_path / "log.json").write_text(json.dumps(config))
    with LiveServer("main:app", "--workers", "2", "--log-config", "log.json", cwd=tmp_path) as server:
        workers = {str(pid) for pid in server.worker_pids}
        assert httpx.get(server.url).text == "ok"
        log.rename(moved)
        server.signal(signal.SIGUSR1)
        server.wait_line("SIGUSR1: log files that have been moved away are opened anew")
        # Each process reopens in its own time; what it says after that is in the new file.
        seen: set[str] = set()
        for _ in range(2000):
            assert httpx.get(server.url).text == "ok"
            seen = {line.split()[0] for line in log.read_text().splitlines() if "cavalcade.access" in line}
            if seen == workers:
                break
        assert seen == workers
        assert f"{server.pid} cavalcade SIGUSR1: log files" in log.read_text()
        before = moved.read_text()
        assert httpx.get(server.url).text == "ok"
        assert moved.read_text() == before
