"""FastAPI as people use it."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cavalcade.testing import LiveServer, write_app

SOURCE = """
    import asyncio, hashlib, os, threading
    from contextlib import asynccontextmanager
    from typing import Annotated
    from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, UploadFile
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel

    @asynccontextmanager
    async def lifespan(app):
        yield {"pool": "opened by lifespan", "list": []}

    app = FastAPI(lifespan=lifespan)
    events = []
    go, ran = asyncio.Event(), asyncio.Event()
    eight = threading.Barrier(8)

    class Item(BaseModel):
        name: str
        price: float

    @app.get("/json")
    async def json_hello():
        return {"hello": "w\\u00f6rld", "pid": os.getpid()}

    @app.post("/items/{item_id}")
    async def items(item_id: int, item: Item, q: str | None = None):
        return {"id": item_id, "name": item.name, "price": item.price, "q": q}

    async def session():
        events.append("open")
        try:
            yield "session"
        except ValueError:
            events.append("rolled back")
            raise
        finally:
            events.append("closed")

    @app.get("/dependency")
    async def dependency(s: Annotated[str, Depends(session)], fail: bool = False):
        events.append(f"used {s}")
        if fail:
            raise ValueError("in the endpoint")
        return {"ok": True}

    @app.get("/events")
    async def read_events():
        seen = events[:]
        events.clear()
        return seen

    @app.get("/teapot")
    async def teapot():
        raise HTTPException(418, "short and stout", headers={"x-handle": "yes"})

    async def later():
        await go.wait()
        ran.set()

    @app.post("/background")
    async def background(tasks: BackgroundTasks):
        go.clear(); ran.clear()
        tasks.add_task(later)
        return {"ran": ran.is_set()}

    @app.post("/go")
    async def set_go():
        go.set()

    @app.get("/ran")
    async def wait_ran():
        await ran.wait()
        return {"ran": True}

    @app.get("/stream")
    async def stream():
        go.clear()
        async def parts():
            yield b"first\\n"
            await go.wait()
            yield b"second\\n"
        return StreamingResponse(parts(), media_type="text/plain")

    @app.post("/upload")
    async def upload(file: UploadFile):
        digest = hashlib.sha256()
        while chunk := await file.read(1 << 20):
            digest.update(chunk)
        return {"name": file.filename, "size": file.size, "sha256": digest.hexdigest(), "pid": os.getpid()}

    @app.post("/drink")
    async def drink(request: Request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return {"size": size, "pid": os.getpid()}

    @app.get("/state")
    async def state(request: Request):
        request.state.pool = "changed for this request only"
        request.state.list.append(1)
        return {"list": len(request.state.list)}

    @app.get("/state-again")
    async def state_again(request: Request):
        return {"pool": request.state.pool, "list": len(request.state.list)}

    @app.get("/sync")
    def sync_endpoint():
        eight.wait(timeout=25)
        return {"thread": threading.get_ident(), "main": threading.current_thread() is threading.main_thread()}

    @app.get("/who")
    async def who(request: Request):
        return {"client": request.client.host, "url": str(request.url), "version": request.scope["http_version"],
                "server": request.scope["server"], "loop": type(asyncio.get_running_loop()).__module__}
"""


@pytest.fixture(scope="module")
def server(serve: Any) -> LiveServer:
    started: LiveServer = serve(SOURCE)
    return started


def test_json(client: httpx.Client) -> None:
    answer = client.get("/json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["hello"] == "w\u00f6rld"


def test_the_loop_is_the_one_that_was_asked_for(client: httpx.Client, loop_name: str) -> None:
    assert client.get("/who").json()["loop"].split(".")[0] == loop_name


def test_path_query_and_body_reach_the_endpoint(client: httpx.Client) -> None:
    answer = client.post("/items/7", params={"q": "a b/\u00fc"}, json={"name": "x", "price": 1.5})
    assert answer.json() == {"id": 7, "name": "x", "price": 1.5, "q": "a b/\u00fc"}


def test_a_validation_error_is_a_422_that_says_where(client: httpx.Client) -> None:
    answer = client.post("/items/seven", json={"name": "x"})
    assert answer.status_code == 422
    assert {tuple(problem["loc"]) for problem in answer.json()["detail"]} == {("path", "item_id"), ("body", "price")}


def test_an_http_exception_keeps_status_and_headers(client: httpx.Client) -> None:
    answer = client.get("/teapot")
    assert (answer.status_code, answer.headers["x-handle"], answer.json()) == (418, "yes", {"detail": "short and stout"})


def test_a_dependency_with_yield_is_closed_after_the_answer(client: httpx.Client) -> None:
    client.get("/events")
    assert client.get("/dependency").json() == {"ok": True}
    assert client.get("/events").json() == ["open", "used session", "closed"]


def test_a_dependency_with_yield_sees_the_endpoints_error(client: httpx.Client, server: LiveServer) -> None:
    client.get("/events")
    mark = server.mark()
    assert client.get("/dependency", params={"fail": True}).status_code == 500
    assert client.get("/events").json() == ["open", "used session", "rolled back", "closed"]
    server.wait_line(r"ValueError: in the endpoint", after=mark)
    assert "GET /dependency?fail=true" in "\n".join(server.lines)


def test_a_background_task_runs_after_the_answer(client: httpx.Client) -> None:
    assert client.post("/background").json() == {"ran": False}
    client.post("/go")
    assert client.get("/ran").json() == {"ran": True}


def test_a_stream_arrives_while_it_is_made(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        chunks = answer.iter_bytes()
        assert next(chunks) == b"first\n"
        # The second part is only made once this has been answered.
        client.post("/go")
        assert b"".join(chunks) == b"second\n"


def test_sync_endpoints_overlap_in_the_thread_pool(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/sync"), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["thread"] for answer in answers}) == 8
    assert not any(answer.json()["main"] for answer in answers)


def test_lifespan_state_is_shared_and_copied_per_request(client: httpx.Client) -> None:
    count = client.get("/state").json()["list"]
    # The dict is a copy for each request, what it holds is the same (ASGI lifespan spec).
    assert client.get("/state-again").json() == {"pool": "opened by lifespan", "list": count}


def test_the_scope_tells_who_and_where(client: httpx.Client, server: LiveServer) -> None:
    who = client.get("/who?x=1").json()
    assert (who["client"], who["version"], who["url"]) == ("127.0.0.1", "1.1", f"{server.url}/who?x=1")
    assert who["server"] == ["127.0.0.1", server.port]


def test_the_docs_page_is_served(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/json", "/upload"}
    assert "swagger" in client.get("/docs").text


MIB = 1 << 20
PIECE = bytes(range(256)) * (MIB // 256)


class Memory:
    """How much a process grew at its peak between two moments."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = psutil.Process(pid).memory_info().rss
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): reset the peak to what it is now

    def grown_mib(self) -> float:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert match is not None
        return (int(match[1]) * 1024 - self._before) / MIB


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs the peak memory of another process")
def test_an_upload_of_50_mib_takes_bounded_memory(client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(50):
            file.write(PIECE)
            digest.update(PIECE)
    with path.open("rb") as file:  # imports and buffers that a first upload brings are not the server's memory use
        assert client.post("/upload", files={"file": ("small", b"x")}).status_code == 200
        memory = Memory(client.get("/json").json()["pid"])
        answer = client.post("/upload", files={"file": ("big.bin", file)})
    assert answer.json() == {
        "name": "big.bin",
        "size": 50 * MIB,
        "sha256": digest.hexdigest(),
        "pid": client.get("/json").json()["pid"],
    }
    assert memory.grown_mib() < 12


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs the peak memory of another process")
def test_a_chunked_body_of_50_mib_that_is_read_as_it_comes_takes_bounded_memory(client: httpx.Client) -> None:
    memory = Memory(client.get("/json").json()["pid"])
    answer = client.post("/drink", content=(PIECE for _ in range(50)))
    assert answer.json()["size"] == 50 * MIB
    assert memory.grown_mib() < 12


def test_lifespan_runs_once_in_each_worker_and_is_closed_on_stop(loop_name: str, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        """
        import os
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        def note(text):
            with open("events", "a") as file:
                file.write(f"{text} {os.getpid()}\\n")

        @asynccontextmanager
        async def lifespan(app):
            note("startup")
            yield
            note("shutdown")

        app = FastAPI(lifespan=lifespan)
        """,
    )
    with LiveServer("main:app", "--workers", "2", "--loop", loop_name, cwd=tmp_path) as server:
        workers = server.worker_pids
        assert len(workers) == 2
    events = sorted((tmp_path / "events").read_text().splitlines())
    assert events == sorted(f"{what} {pid}" for what in ("startup", "shutdown") for pid in workers)
