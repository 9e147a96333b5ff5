"""`cavalcade doctor` as its users run it, on apps that are well and on apps that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cavalcade.doctor.verdicts import TOO_FAST_S
from cavalcade.testing import write_app
from cavalcade.testing.certificates import Authority

FASTAPI = """\
import asyncio, contextlib, time

import anyio.to_thread
from fastapi import FastAPI


@contextlib.asynccontextmanager
async def lifespan(app):
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def hello():
    return "hello"


@app.get("/awaits")
async def awaits():
    await asyncio.sleep(0.1)


@app.get("/blocks")
async def blocks():
    time.sleep(0.1)


@app.get("/threads")
def threads():
    time.sleep(0.25)
"""
STARLETTE = """\
import asyncio, threading
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()


async def awaits(request):
    await asyncio.sleep(0.1)
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/awaits", awaits)])
"""
FLASK = """\
import time
from flask import Flask, request

app = Flask(__name__)


@app.post("/slow")
def slow():
    time.sleep(0.1)
    return request.get_json() | {"by": request.headers["X-By"]}
"""


def doctor(folder: Path, *words: str, code: int) -> subprocess.CompletedProcess[str]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVALCADE_") and name not in ("PORT", "WEB_CONCURRENCY")
    }
    argv = [sys.executable, "-m", "cavalcade", "doctor", *words]
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_paths_of_a_fastapi_app_are_told_apart(tmp_path: Path) -> None:
    write_app(tmp_path, FASTAPI)
    report = json.loads(doctor(tmp_path, "main:app", "--requests", "6", "--json", code=1).stdout)
    paths = {each["path"]: each for each in report["paths"]}
    hello = paths.pop("/")
    assert (hello["verdict"] == "too_fast") == (hello["alone_s"] < TOO_FAST_S)  # it may be slow on a machine that is busy
    assert {name: each["verdict"] for name, each in paths.items()} == {"/awaits": "async", "/blocks": "blocks", "/threads": "threads"}
    assert paths["/awaits"]["overlap"] > 3
    assert paths["/blocks"]["longest_stall_at"] == "main.py:28 blocks()"
    assert paths["/blocks"]["longest_stall_ms"] >= 100
    assert paths["/threads"]["pool_threads"] == 2
    assert not report["healthy"]
    assert [each["check"] for each in report["findings"] if each["gravity"] == "problem"] == ["stall"]


def test_an_app_that_is_well_is_said_to_be_so_in_80_columns(tmp_path: Path, authority: Authority) -> None:
    # Over TLS, with the settings of a file, and a starting thread that only --preload would lose.
    write_app(tmp_path, STARLETTE)
    leaf = authority.issue("localhost")
    (tmp_path / "cavalcade.toml").write_text(f'ssl_certfile = "{leaf.certfile}"\nssl_keyfile = "{leaf.keyfile}"\nkeep_alive = "5s"\n')
    text = doctor(tmp_path, "main:app", "--requests", "10", code=0).stdout
    assert "Yes. 10 at once of GET /awaits" in text
    assert "keep_alive is 5 s" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "poller" in doctor(tmp_path, "main:app", "--requests", "2", "--preload", code=1).stdout


def test_a_flask_app_of_several_is_found_by_its_table_has_threads_and_is_asked_as_it_wants_to_be(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    write_app(tmp_path / "shop", FLASK)
    (tmp_path / "cavalcade.toml").write_text('[[app]]\napp = "main:app"\npath = "/shop"\napp_dir = "shop"\n[[app]]\napp = "none:app"\n')
    asked = ("--path", "/slow", "--method", "post", "--data", '{"a": 1}', "-H", "X-By: me", "--requests", "6", "--json")
    [path] = json.loads(doctor(tmp_path, "main:app", *asked, code=0).stdout)["paths"]
    assert (path["status"], path["verdict"]) == (200, "threads")
    assert path["overlap"] < 2


def test_an_app_that_cannot_be_imported_is_an_error_with_its_traceback(tmp_path: Path) -> None:
    write_app(tmp_path, "import asyncio\n\nraise RuntimeError('no database')\n")
    done = doctor(tmp_path, "main:app", code=3)
    assert "no database" in done.stderr
    assert "main.py" in done.stderr
    assert done.stdout == ""
