"""A WSGI app that runs on the loop's own thread (`threads=0`): no hand-over to a thread and back, and no second request meanwhile.

Because nothing else turns while the app runs, it is called only when its whole request body is here, in memory or in a file. It is
asked for the next piece of its response only while the client takes them.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import tempfile
import time
from typing import Any

from cavalcade import limits
from cavalcade.apps.asgi.order import BODY, COMPLETE, NOTHING
from cavalcade.apps.asgi.waits import is_disconnect
from cavalcade.apps.stream import Stream
from cavalcade.apps.wsgi.call import LIST_ITERATOR, TUPLE_ITERATOR, WsgiApp, WsgiCall, iterate
from cavalcade.apps.wsgi.files import FileWrapper, maybe_span
from cavalcade.apps.wsgi.headers import as_bytes
from cavalcade.wire.sink import Head

log = logging.getLogger("cavalcade")

BytesIO = io.BytesIO
set_running_loop = asyncio._set_running_loop
TURN_BYTES = limits.JOIN_BYTES


class InlineCall(WsgiCall):
    """One request whose app runs in the loop."""

    chunks: list[bytes]  # of the request body, where there is one
    held: list[bytes]  # pieces that end a response of known length: they wait for the end of the iteration

    def __init__(self, service: WsgiApp, stream: Stream, head: Head, template: dict[str, Any]) -> None:
        self.take(service, stream, head, template)
        self.whole = self.body_length == 0
        if not self.whole:
            self.chunks = []
        self.begun = False
        self.received = 0
        self.file: Any = None  # the request body, where it is large
        self.result: Any = None  # what the app has returned, while it is iterated
        self.pieces: Any = None
        self.given = 0
        self.waiting = False  # for the client, or for the next turn

    # -- the request ---------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Call the app, if its request is whole."""
        self.serving.running[self] = None
        if self.gone:
            self.finish()
        elif self.whole:
            self.run()
        elif self.awaits_continue:
            # PEP 3333 lets a server say 100 Continue before the app asks; here nobody could, once the app runs.
            self.stream.want_body()

    def feed_body(self, chunk: bytes) -> int:
        """A piece of the request body. It is always taken."""
        self.received += len(chunk)
        if self.file is None:
            self.chunks.append(chunk)
            if self.received > limits.WSGI_BODY_BYTES:
                self.spool()
        else:
            self.store(chunk)
        return 0

    def feed_end(self) -> None:
        """The request body is whole."""
        self.whole = True
        if self in self.serving.running and not self.begun and self.sent == NOTHING:
            self.run()

    def spool(self) -> None:
        """The body is large: into a file with it."""
        body = b"".join(self.chunks)
        self.chunks = []
        try:
            self.file = tempfile.TemporaryFile(prefix="cavalcade-")  # noqa: SIM115  the app reads it, and `let_go` closes it
        except OSError as error:
            self.refuse_body(error)
            return
        self.store(body)

    def store(self, chunk: bytes) -> None:
        if self.sent != NOTHING:
            return
        if 0 < self.service.spool_bytes < self.received:
            log.error("%s: the request body is over %d bytes (limit_request_body)", self.request_line(), self.service.spool_bytes)
            self.drop(413, "Content Too Large")
            return
        try:
            self.file.write(chunk)
        except OSError as error:
            self.refuse_body(error)

    def refuse_body(self, error: OSError) -> None:
        log.error("%s: the request body cannot be kept in a file: %s", self.request_line(), error)
        self.drop(500, "Internal Server Error")

    def drop(self, status: int, text: str) -> None:
        """End without the app."""
        self.finish()
        self.let_go()
        self.sent = NOTHING
        self.stream.fail(status, text)
        self.sent = COMPLETE

    # -- the app -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Call the app."""
        self.begun = True
        environ = self.environ
        if self.body_length == 0:
            environ["wsgi.input"] = BytesIO()
        else:
            if self.body_length == -1:
                # RFC 3875 section 4.1.2: the length after the transfer coding is removed, which is done.
                environ["CONTENT_LENGTH"] = str(self.received)
                environ.pop("HTTP_TRANSFER_ENCODING", None)
            if self.file is None:
                environ["wsgi.input"] = BytesIO(b"".join(self.chunks))
                self.chunks = []
            else:
                self.file.seek(0)
                environ["wsgi.input"] = self.file
        self.enter(self.call_app)

    def enter(self, work: Any) -> None:
        """Let the app work as if there were no loop: sync code asks whether one runs, and refuses to block it. That is meant here.

        In one context for all requests, as a thread has it; a frontend of contextvars may keep what is expensive there.
        """
        loop = self.serving.loop
        set_running_loop(None)
        try:
            self.service.context.run(work)
        finally:
            set_running_loop(loop)

    def call_app(self) -> None:
        """Call the app, and send what it returns."""
        try:
            result = self.service.app(self.environ, self.start_response)
            kind = type(result)
            if (kind is list or kind is tuple) and self.sent == NOTHING:
                body = result[0] if len(result) == 1 else b"".join(result)
                self.send_whole(body if type(body) is bytes else as_bytes(body))
                return
            self.result = result
            if kind is FileWrapper and self.sent == NOTHING and self.maybe_send_file(result.filelike):
                self.close_result()
                self.end()
                return
            self.pieces = iterate(result)
            self.held = []
        except BaseException as error:  # noqa: BLE001  the border to the app: whatever it raises, sys.exit() too, ends here and is logged
            self.fail(error)
            return
        self.step()

    def send_whole(self, body: bytes) -> None:
        """The response, where all of its body is here. Raises `AppProtocolError`."""
        size = len(body)
        self.check_piece(size)
        if self.gone:
            self.end()
            return
        self.start_stream(size)
        self.stream.write(body, False)
        self.end()

    def step(self) -> None:
        """Send the next pieces, until they end, the client does not take them, or others should have their turn."""
        try:
            if self.next_pieces():
                self.send_last()
            else:
                return
        except BaseException as error:  # noqa: BLE001  the border to the app
            self.fail(error)
            return
        self.close_result()
        self.end()

    def next_pieces(self) -> bool:
        """Send pieces; True at their end."""
        pieces = self.pieces
        kind = type(pieces)
        if self.sent == NOTHING and (kind is LIST_ITERATOR or kind is TUPLE_ITERATOR):
            self.held = [piece if type(piece) is bytes else as_bytes(piece) for piece in pieces]
            self.given = len(b"".join(self.held))
            return True
        turn = 0
        began = time.monotonic()
        for piece in pieces:
            if self.gone:
                return True
            if type(piece) is not bytes:
                piece = as_bytes(piece)
            size = len(piece)
            if not size:
                continue
            self.given += size
            self.check_piece(self.given)
            if self.given == self.length:
                self.held.append(piece)  # the last, or the app gives too much
                continue
            self.send_piece(piece)
            turn += size
            if self.bodiless:
                self.given = -1  # nobody will see the rest, and how much it is nobody knows
                return True
            if self.stream.write_paused or turn > TURN_BYTES or time.monotonic() - began > limits.WSGI_TURN_S:
                self.wait()
                return False
        return True

    def send_piece(self, piece: bytes) -> None:
        if self.sent == NOTHING:
            self.head_sent = True
            self.start_stream(-1)
        self.stream.write(piece, True)
        self.sent = BODY

    def send_last(self) -> None:
        """The iteration is over. Raises `AppProtocolError` where there is no response to end."""
        if self.gone:
            return
        self.check_piece(self.given)
        body = b"".join(self.held)
        self.held = []
        if self.sent == NOTHING:
            self.head_sent = True
            self.start_stream(self.given)
        self.stream.write(body, False)
        self.sent = COMPLETE

    def wait(self) -> None:
        """Go on when the client has taken enough, and others had their turn."""
        self.waiting = True
        if self.stream.write_paused:
            self.stream.wait_writable().add_done_callback(self.resume)
        else:
            self.serving.loop.call_soon(self.resume, None)

    def resume(self, ready: object) -> None:
        self.waiting = False
        if self.pieces is None:
            return
        if self.gone:
            self.enter(self.close_result)
            self.end()
        else:
            self.enter(self.step)

    def write(self, data: Any) -> None:
        """The callable that `start_response` returns. Here nothing can wait for the client, so what it has not taken stays in memory."""
        body = data if type(data) is bytes else as_bytes(data)
        if self.gone or not body:
            return
        self.given += len(body)
        self.check_piece(self.given)
        self.send_piece(body)

    def maybe_send_file(self, filelike: Any) -> bool:
        """Send a file as it is. False where it has to be read."""
        span = maybe_span(filelike) if self.status and (self.method == "HEAD" or not self.bodiless) else None
        if span is None:
            return False
        count = span.count if self.length < 0 else min(span.count, self.length)
        self.head_sent = True
        if self.gone:
            os.close(span.fd)
            return True
        self.start_stream(count)
        if count > limits.JOIN_BYTES and not self.bodiless:
            self.stream.send_file(span.fd, span.offset, count)
            return True
        data = b"" if self.bodiless else os.pread(span.fd, count, span.offset)
        os.close(span.fd)
        self.stream.write(data, False)
        return True

    # -- the end -------------------------------------------------------------------------------------------------------------

    def close_result(self) -> None:
        """PEP 3333: whatever happens, an iterable that has a `close` has it called."""
        result = self.result
        self.result = None
        self.pieces = None
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:  # noqa: BLE001  the border to the app
                self.log_failure(error, self.sent == COMPLETE)

    def fail(self, error: BaseException) -> None:
        """The app raised, or broke the rules."""
        complete = self.sent == COMPLETE
        if not self.gone or not is_disconnect(error):
            self.log_failure(error, complete)
        if self.result is not None:
            self.close_result()
        if not complete and not self.gone:
            self.stream.fail(500, "Internal Server Error")
        self.end()

    def end(self) -> None:
        self.finish()
        self.let_go()

    def let_go(self) -> None:
        """Nothing of the request is needed any more."""
        if self.file is not None:
            try:
                self.file.close()
            except OSError:  # what it could not write, nobody will read
                pass

    # -- the connection's side -------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        """The client is gone. Either the app does not run, or it is what has just written to the connection."""
        self.gone = True
        if not self.begun:
            self.end()
        # else: `resume` will see it, which a connection that ends wakes, or `next_pieces`

    def cancel(self) -> None:
        """The time is up. The app does not run now: it had not begun, or is between two pieces."""
        if self.begun:
            self.stream.cut()
            self.leave()
        else:
            self.drop(503, "Service Unavailable")

    def time_out(self) -> bool:
        if not self.begun:
            self.drop(504, "Gateway Timeout")
            return True
        answered = self.stream.fail(504, "Gateway Timeout")
        self.leave()
        return answered

    def leave(self) -> None:
        """The app is between two pieces, and is asked for no more."""
        self.gone = True
        if self.pieces is not None:
            self.enter(self.close_result)
        self.end()
