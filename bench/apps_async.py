"""One FastAPI app with the three ways to take a second over an answer."""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello() -> str:
    return "hello"


@app.get("/awaits")
async def awaits() -> str:
    """As it should be: it waits, and the loop goes on."""
    await asyncio.sleep(1)
    return "done"


@app.get("/sync")
def sync() -> str:
    """A plain function: FastAPI runs it in a thread, of which there are 40."""
    time.sleep(1)
    return "done"


@app.get("/blocks")
async def blocks() -> str:
    """What goes wrong most often: a blocking call in an async function."""
    time.sleep(1)  # noqa: ASYNC251  (on purpose)
    return "done"
