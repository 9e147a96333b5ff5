"""What a worker is at: every request that is being answered, and where its app stands.

An async app stands where the innermost coroutine of its task awaits. Often that is not the end of it: a middleware may run the rest of
the app in a task of its own, and a sync endpoint runs in a thread. Both are followed as far as they can be known: such a task works for
a scope with the very same list of headers, and a thread of AnyIO's holds the very future that the coroutine awaits. Nothing is
remembered for a request; all of this is found when somebody asks.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from types import FrameType
from typing import Any

from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.asgi.websocket import WebSocketExchange
from cavalcade.apps.stream import REQUEST_ID, Call, Serving
from cavalcade.observe import blackbox, requests
from cavalcade.observe.escape import quoted
from cavalcade.worker import channel, witness

_IDLE = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py", "/apps/wsgi/pool.py", "/apps/static/")
_TEXT_CHARS = 512


class Inspection:
    """One look at a worker, from inside of its loop. `package` is the app's own, wherever it is installed."""

    def __init__(self, serving: Serving, packages: frozenset[str]) -> None:
        self._serving = serving
        self._packages = packages
        self._threads = sys._current_frames()
        self._explained = {threading.get_ident()}  # threads whose work is known by now
        self._helpers: dict[int, list[list[FrameType]]] | None = None

    def take(self, request: int, limit: int) -> channel.Inspected:
        """The answer to `Inspect`."""
        running = list(self._serving.running)
        described = [self._describe(call) for call in running[:limit]]
        return channel.Inspected(request, len(running), described, self._other_threads() if len(described) == len(running) else [])

    # -- one request -------------------------------------------------------------------------------------------------------

    def _describe(self, call: Call) -> channel.LiveRequest:
        scope: Any = getattr(call, "scope", None) or {}
        environ: Any = getattr(call, "environ", None) or {}
        frames = self._stack(call)
        stack = [witness.describe(frame) for frame in frames]
        culprit = blackbox.culprit(reversed(stack), self._packages)
        method, _, target = call.request_line().partition(" ")
        request_id = str(scope.get(REQUEST_ID) or environ.get(REQUEST_ID) or "")
        return channel.LiveRequest(
            method=method,
            target=target.removesuffix(f" [{request_id}]"),
            client=witness.client_of(call),
            kind="websocket" if isinstance(call, WebSocketExchange) else "asgi" if isinstance(call, Exchange) else "wsgi",
            state=_state(call),
            age_s=witness.age_of(call),
            route=quoted(str(requests.route(scope) or ""))[:_TEXT_CHARS] if scope else "",
            request_id=request_id,
            where=culprit.show() if culprit is not None else "",
            stack=channel.show(stack, self._packages),
        )

    def _stack(self, call: Call) -> list[FrameType]:
        """Where the app stands, the outermost frame first."""
        if not isinstance(call, Exchange):
            thread = getattr(call, "thread", 0)
            if not thread:
                return []
            self._explained.add(thread)
            return _inwards(self._threads.get(thread))
        if call.task is None:
            return []
        frames = list(witness.awaits(call.task.get_coro()))
        for helper in self._helpers_of(call.scope):
            frames += helper
        return frames + (self._in_thread(frames[-1]) if frames else [])

    def _helpers_of(self, scope: Any) -> list[list[FrameType]]:
        """The stacks of other tasks that work for the request of this scope."""
        if self._helpers is None:
            self._helpers = {}
            own = {call.task for call in self._serving.running if isinstance(call, Exchange)}
            for task in asyncio.all_tasks():
                if task in own or task is asyncio.current_task():
                    continue
                frames = list(witness.awaits(task.get_coro()))
                mark = next((mark for frame in frames if (mark := _mark(witness.maybe_scope(frame)))), 0)
                if mark:
                    self._helpers.setdefault(mark, []).append(frames)
        return self._helpers.get(_mark(scope), [])

    def _in_thread(self, innermost: FrameType) -> list[FrameType]:
        """The stack of the thread that this coroutine waits for, where it is one of AnyIO's."""
        future = innermost.f_locals.get("future")
        if not isinstance(future, asyncio.Future):
            return []
        for ident, frame in self._threads.items():
            inner: FrameType | None = frame
            while inner is not None:
                if inner.f_locals.get("future") is future:
                    self._explained.add(ident)
                    return [each for each in _inwards(frame) if not each.f_code.co_filename.endswith(_IDLE)]
                inner = inner.f_back
        return []

    # -- what is left ------------------------------------------------------------------------------------------------------

    def _other_threads(self) -> list[channel.ThreadStack]:
        """Threads that run code of the app's, and for whom is not known."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found = []
        for ident, frame in self._threads.items():
            stack = [witness.describe(each) for each in _inwards(frame)]
            if ident in self._explained or ident not in names or all(each.ours or each.library(self._packages) for each in stack):
                continue
            found.append(channel.ThreadStack(names[ident], channel.show(stack, self._packages)))
        return found


def _inwards(frame: FrameType | None) -> list[FrameType]:
    """The frames of a thread, the outermost first."""
    return list(witness.outwards(frame))[::-1]


def _mark(scope: Any) -> int:
    """What the scope of a request and every copy of it that a framework makes have in common, and no other has; 0 for none."""
    try:
        return id(scope["headers"])
    except (TypeError, KeyError):
        return 0


def _state(call: Call) -> str:
    if call.gone:
        return "client gone"
    if isinstance(call, WebSocketExchange):
        return "open" if call.pipe is not None else "handshake"
    return "answering" if call.sent else "no response yet"
