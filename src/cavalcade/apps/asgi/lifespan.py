"""The lifespan protocol (ASGI lifespan spec 2.0): one task for the app's whole life, startup before the first connection,
shutdown after the last.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, Literal

from cavalcade.apps.loader import user_frames
from cavalcade.errors import AppProtocolError, LifespanFailed
from cavalcade.types import ASGIApp, Message

log = logging.getLogger("cavalcade")

_LEGAL = {
    "starting": {"lifespan.startup.complete": "started", "lifespan.startup.failed": "failed"},
    "stopping": {"lifespan.shutdown.complete": "stopped", "lifespan.shutdown.failed": "failed"},
}


class Lifespan:
    """Runs the app's lifespan. `state` is what the app put into `scope["state"]`, or None if it has no lifespan; `name` is what messages
    call the app.

    `context` is the context that startup left: every request starts from a copy of it.
    """

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on", "off"], *, whole_traces: bool = False, name: str = "the app") -> None:
        self.app = app
        self.mode = mode
        self.whole_traces = whole_traces
        self.name = name  # for messages
        self.state: dict[str, Any] | None = None
        self.context = contextvars.copy_context()
        self._phase = "new"
        self._asked = False  # the app has called receive(): it knows what a lifespan is
        self._failure = ""
        self._error: BaseException | None = None
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._scope_state: dict[str, Any] = {}

    async def startup(self) -> None:
        """Returns when the app is started, or has no lifespan. Raises `LifespanFailed`."""
        if self.mode == "off":
            return
        self._phase = "starting"
        self._orders.put_nowait({"type": "lifespan.startup"})
        loop = asyncio.get_running_loop()
        self._task = asyncio.Task(self._run(), loop=loop, context=self.context)
        await self._wait_leaving("starting")
        if self._phase == "started":
            self.state = self._scope_state
            return
        if self._phase == "failed":
            await self._finish_task()
            raise self._failed()
        self._judge_end(self._error)

    def _failed(self) -> LifespanFailed:
        """What the app said in lifespan.startup.failed; frameworks raise the real error right after it."""
        error = self._error
        if error is not None:
            trace = user_frames(error, whole=self.whole_traces)
            return LifespanFailed(f"{self.name}'s startup failed: {type(error).__name__}: {error}", trace=trace)
        *_, last = self._failure.splitlines() or ["it did not say why"]
        return LifespanFailed(f"{self.name}'s startup failed: {last}", trace=self._failure if "\n" in self._failure else "")

    def _judge_end(self, error: BaseException | None) -> None:
        """The app's lifespan ended before startup was complete: does it have none, or is it broken?"""
        rejected = not self._asked or isinstance(error, AppProtocolError)
        self._phase = "unsupported"
        if self.mode == "on" or not rejected:
            if error is None:
                cause = f"{self.name} returned from its lifespan before startup was complete"
                raise LifespanFailed(cause, fix="send lifespan.startup.complete, or use --lifespan off")
            trace = user_frames(error, whole=self.whole_traces)
            hint = "the app does not handle lifespan events: use --lifespan auto or off" if rejected else ""
            raise LifespanFailed(f"{self.name}'s startup failed: {type(error).__name__}: {error}", fix=hint, trace=trace) from error
        reason = f"{type(error).__name__}: {error}" if error is not None else "it returned at once"
        log.debug("%s has no lifespan (%s); --lifespan on makes that an error", self.name, reason)

    async def shutdown(self, timeout: float) -> None:
        """Runs the app's shutdown, `timeout` seconds at most. Failures are logged, never raised: we are leaving anyway."""
        if self._phase != "started" or self._task is None:
            return
        if self._task.done():
            return
        self._phase = "stopping"
        self._orders.put_nowait({"type": "lifespan.shutdown"})
        try:
            async with asyncio.timeout(timeout):
                await self._wait_leaving("stopping")
        except TimeoutError:
            log.error("%s's shutdown took longer than %.1f s and was cancelled", self.name, timeout)
            self._task.cancel()
        if self._phase == "failed":
            log.error("%s's shutdown failed: %s", self.name, self._failure or "it did not say why")
        await self._finish_task()

    async def _run(self) -> None:
        self._scope_state = {}
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._scope_state}
        try:
            await self.app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # the border to the app: `startup` judges it, after that it is logged here
            self._error = error
            if self._phase not in ("starting", "failed"):
                log.error("%s's lifespan failed", self.name, exc_info=error)
        finally:
            if self._phase == "starting":
                self._phase = "ended"
            elif self._phase == "stopping":
                self._phase = "stopped"
            self._changed.set()

    async def _receive(self) -> Message:
        self._asked = True
        return await self._orders.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        following = _LEGAL.get(self._phase, {}).get(kind)
        if following is None:
            allowed = " or ".join(_LEGAL.get(self._phase, {})) or "nothing"
            raise AppProtocolError(f"the app sent {kind!r} in its lifespan, where {allowed} is expected")
        if following == "failed":
            self._failure = str(message.get("message", "")).strip()
        self._phase = following
        self._changed.set()

    async def _wait_leaving(self, phase: str) -> None:
        while self._phase == phase:
            self._changed.clear()
            await self._changed.wait()

    async def _finish_task(self) -> None:
        """Let the app's lifespan call end; it has said all it had to say, so it gets one second and is then cancelled."""
        task = self._task
        if task is None:
            return
        done, _ = await asyncio.wait({task}, timeout=1.0)
        if not done and not task.cancelling():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
