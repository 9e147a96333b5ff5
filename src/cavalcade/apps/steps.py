"""The first step of a coroutine outside of any task, and what is left of it for a task to do. Here because a compiled module must have
no generators: asyncio and frameworks look for those of Python."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final

OVER: Final = object()  # the coroutine has returned


def first_step(coroutine: Coroutine[Any, Any, None]) -> Any:
    """What the coroutine waits for, as it gives it to a task; or `OVER`."""
    try:
        return coroutine.send(None)
    except StopIteration:
        return OVER


@types.coroutine
def rest(coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """What a task does whose coroutine has been begun without it. Before the task takes a step, this is asked for the first item, and
    then sent what the first step has ended with."""
    waits_for = yield
    try:
        yield
        if waits_for is OVER:
            return
    except asyncio.CancelledError as error:
        # It was cancelled by itself. That counts when it waits, and goes on to what it waits for, as in any task; or at its end.
        if waits_for is OVER:
            raise
        if not asyncio.isfuture(waits_for) or not waits_for.cancel():
            try:
                waits_for = coroutine.throw(error)
            except StopIteration:
                return
    while True:
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  it is the coroutine's
            try:
                waits_for = coroutine.throw(error)
            except StopIteration:
                return
        else:
            break
    yield from coroutine  # which may be done here, by the decorator
