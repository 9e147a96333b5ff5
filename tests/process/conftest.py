"""A project directory with an app that can be told to misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import Load

APP = '''
"""{version}"""
import asyncio, os, signal, subprocess, sys, threading, time
from pathlib import Path

HERE = Path(__file__).parent
{prologue}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if path == "/exit":
        os._exit(int(scope["query_string"] or b"1"))
    if path == "/hog":
        hoard = [b"x" * 2**20 for _ in range(1000)]
    if path == "/block":
        # The loop is blocked for good; the head has left before, so that the client knows.
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"blocked", "more_body": True}})
        await asyncio.sleep(0.1)
        time.sleep(1000)
    if path == "/slow":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"begun,", "more_body": True}})
        while not (HERE / "finish").exists():
            await asyncio.sleep(0.01)
        await send({{"type": "http.response.body", "body": b"finished"}})
        return
    if path == "/orphan":
        text = orphan()
    elif path == "/inheritable":
        text = ",".join(str(fd) for fd in open_fds() if fd > 2 and os.get_inheritable(fd))
    elif path == "/ignored":
        text = ",".join(sorted(one.name for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN))
    elif path == "/pid":
        text = str(os.getpid())
    elif path == "/title":
        text = Path(f"/proc/{{os.getpid()}}/cmdline").read_text().strip("\\0 ")
    else:
        text = "{version}"
    body = text.encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})


async def lifespan(receive, send):
    await receive()
    {startup}
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    with (HERE / "shutdowns").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    await send({{"type": "lifespan.shutdown.complete"}})


def open_fds():
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        yield int(name)


def orphan():
    """The pid of a process whose parent is dead."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild:
            os.write(w, str(grandchild).encode())
        os._exit(0)
    os.close(w)
    os.waitpid(child, 0)
    pid = os.read(r, 100).decode()
    os.close(r)
    return pid
'''

# At import: say so, and wait for the file `gate`. For tests that must catch a boot in the middle.
GATED = """
print("importing {version}", file=sys.stderr, flush=True)
while not (HERE / "gate").exists():
    time.sleep(0.01)
"""


class Project:
    """The directory of an app that is deployed again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deploy(self, version: str = "v1", *, prologue: str = "", startup: str = "pass", gated: bool = False) -> None:
        """Put a version of the app there. `prologue` runs at import, `startup` in the lifespan; `gated` waits for a file `gate`."""
        write_app(self.folder, APP.format(version=version, prologue=GATED.format(version=version) if gated else prologue, startup=startup))

    def deploy_text(self, source: str) -> None:
        """Put any text there as the app."""
        write_app(self.folder, source)

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def server(self, *options: str, ready: bool = True, workers: int = 2) -> LiveServer:
        return LiveServer("main:app", "--workers", str(workers), "--no-access-log", *options, cwd=self.folder, ready=ready)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.deploy()
    return project


@pytest.fixture
def load() -> Iterator[Callable[[LiveServer], Load]]:
    loads: list[Load] = []

    def begin(server: LiveServer) -> Load:
        loads.append(Load(server))
        loads[-1].start()
        return loads[-1]

    yield begin
    for each in loads:
        each.stop()
