"""A FastAPI app that shows what the server does with it. Serve it with `make demo`, or

cavalcade main:app --app-dir examples/fastapi_demo --workers 2
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

GREETING = "Hello from Cavalcade"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Runs once in each worker: before its first request, and after its last. What it yields is `request.state`."""
    print(f"pid {os.getpid()}: open the database, warm the cache, ...")
    yield {"started": time.monotonic(), "notes": []}
    print(f"pid {os.getpid()}: ... and close them")


app = FastAPI(title="Cavalcade demo", lifespan=lifespan)


@app.get("/")
async def hello(request: Request) -> dict[str, Any]:
    """Which worker answered, and how long it has been up."""
    return {"message": GREETING, "pid": os.getpid(), "up_s": round(time.monotonic() - request.state.started, 1)}


@app.get("/slow")
async def slow(seconds: Annotated[float, Field(ge=0, le=60)] = 1.0) -> dict[str, Any]:
    """Waits without blocking: a hundred of these at once take as long as one."""
    await asyncio.sleep(seconds)
    return {"waited_s": seconds, "pid": os.getpid()}


@app.get("/sync")
def in_a_thread(seconds: Annotated[float, Field(ge=0, le=60)] = 1.0) -> dict[str, Any]:
    """A plain function: FastAPI runs it in a thread, so it may block; the worker goes on serving beside it."""
    time.sleep(seconds)
    return {"waited_s": seconds, "pid": os.getpid()}


@app.get("/count")
async def count(upto: Annotated[int, Field(ge=1, le=10_000)] = 5) -> StreamingResponse:
    """Streams: each line is on its way before the next one is made."""

    async def lines() -> AsyncIterator[str]:
        for number in range(1, upto + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(lines(), media_type="text/plain")


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=1000)


def notebook(request: Request) -> Iterator[list[str]]:
    """A dependency with a clean-up, as a database session would be."""
    yield request.state.notes


Notes = Annotated[list[str], Depends(notebook)]


@app.post("/notes", status_code=201)
async def add_note(note: Note, notes: Notes, background: BackgroundTasks) -> dict[str, Any]:
    """Validated JSON in, JSON out; the rest is done after the answer. Notes live in one worker's memory."""
    notes.append(note.text)
    background.add_task(print, f"pid {os.getpid()}: noted {note.text!r}")
    return {"notes": len(notes), "pid": os.getpid()}


@app.get("/fail")
async def fail() -> None:
    """An error in the app: a 500 for the client, the traceback in the log, and the next request is served as ever."""
    raise RuntimeError("this endpoint always fails")
