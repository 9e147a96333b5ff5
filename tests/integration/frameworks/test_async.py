"""A process manager in front costs no asynchrony: requests of one worker run at the same time, and so do those of each of several."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from cavalcade.testing import LiveServer

SOURCE = """
    import asyncio, os
    from fastapi import FastAPI

    app = FastAPI()
    SIZE = {size}
    barrier = asyncio.Barrier(SIZE)
    came = 0

    @app.get("/meet")
    async def meet():
        global came
        came += 1
        met = came <= SIZE
        if met:
            await barrier.wait()
        return {{"pid": os.getpid(), "met": met}}
"""


async def get_all(url: str, count: int) -> list[dict[str, Any]]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as client:
        answers = await asyncio.gather(*[client.get("/meet") for _ in range(count)])
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]


def test_a_hundred_requests_meet_inside_one_worker(serve: Any) -> None:
    server: LiveServer = serve(SOURCE.format(size=100))
    # Each of them waits inside the app until all hundred are there; any limit below a hundred would hang here.
    answers = asyncio.run(get_all(server.url, 100))
    assert [answer["met"] for answer in answers] == [True] * 100
    assert [answer["pid"] for answer in answers] == server.worker_pids * 100


@pytest.mark.slow
def test_requests_meet_inside_each_of_several_workers(serve: Any) -> None:
    size, workers = 25, 3
    server: LiveServer = serve(SOURCE.format(size=size), "--workers", str(workers))

    async def meet_everywhere() -> Counter[int]:
        """Go on sending until every worker has had enough requests at once to open its barrier."""
        met: Counter[int] = Counter()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=server.url, timeout=60.0, limits=limits) as client:
            pending: set[asyncio.Task[httpx.Response]] = set()
            while len(met) < workers or pending:
                if len(met) < workers:
                    pending |= {asyncio.ensure_future(client.get("/meet")) for _ in range(size)}
                done, pending = await asyncio.wait(pending, timeout=0.5)
                for task in done:
                    answer = task.result().json()
                    if answer["met"]:
                        met[answer["pid"]] += 1
        return met

    met = asyncio.run(asyncio.wait_for(meet_everywhere(), 45))
    assert met == dict.fromkeys(server.worker_pids, size)
