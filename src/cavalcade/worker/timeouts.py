"""`request_timeout`: a request whose app does not go on is given up.

What counts is that the app sends something, not how long a request takes: a download of an hour or an event stream that says something
now and then is none of it. Time in which the client is waited for, for its body or because it takes less than it is sent, is not the
app's either; those have limits of their own. Nor is time in which the event loop was blocked, by whom ever: nobody could go on.

The sweep looks at what runs, twice a second. A request costs nothing, and one that is over between two looks was never seen.
"""

from __future__ import annotations

import logging
import math
import sys

from cavalcade import limits
from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.stream import Call, Serving
from cavalcade.observe import blackbox
from cavalcade.observe.blackbox import Frame
from cavalcade.worker import witness

log = logging.getLogger("cavalcade")


class RequestTimeouts:
    """Of one worker. `packages` are the apps' own, wherever they are installed."""

    def __init__(self, serving: Serving, seconds: float, packages: frozenset[str]) -> None:
        self._serving = serving
        self._seconds = seconds
        self._packages = packages
        self._seen: dict[Call, tuple[float, int]] = {}  # until when; how far it was when it last went on
        self._looked_at = math.inf

    def look(self, now: float) -> None:
        """Called by the sweep, with the monotonic time."""
        since_s = now - self._looked_at
        self._looked_at = now
        before, self._seen = self._seen, {}
        if since_s > 2 * limits.SWEEP_S:  # it was blocked, and has not turned since
            before = {call: (until + since_s, progress) for call, (until, progress) in before.items()}
        for call in tuple(self._serving.running):
            progress = call.progress()
            seen = before.get(call)
            if seen is not None and seen[0] == math.inf:
                self._seen[call] = seen  # given up already
            elif progress is None:
                continue
            elif seen is None or seen[1] != progress:
                self._seen[call] = now + self._seconds, progress
            elif now < seen[0]:
                self._seen[call] = seen
            else:
                self._seen[call] = math.inf, progress
                self._give_up(call)

    def _give_up(self, call: Call) -> None:
        line = call.request_line()
        where = self._where(call)
        begun = call.sent
        gone = call.gone
        answered = call.time_out()
        what = "it is answered 504" if answered else "its client is gone" if gone else "it is cut off"
        end = "the app is cancelled" if isinstance(call, Exchange) else "its thread cannot be stopped"
        said = "no more of a response" if begun else "no response"
        log.warning("%s: %s for %g s (request_timeout); %s, %s%s", line, said, self._seconds, what, end, where)

    def _where(self, call: Call) -> str:
        """ " in app/views.py:88 report()": where the app is."""
        stack: list[Frame] = []
        if isinstance(call, Exchange):
            if call.task is not None:
                stack = [witness.describe(frame) for frame in witness.awaits(call.task.get_coro())]
                stack.reverse()
        else:
            stack = [witness.describe(frame) for frame in witness.outwards(sys._current_frames().get(getattr(call, "thread", 0)))]
        culprit = blackbox.culprit(stack, self._packages)
        return f" in {culprit.show()}" if culprit is not None else ""
