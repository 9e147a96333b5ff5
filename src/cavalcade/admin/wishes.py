"""Wishes: events for the policy that somebody waits for. The policy answers each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cavalcade.supervisor import events as on
from cavalcade.supervisor.commands import Answer, Verdict


class Wishes:
    """Those of one server. `post` hands an event to the policy, and has had it handled when it returns."""

    def __init__(self, post: Callable[[on.Event], object]) -> None:
        self._post = post
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._last = 0
        self._end: asyncio.Future[int] | None = None
        self._code: int | None = None

    async def wish(self, make: Callable[[int], on.Event], *, wait: bool) -> Answer | None:
        """Wish for something; what has become of it, or None where it has only begun and nobody waits for the rest."""
        self._last += 1
        request = self._last
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        try:
            self._post(make(request))
            return await future if wait or future.done() else None
        finally:
            del self._waiting[request]

    def stop(self) -> None:
        """Wish for the end."""
        self._post(on.Stop())

    async def wait_end(self) -> int:
        """The exit code, when there is one."""
        if self._code is not None:
            return self._code
        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._end)

    def answer(self, answer: Answer) -> None:
        """The policy has answered. Nobody may be waiting any more."""
        future = self._waiting.get(answer.request)
        if future is not None and not future.done():
            future.set_result(answer)

    def end(self, code: int) -> None:
        """The server has come to its end: whoever still waits is told."""
        self._code = code
        if self._end is not None and not self._end.done():
            self._end.set_result(code)
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Answer(0, Verdict.STOPPING, "The server stops.", 0, 0, 0.0))
