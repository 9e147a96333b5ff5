"""The app of the drills in which a worker is blocked or dies: the one that the traffic talks to, and GET /do/NAME for each misdeed.

A drill puts it beside the traffic's app, as `main.py`, and tells it with BOOT what is wrong with its start.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from traffic import app as good

BOOT = ""
BOOT_S = 20.0  # of an import that holds the GIL
BLOCKED_S = 1.0
BUSY_S = 0.5  # of CPU, which on a busy machine is seconds
READ_S = 1.0
COLLECTED_S = 0.35  # of CPU; of a machine that is a little faster than when it was asked, still 300 ms
SAMPLE = 50_000  # objects
LITTER = 10_000  # objects between two turns of the loop
HOG_MIB = 1024


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """GET /do/NAME does it in this worker and answers with its pid; with ?PID it answers "elsewhere" if this is another one."""
    if scope["type"] == "lifespan" and BOOT == "lifespan":
        await startup()
    if scope["type"] != "http" or not scope["path"].startswith("/do/"):
        await good(scope, receive, send)
        return
    body = str(os.getpid()).encode()
    wanted = scope["query_string"]
    if wanted and wanted != body:
        body = b"elsewhere"
    else:
        name = scope["path"].removeprefix("/do/")
        if name == "collecting":
            await pile_up()
        MISDEEDS[name]()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def startup() -> None:
    """Waits for what never comes."""
    await asyncio.Event().wait()


# == what blocks =========================================================================================================


def sleeping() -> None:
    time.sleep(BLOCKED_S)


def spinning() -> None:
    end = time.thread_time() + BUSY_S
    while time.thread_time() < end: ...  # fmt: skip  # in one line, so that it is known which


def matching() -> None:
    """One call into C that holds the GIL from its beginning to its end."""
    re.match("(a+)+$", "a" * 24 + "b")


def reading() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(READ_S)
        try:
            here.recv(1)
        except TimeoutError:
            pass


async def pile_up() -> None:
    """So much garbage that one collection takes `COLLECTED_S` of CPU. Others are served meanwhile."""
    gc.disable()  # the collection that is meant is ours
    await litter(SAMPLE)
    began = time.thread_time()
    gc.collect()
    each_s = (time.thread_time() - began) / SAMPLE
    await litter(int(COLLECTED_S / each_s))


async def litter(count: int) -> None:
    for _ in range(count // LITTER):
        for _ in range(LITTER):
            cycle: list[Any] = []
            cycle.append(cycle)
        await asyncio.sleep(0)


def collecting() -> None:
    gc.collect()  # all of it


# == what ends the worker ================================================================================================


def leaving() -> None:
    halt()
    os._exit(1)


def crashing() -> None:
    halt()
    ctypes.string_at(0)


def hogging() -> None:
    halt()
    [b"x" * 2**20 for _ in range(HOG_MIB)]


def hanging() -> None:
    halt()
    time.sleep(1000)


def halt() -> None:
    """Stop, so that the drill can count the connections that die with this worker, until it is continued."""
    os.kill(os.getpid(), signal.SIGSTOP)


DEEDS = (sleeping, spinning, matching, reading, collecting, leaving, crashing, hogging, hanging)
MISDEEDS: dict[str, Callable[[], None]] = {deed.__name__: deed for deed in DEEDS}

if BOOT == "import":
    ends = time.monotonic() + BOOT_S
    while time.monotonic() < ends:
        matching()
