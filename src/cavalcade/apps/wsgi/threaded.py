"""A WSGI app that runs in a thread of the worker's, while the loop moves the bytes.

A thread is taken when there is something to do for it: when the request is here, or so much of its body that waiting for more would
hold too much memory. It is given back when the app has returned: what the client has not taken by then is sent by the loop. In
between it waits in two places only, both bounded: for more of the body in `read`, and for the client when too much of the response
is on its way. A client that leaves wakes it in both.

Who writes what: the loop feeds the body in, the thread takes it, under one lock, which exists only where a body streams. The response
goes the other way through a deque, and each side has a counter of its own; the thread then tells the pool, and the loop looks
(`advance`). What decides whether a call that nobody runs yet is begun or dropped is told in `take_up`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from cavalcade import limits
from cavalcade.apps.asgi.order import BODY, COMPLETE, NOTHING
from cavalcade.apps.asgi.waits import ClientDisconnected, is_disconnect
from cavalcade.apps.span import Span
from cavalcade.apps.stream import Stream
from cavalcade.apps.wsgi.body import Arriving, arriving
from cavalcade.apps.wsgi.call import LIST_ITERATOR, TUPLE_ITERATOR, WsgiCall, iterate
from cavalcade.apps.wsgi.files import FileWrapper, maybe_span
from cavalcade.apps.wsgi.headers import as_bytes
from cavalcade.wire.sink import Head

if TYPE_CHECKING:
    from cavalcade.apps.wsgi.service import Service

log = logging.getLogger("cavalcade")

# Where a call is.
ARRIVING, QUEUED, RUNNING, RETURNED = range(4)


class ThreadCall(WsgiCall):
    """One request whose app runs in a thread."""

    def __init__(self, service: Service, stream: Stream, head: Head, template: dict[str, Any]) -> None:
        self.take(service, stream, head, template)
        assert service.pool is not None
        self.pool = service.pool
        self.phase = ARRIVING
        self.thread = 0  # the ident of the one that runs it
        # the request body
        self.continue_due = head.expects_continue
        self.body_ended = head.length == 0
        self.chunks: deque[bytes] = deque()
        self.unread = 0
        self.full = False  # the connection reads no more until the app does
        self.input: Arriving | None = None
        self.news: threading.Condition | None = None  # there when somebody may wait for the other side
        # the response
        self.out: deque[bytes] = deque()
        self.given = 0  # bytes, counted by the thread ...
        self.taken = 0  # ... and of them those that the connection has, counted by the loop
        self.span: Span | None = None
        self.complete = False  # the app has given its whole response
        self.failed = False
        self.draining_out = False  # `advance` is called when the client has taken enough

    # -- the connection's side, in the loop --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Queue for a thread, if there is something to do for it."""
        self.serving.running[self] = None
        if self.gone:
            self.finish()
        elif self.body_ended or self.continue_due:
            self.queue()

    def queue(self) -> None:
        """There is something to do for a thread."""
        environ = self.environ
        if self.body_ended:
            self.continue_due = False
            chunks = self.chunks
            if chunks and self.body_length == -1:
                # RFC 3875 section 4.1.2: the length after the transfer coding is removed, which is done.
                environ["CONTENT_LENGTH"] = str(self.unread)
                environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ["wsgi.input"] = io.BytesIO(b"".join(chunks)) if chunks else io.BytesIO()
            chunks.clear()
        else:
            self.news = threading.Condition()
            environ["wsgi.input"], self.input = arriving(self)
        self.phase = QUEUED
        self.pool.submit(self)

    def feed_body(self, chunk: bytes) -> int:
        """A piece of the request body; returns how many bytes the app has not taken, once it has been called."""
        news = self.news
        if news is None:
            self.chunks.append(chunk)
            self.unread += len(chunk)
            if self.unread <= limits.WSGI_BODY_BYTES or self not in self.serving.running:
                return 0
            self.queue()
            self.full = True
            return self.unread
        with news:
            self.chunks.append(chunk)
            self.unread += len(chunk)
            self.full = self.unread > limits.BODY_BUFFER_BYTES
            news.notify_all()
            return self.unread

    def feed_end(self) -> None:
        """The request body is whole."""
        news = self.news
        if news is not None:
            with news:
                self.body_ended = True
                news.notify_all()
            return
        self.body_ended = True
        if self.phase == ARRIVING and self in self.serving.running:
            self.queue()

    def disconnect(self) -> None:
        """The client is gone."""
        self.gone = True
        if self.phase < RUNNING:
            self.finish()  # nobody has begun with it, and nobody will: see `take_up`
        elif self.phase == RETURNED:
            self.finish()
        else:
            self.wake()

    def cancel(self) -> None:
        """The time is up. What runs in a thread cannot be stopped there; but it is answered, and wakes where it waits."""
        if self.phase == RUNNING and not self.complete:
            self.gone = True
            if self.sent == NOTHING:
                self.stream.fail(503, "Service Unavailable")
            else:
                self.stream.cut()
            self.wake()
            return
        self.gone = True
        if self.sent == NOTHING:
            self.stream.fail(503, "Service Unavailable")
        elif self.sent != COMPLETE:
            self.stream.cut()
        if self.phase != RUNNING:
            self.finish()

    def time_out(self) -> bool:
        """What runs in a thread cannot be stopped there; but the client is answered, and it wakes where it waits for that one."""
        answered = self.stream.fail(504, "Gateway Timeout")
        self.gone = True
        if self.phase == RUNNING:
            self.wake()
        else:
            self.finish()
        return answered

    def wake(self) -> None:
        """Whoever waits in the app's threads, look again."""
        news = self.news
        if news is not None:
            with news:
                news.notify_all()

    def want_body(self) -> None:
        if not self.gone and self.sent != COMPLETE:
            self.stream.want_body()

    def advance(self) -> None:
        """The app has given something: pass it on as far as the client takes it."""
        complete = self.complete  # before the deque is looked at: what is in it then is all of it
        returned = self.phase == RETURNED
        if not self.gone and self.sent != COMPLETE:
            try:
                self.send_out(complete)
            except Exception as error:  # noqa: BLE001  logged. The border: whatever the head or body is, the loop goes on
                self.log_failure(error, False)
                self.stream.fail(500, "Internal Server Error")
                self.gone = True
                self.wake()
        if self.gone:
            self.out.clear()
        if returned and (self.gone or self.sent == COMPLETE):
            self.finish()

    def send_out(self, complete: bool) -> None:
        """Pass on what there is. Raises `AppProtocolError`."""
        stream = self.stream
        out = self.out
        if self.draining_out:
            return
        if self.failed:
            self.sent_fail()
            return
        while out or complete:
            if self.sent != NOTHING and stream.write_paused:
                self.draining_out = True
                stream.wait_writable().add_done_callback(self.on_writable)
                break
            body = take_some(out)
            last = complete and not out and self.span is None
            if self.sent == NOTHING:
                self.start_stream(self.given if last else -1 if self.span is None else self.span.count)
            if self.bodiless:
                body = b""  # the stream would take its size for that of the whole
            if last:
                self.sent = COMPLETE
                self.taken += len(body)
                stream.write(body, False)
                break
            if body:
                self.sent = BODY
                stream.write(body, True)
                self.taken += len(body)
            if complete and not out:
                self.send_span()
                break
        self.let_thread_go_on()

    def sent_fail(self) -> None:
        self.out.clear()
        self.stream.fail(500, "Internal Server Error")
        self.sent = COMPLETE

    def send_span(self) -> None:
        span = self.span
        assert span is not None
        self.span = None
        self.sent = COMPLETE
        self.stream.send_file(span.fd, span.offset, span.count)

    def let_thread_go_on(self) -> None:
        if self.news is not None and self.given - self.taken <= limits.WSGI_RESPONSE_BYTES:
            self.wake()

    def on_writable(self, ready: asyncio.Future[None]) -> None:
        self.draining_out = False
        self.advance()

    def finish(self) -> None:
        """The app has returned, and its response is with the connection."""
        WsgiCall.finish(self)
        if self.span is not None:
            os.close(self.span.fd)
            self.span = None
        self.out.clear()

    def left_behind(self) -> str:
        """Why it is still there after it was cancelled."""
        return "it runs in a thread, which cannot be cancelled, and is left behind"

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def take_up(self) -> bool:
        """Begin with this call, unless its client has left. In the thread.

        Each side writes first and reads then: the thread RUNNING and `gone`, the loop `gone` and the phase. So at least one of them sees
        the other, and a call that the loop takes for one that nobody has begun is not begun.
        """
        self.phase = RUNNING
        return not self.gone

    def run(self) -> None:
        """Call the app, and give what it returns to the loop. In the thread; never raises."""
        if not self.take_up():
            self.end()
            return
        self.thread = threading.get_ident()
        result: Any = None
        try:
            result = self.service.app(self.environ, self.start_response)
            self.give(result)
        except BaseException as error:  # noqa: BLE001  the border to the app: whatever it raises, sys.exit() too, ends here and is logged
            self.fail(error)
        close = getattr(result, "close", None)
        if close is not None:
            if self.complete or self.failed:
                self.pool.tell(self)  # whatever `close` does, the client has not to wait for it
            try:
                close()
            except BaseException as error:  # noqa: BLE001  the border to the app
                self.log_failure(error, self.complete)
        self.end()

    def end(self) -> None:
        """Nothing of the app's runs for this request any more."""
        self.environ = {}
        self.chunks.clear()
        if self.input is not None:
            self.input.let_go()
        self.phase = RETURNED
        self.pool.tell(self)

    def fail(self, error: BaseException) -> None:
        if not self.gone or not is_disconnect(error):
            self.log_failure(error, self.complete)
        self.failed = not self.complete

    def give(self, result: Any) -> None:
        """Give what the app has returned."""
        kind = type(result)
        if (kind is list or kind is tuple) and not self.head_sent:
            self.give_whole(result)
            return
        if kind is FileWrapper and not self.head_sent and self.maybe_give_file(result.filelike):
            return
        pieces = iterate(result)
        kind = type(pieces)
        if (kind is LIST_ITERATOR or kind is TUPLE_ITERATOR) and not self.head_sent:
            self.give_whole(list(pieces))
            return
        for piece in pieces:
            self.write(piece)
            if self.bodiless and self.head_sent:
                self.given = -1  # nobody will see the rest, and how much it is nobody knows
                break
        self.check_piece(self.given)
        self.complete = True

    def give_whole(self, pieces: list[Any] | tuple[Any, ...]) -> None:
        """All of the body is here, and nothing runs while it is taken."""
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if type(body) is not bytes:
            body = as_bytes(body)
        self.given = len(body)
        self.check_piece(self.given)
        if body:
            self.out.append(body)
        self.head_sent = True
        self.complete = True

    def write(self, data: Any) -> None:
        """A piece of the body; waits where the client is too far behind. Raises `ClientDisconnected`, `AppProtocolError`."""
        body = data if type(data) is bytes else as_bytes(data)
        if not body:
            return
        self.check_piece(self.given + len(body))
        if self.gone:
            raise ClientDisconnected("the client is gone")
        self.given += len(body)
        self.head_sent = True
        self.out.append(body)
        self.pool.tell(self)
        if self.given - self.taken > limits.WSGI_RESPONSE_BYTES and not self.bodiless:
            self.wait_for_client()

    def wait_for_client(self) -> None:
        news = self.news
        if news is None:
            news = self.news = threading.Condition()
        with news:
            while self.given - self.taken > limits.WSGI_RESPONSE_BYTES and not self.gone:
                news.wait()

    def maybe_give_file(self, filelike: Any) -> bool:
        """Have a file sent as it is. False where it has to be read."""
        span = maybe_span(filelike) if self.status and (self.method == "HEAD" or not self.bodiless) else None
        if span is None:
            return False
        count = span.count if self.length < 0 else min(span.count, self.length)
        if self.bodiless:
            os.close(span.fd)
            self.given = count
            self.head_sent = self.complete = True
            return True
        if count <= limits.JOIN_BYTES:
            data = os.pread(span.fd, count, span.offset)
            os.close(span.fd)
            self.give_whole([data])
            return True
        self.span = Span(span.fd, span.offset, count)
        self.head_sent = True
        self.complete = True
        return True

    def take_chunk(self) -> bytes:
        """The next piece of the request body; waits for it. b"" at the end. Raises `ClientDisconnected`."""
        news = self.news
        assert news is not None
        with news:
            while not self.chunks:
                if self.body_ended:
                    return b""
                if self.gone:
                    raise ClientDisconnected("the client left in the middle of its request body")
                if self.full or self.continue_due:
                    self.full = self.continue_due = False
                    self.pool.call(self.want_body)
                news.wait()
            chunk = self.chunks.popleft()
            self.unread -= len(chunk)
            if self.full and self.unread <= limits.BODY_BUFFER_BYTES // 2:
                self.full = False
                self.pool.call(self.want_body)
            return chunk


def take_some(out: deque[bytes]) -> bytes:
    """Pieces from the left, as many as make one good write."""
    if not out:
        return b""
    first = out.popleft()
    if not out:
        return first
    pieces = [first]
    size = len(first)
    while out and size + len(out[0]) <= limits.JOIN_BYTES:
        piece = out.popleft()
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
