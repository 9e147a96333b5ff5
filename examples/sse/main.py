"""Server-sent events: `cavalcade main:app --app-dir examples/sse`.

    curl -N 'http://127.0.0.1:8000/?count=5'

A stream that never ends by itself would hold up every reload until the server gives up on it. This one asks: when its worker is about
to leave, it says so to the client, which connects again, to a worker with the new code.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

TICK_S = 0.1


async def ticks(count: int, draining: Any) -> AsyncIterator[str]:
    for number in range(count):
        yield f"id: {number}\ndata: tick {number}\n\n"
        try:
            await asyncio.wait_for(draining.wait(), TICK_S)
        except TimeoutError:
            continue
        yield "event: restart\nretry: 100\ndata: connect again\n\n"
        return


async def events(request: Request) -> StreamingResponse:
    count = int(request.query_params.get("count", "1000000"))
    draining = request.scope["extensions"]["cavalcade.draining"]
    return StreamingResponse(ticks(count, draining), media_type="text/event-stream", headers={"cache-control": "no-store"})


app = Starlette(routes=[Route("/", events)])
