"""`--static`: which requests are for files, and the call that answers one.

The disk is looked at in a few threads, so that a slow one, or a network file system that does not answer, holds up those who want
files from it, and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any

from cavalcade import limits
from cavalcade.apps.asgi.order import COMPLETE, NOTHING
from cavalcade.apps.static import answer
from cavalcade.apps.static.answer import Answer, Wanted
from cavalcade.apps.stream import REQUEST_ID, Call, NewCall, Serving, Stream
from cavalcade.apps.wsgi.pool import Pool
from cavalcade.wire.sink import Head

log = logging.getLogger("cavalcade")

ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
WELL_KNOWN = ".well-known"  # RFC 8615: the one hidden name that is meant to be seen


class StaticFiles:
    """All of one worker. `mounts` are (prefix without a slash at its end, directory); `new_call` makes the calls of the app."""

    def __init__(self, mounts: Iterable[tuple[str, str]], max_age_s: float, serving: Serving, new_call: NewCall) -> None:
        self.serving = serving
        self.pool = Pool(limits.STATIC_THREADS, serving.loop, "static")
        self.cache = b"public, max-age=%d" % max_age_s if max_age_s else b"no-cache"
        # The longest first: of two that match it is the one that is meant.
        self._mounts = sorted(mounts, key=lambda mount: -len(mount[0]))
        self._new_app_call = new_call
        self._complain_at = 0.0

    def start(self) -> None:
        """After the fork, in the worker's own process."""
        self.pool.start()

    def stop(self) -> None:
        self.pool.stop()

    def new_call(self, stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        """One request: for a file, or for the app."""
        path = head.path
        for prefix, folder in self._mounts:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("/", ""):
                name = f" [{template[REQUEST_ID]}]" if REQUEST_ID in template else ""
                return StaticCall(self, stream, head, folder, path[len(prefix) :], name)
        return self._new_app_call(stream, head, template)

    def complain(self, request_line: str, error: BaseException | None) -> None:
        """A file that is there cannot be read: say so, but not for every request."""
        now = self.serving.loop.time()
        if now >= self._complain_at:
            self._complain_at = now + limits.PEER_LOG_EVERY_S
            log.error("%s: the file cannot be read: %s", request_line, error, exc_info=None if isinstance(error, OSError) else error)


def segments_of(rest: str, raw_path: bytes) -> tuple[str, ...] | None:
    """The names in what follows the prefix. None for a path that could mean something else to somebody: encoded slashes, backslashes, NUL,
    empty names, `.` and `..`; and for hidden names."""
    raw = raw_path.lower()
    if b"%2f" in raw or "\\" in rest or "\0" in rest:
        return None
    names = rest.split("/")[1:]
    if names and not names[-1]:
        names.pop()
    if any(not name or (name.startswith(".") and name != WELL_KNOWN) for name in names):
        return None
    return tuple(names)


class StaticCall:
    """One request for a file."""

    def __init__(self, files: StaticFiles, stream: Stream, head: Head, folder: str, rest: str, name: str) -> None:
        self.files = files
        self.serving = files.serving
        self.stream = stream
        self.method = head.method
        self.target = head.target
        self._name = name
        self.sent = NOTHING
        self.gone = False
        self._done: asyncio.Future[None] | None = None
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        segments = segments_of(rest, head.raw_path)
        self._wanted: Wanted | None = None
        if segments is not None:
            # A reference relative to the request's own URL, which is right whatever a proxy has cut off it. "./" before it: a name with a
            # colon would be taken for a scheme.
            last = head.raw_path.rpartition(b"/")[2]
            redirect = b"./" + last + b"/" + (b"?" + head.query if head.query else b"")
            self._wanted = Wanted(folder, segments, rest.endswith("/"), head.method, head.headers, redirect, files.cache)

    @property
    def task(self) -> asyncio.Future[None]:
        """Done when the response is with the connection. Made for those who ask."""
        done = self._done
        if done is None:
            done = self._done = self.serving.loop.create_future()
            if self not in self.serving.running:
                done.set_result(None)
        return done

    # -- the connection's side -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look for the file."""
        if self.gone:
            return
        self.serving.running[self] = None
        if self.method == "OPTIONS":
            self.respond(Answer(204, [ALLOW]))
        elif self.method not in ("GET", "HEAD"):
            self.respond(answer.text(405, b"Method Not Allowed\n", ALLOW))
        elif self._wanted is None:
            self.respond(answer.NOT_FOUND)
        else:
            self.files.pool.submit(self)

    def feed_body(self, chunk: bytes) -> int:
        """Nobody wants it."""
        return 0

    def feed_end(self) -> None:
        pass

    def disconnect(self) -> None:
        self.gone = True
        self.finish()

    def notice(self) -> None:
        pass

    def cancel(self) -> None:
        self.give_up(503, "Service Unavailable")

    def progress(self) -> int | None:
        return None if self.gone or self.sent == COMPLETE else 0

    def time_out(self) -> bool:
        return self.give_up(504, "Gateway Timeout")

    def left_behind(self) -> str:
        return "the disk does not answer; it is left behind"

    def complain_short(self, sent: int, length: int) -> None:
        log.error("%s: the file has become shorter while it was sent: %d bytes instead of %d", self.request_line(), sent, length)

    def request_line(self) -> str:
        return f"{self.method} {self.target.decode('ascii', 'backslashreplace')[:512]}{self._name}"

    # -- in a thread -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Look at the disk. Never raises."""
        assert self._wanted is not None
        if not self.gone:
            try:
                self._answer = answer.answer(self._wanted)
            except BaseException as error:  # noqa: BLE001  the border to the thread: told in the loop
                self._error = error
            self.files.pool.call(self.on_found)

    # -- in the loop -------------------------------------------------------------------------------------------------------------

    def on_found(self) -> None:
        """The thread has looked."""
        found = self._answer
        if self.gone:
            if found is not None and found.span is not None:
                os.close(found.span.fd)
            return
        if found is None:
            error = self._error
            self.files.complain(self.request_line(), error)
            found = answer.NOT_FOUND if isinstance(error, PermissionError) else answer.text(500, b"Internal Server Error\n")
        self.respond(found)

    def respond(self, found: Answer) -> None:
        self.stream.start(found.status, found.headers)
        self.sent = COMPLETE
        if found.span is not None:
            self.stream.send_file(found.span.fd, found.span.offset, found.span.count)
        else:
            self.stream.write(found.body, False)
        self.finish()

    def give_up(self, status: int, text: str) -> bool:
        answered = self.stream.fail(status, text)
        self.sent = COMPLETE
        self.gone = True
        self.finish()
        return answered

    def finish(self) -> None:
        self.serving.running.pop(self, None)
        done = self._done
        if done is not None and not done.done():
            done.set_result(None)
