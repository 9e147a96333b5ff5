"""One WebSocket and its app: the `receive` and `send` of ASGI WebSocket (spec 2.5).

It begins like a request, on a `Stream`. The app denies it, which is a plain response, or accepts it: then the stream is switched, and
what is left of it is a `Pipe` for the frames of the engine (wire/ws.py). The carrier may be HTTP/1.1 or HTTP/2; nothing here knows.

What the app sends is collected, and written when it waits for the client, or at the end of the turn of the loop: many messages, one
write. What the client sends is read ahead only so far; then the client waits.

This file is plain Python and, compiled with the websocket.pxd beside it, an extension module. No `async def` in it: those are in
waits.py.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cavalcade import limits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.asgi import waits
from cavalcade.apps.asgi.exchange import DONE, Exchange
from cavalcade.apps.asgi.order import (
    ACCEPT,
    BODY,
    CLOSE,
    CLOSED,
    COMPLETE,
    DENY,
    NOTHING,
    OPEN,
    SEND,
    START,
    STARTED,
    WEBSOCKET_EXPECTED,
    WEBSOCKET_LEGAL,
    violation,
)
from cavalcade.apps.stream import Pipe, Serving, Stream
from cavalcade.apps.tasks import end_wait
from cavalcade.board.ledger_words import BYTES_RECEIVED, BYTES_SENT, WEBSOCKET_RECEIVED, WEBSOCKET_SENT
from cavalcade.errors import AppProtocolError
from cavalcade.wire import ws_handshake
from cavalcade.wire.sink import Head
from cavalcade.wire.ws import WebSocketEngine, WebSocketRules

log = logging.getLogger("cavalcade")

# What the library itself has to say: its errors, but not that a connection has opened or closed.
_library_log = logging.getLogger("cavalcade.websockets")
_library_log.setLevel(logging.WARNING)

NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR = 1000, 1005, 1006, 1011

JOIN_BYTES = limits.JOIN_BYTES

# These are the server's to send; the answer to a handshake has no body.
_OURS = (b"connection", b"upgrade", b"transfer-encoding", b"content-length")


def open_call(serving: Serving, stream: Stream, template: dict[str, Any], head: Head, *, keyed: bool = True) -> WebSocketExchange:
    """The call for a request that asks for a WebSocket; `keyed` is that of `ws_handshake.read`. Raises `PeerError` if it may not be one."""
    rules = serving.websocket_rules
    assert rules is not None
    if serving.websocket_serving is not None:
        serving = serving.websocket_serving(head)
    handshake = ws_handshake.read(head, deflate=rules.deflate, keyed=keyed)
    scope = asgi_scope.build_websocket(serving, template, head, handshake.subprotocols)
    return WebSocketExchange(serving, stream, scope, handshake, rules)


class WebSocketExchange(Exchange):
    """Between one app call and one WebSocket. The `Pipe` feeds it, the app drains it."""

    def __init__(
        self, serving: Serving, stream: Stream, scope: dict[str, Any], handshake: ws_handshake.Handshake, rules: WebSocketRules
    ) -> None:
        Exchange.__init__(self, serving, stream, scope, False)
        self.rules = rules
        self.offered = list(handshake.subprotocols)  # the scope's is the app's to change
        self.answer = handshake.fields
        self.engine = WebSocketEngine(rules, handshake.extensions, _library_log)
        self.messages = self.engine.messages
        self.messages.append({"type": "websocket.connect"})
        self.pipe: Pipe | None = None
        self.code = 0  # what the app is told when it is over; 0 while it is not
        self.reason = ""
        self.lost = False  # the transport is gone
        self.leaving = False
        self.heard = False  # something came since the last sweep
        self.pinged = False
        self.turns = 0  # of the sweep, since something last happened
        self.flush_due = False
        self.starved = False  # the app takes less than the client sends: reading is paused
        self.choked = False  # the client takes less than it asks for
        serving.websockets.add(self)

    def begin(self) -> None:
        """Call the app, which runs at once, up to where it first waits: it will, for the client."""
        serving = self.serving
        serving.running[self] = None
        self.task = serving.starter.start(waits.run(self), serving.context.copy())

    # -- the app's side ------------------------------------------------------------------------------------------------------

    def send(self, message: Any) -> Any:
        """ASGI `send`. Raises `AppProtocolError` on what the order table does not allow, `OSError` when the client is gone."""
        try:
            kind = message["type"]
            legal = WEBSOCKET_LEGAL[self.sent]
            step = legal.get(kind, 0)
        except (TypeError, KeyError):
            raise violation(self.sent, message, WEBSOCKET_EXPECTED) from None
        if step == 0:
            raise violation(self.sent, message, WEBSOCKET_EXPECTED)
        if step != SEND:
            return self.send_rest(step, message)
        text = message.get("text")
        data = message.get("bytes")
        if self.gone:
            raise waits.ClientDisconnected("the WebSocket is closed")
        engine = self.engine
        self.serving.ledger.add(WEBSOCKET_SENT, 1)
        if type(text) is str and data is None:
            try:
                engine.send_text(text)
            except UnicodeEncodeError as error:
                raise AppProtocolError(f"text with a lone surrogate at {error.start}, which UTF-8 cannot express") from None
        elif type(data) is bytes and text is None:
            engine.send_binary(data)
        else:
            self.send_unusual(text, data)
        if engine.out_bytes > JOIN_BYTES:
            self.flush()
        elif not self.flush_due:
            self.flush_due = True
            self.serving.loop.call_soon(self.flush)
        pipe = self.pipe
        if pipe is not None and pipe.write_paused:
            return waits.pipe_writable(self, pipe)
        return DONE

    def send_unusual(self, text: Any, data: Any) -> None:
        """A message with other types in it than the usual ones, if it is one."""
        if text is not None and data is not None:
            raise AppProtocolError("a websocket.send with both text and bytes")
        if isinstance(text, str):
            self.engine.send_text(str(text))
        elif isinstance(data, bytes | bytearray | memoryview):
            self.engine.send_binary(bytes(data))
        elif text is not None:
            raise AppProtocolError(f"the text of a websocket.send is {type(text).__name__}, not str")
        elif data is not None:
            raise AppProtocolError(f"the bytes of a websocket.send are {type(data).__name__}, not bytes")
        else:
            raise AppProtocolError("a websocket.send with neither text nor bytes")

    def send_rest(self, step: int, message: Any) -> Any:
        """Everything but websocket.send."""
        if step == CLOSE:
            code, reason = _read_close(message)
            self.close(code, reason)  # harmless where the client was faster: it is closed, as the app wants it
            self.sent = CLOSED
            return DONE
        if self.gone:
            raise waits.ClientDisconnected("the client is gone")
        if step == ACCEPT:
            self.accept(message)
        elif step == DENY:
            _read_close(message)
            self.stream.start(403, [(b"content-length", b"0")])
            self.sent = STARTED
            self.deny(b"", False)
        elif step == START:
            self.stream.start(message.get("status"), message.get("headers", ()))
            self.sent = STARTED
        else:
            body = message.get("body", b"")
            if not isinstance(body, bytes | bytearray | memoryview):
                raise AppProtocolError(f"the body is {type(body).__name__}, not bytes")
            self.deny(bytes(body), bool(message.get("more_body", False)))
            if self.stream.write_paused:
                return waits.writable(self)
        return DONE

    def accept(self, message: Any) -> None:
        answer = list(self.answer)
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            if subprotocol not in self.offered:
                # RFC 6455 section 4.2.2: it must be one of those that the client has named, which would fail the connection else.
                offered = ", ".join(self.offered) or "none"
                raise AppProtocolError(f"subprotocol {subprotocol!r} was not offered by the client (it offered: {offered})")
            answer.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        try:
            for name, value in message.get("headers") or ():
                lower = name.lower()
                if lower.startswith(b"sec-websocket-"):
                    where = "; name it in 'subprotocol'" if lower == b"sec-websocket-protocol" else ""
                    raise AppProtocolError(f"header {name!r} of websocket.accept is the server's to send{where}")
                if lower not in _OURS:
                    answer.append((name, value))
        except (AttributeError, TypeError, ValueError) as error:
            raise AppProtocolError("the headers of websocket.accept are not a list of (name, value) pairs of byte strings") from error
        self.pipe = pipe = self.stream.switch(answer)
        self.sent = OPEN
        self.turns = 0
        pipe.start_reading()

    def deny(self, body: bytes, more: bool) -> None:
        self.stream.write(body, more)
        self.sent = BODY if more else COMPLETE
        if not more:
            self.over(ABNORMAL, "")
            self.serving.websockets.discard(self)

    def take_news(self) -> dict[str, Any] | None:
        """The next message for the app, if there is one."""
        messages = self.messages
        if messages:
            message = messages.popleft()
            if self.starved and not messages:
                self.serving.loop.call_soon(self.go_on)
            kind = type(message)
            if kind is str:
                self.serving.ledger.add(WEBSOCKET_RECEIVED, 1)
                return {"type": "websocket.receive", "text": message}
            if kind is bytes:
                self.serving.ledger.add(WEBSOCKET_RECEIVED, 1)
                return {"type": "websocket.receive", "bytes": message}
            return message  # type: ignore[no-any-return]
        if self.code:
            return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}
        return None

    def wait_news(self) -> asyncio.Future[None]:
        """Done when it is worth while to look again. The app has done what it could: what it has sent goes out now."""
        if self.engine.out:
            self.flush()
        waiter = self.add_news_waiter()
        if self.leaving:
            self.leave_if_idle()
        return waiter

    def is_complete(self) -> bool:
        return self.sent == COMPLETE or self.sent == CLOSED

    # -- the connection's side ---------------------------------------------------------------------------------------------

    def feed_data(self, data: bytes) -> None:
        """What the client has sent."""
        self.heard = True
        self.serving.ledger.add(BYTES_RECEIVED, len(data))
        self.engine.feed(data)
        self.look()
        news = self.news
        if news is not None and self.messages:
            # The app goes on at once, and when it waits again its answer has been written: that saves two turns of the loop.
            self.news = None
            self.flush_due = True
            try:
                for waiter in news:
                    end_wait(waiter, self.serving.loop)
            finally:
                self.flush()

    def go_on(self) -> None:
        """The app has taken all that was read ahead."""
        if self.starved and not self.messages:
            self.starved = False
            self.engine.go_on()
            self.look()
            if self.news is not None and self.messages:
                self.wake()
            if not self.starved and not self.choked and self.pipe is not None and not self.lost:
                self.pipe.resume_reading()

    def look(self) -> None:
        """What has the engine made of it?"""
        engine = self.engine
        if engine.full and not self.starved:
            self.starved = True
            if self.pipe is not None and not self.lost:
                self.pipe.pause_reading()
        if engine.out and not self.flush_due:
            # An answer of the engine's own, to a ping for example.
            self.flush()
            if self.pipe is not None and self.pipe.write_paused and not self.choked:
                self.choke(self.pipe)
        if engine.ended:
            self.shut()
        elif self.lost and not self.starved and not self.code:
            self.over(ABNORMAL, "")

    def choke(self, pipe: Pipe) -> None:
        """The client pings, and does not take our pongs: read no more of it until it does."""
        self.choked = True
        pipe.pause_reading()
        pipe.wait_writable().add_done_callback(self.unchoke)

    def unchoke(self, waiter: asyncio.Future[None]) -> None:
        self.choked = False
        if not self.starved and not self.lost and self.pipe is not None:
            self.pipe.resume_reading()

    def flush(self) -> None:
        """Write what was collected."""
        self.flush_due = False
        engine = self.engine
        out = engine.out
        pipe = self.pipe
        if not out or pipe is None:
            return
        size = engine.out_bytes
        engine.out = []
        engine.out_bytes = 0
        if self.lost:
            return
        self.serving.ledger.add(BYTES_SENT, size)
        if len(out) == 1:
            pipe.write(out[0])
        elif size <= JOIN_BYTES:
            pipe.write(b"".join(out))
        else:
            for piece in out:  # a large message is not copied
                pipe.write(piece)

    def disconnect(self) -> None:
        """The client is gone. What it has sent before is still read, with the Close that may be in it."""
        if self.lost:
            return
        self.lost = True
        self.gone = True
        self.serving.websockets.discard(self)
        if self.pipe is None or not self.starved:
            self.over(ABNORMAL, "")

    def shut(self) -> None:
        """The engine has come to its end: both sides have sent a Close, or the client has broken a rule."""
        engine = self.engine
        self.over(engine.close_code, engine.close_reason)
        pipe = self.pipe
        if pipe is not None and not self.lost:
            self.serving.websockets.discard(self)
            self.flush()
            if engine.fault:
                pipe.complain(f"it was sent close code {engine.close_code}: {engine.fault}")
            pipe.close(bool(engine.fault))

    def over(self, code: int, reason: str) -> None:
        """Nothing more can be sent: the app is told with this code, unless it knows already."""
        self.gone = True
        if not self.code:
            self.code = code
            self.reason = reason
        self.wake()

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake from our side, if the WebSocket is open. Raises `AppProtocolError` as the engine does."""
        if self.sent == OPEN and not self.gone:
            self.engine.close(code, reason)
            self.flush()
            self.over(code, reason)
            if self.starved:
                self.serving.loop.call_soon(self.go_on)  # what was not read yet is thrown away, the client's Close is behind it

    # -- time and leaving ----------------------------------------------------------------------------------------------------

    def on_sweep(self) -> None:
        pipe = self.pipe
        if pipe is None:
            self.turns += 1
            if self.sent == NOTHING and 0 < self.rules.accept_turns < self.turns:
                self.give_up_accepting()
        elif self.engine.closing:
            # While the client does not even take our Close, the write timeout is what it is up against.
            if not pipe.write_paused:
                self.turns += 1
                if self.turns > self.rules.close_turns:
                    pipe.complain(f"it did not answer our Close within {limits.WS_CLOSE_TIMEOUT_S:g} s")
                    pipe.abort()
        elif self.heard or self.starved or self.choked:
            self.heard = False
            self.pinged = False
            self.turns = 0
        else:
            self.turns += 1
            self.look_alive(pipe)

    def look_alive(self, pipe: Pipe) -> None:
        """Not a byte has come in this turn of the sweep."""
        rules = self.rules
        if not self.pinged:
            if 0 < rules.ping_turns <= self.turns:
                self.pinged = True
                self.turns = 0
                self.engine.ping()
                self.flush()
        elif 0 < rules.pong_turns < self.turns:
            pipe.complain(f"it did not answer a ping within {rules.pong_s:g} s (ws_ping_timeout)")
            self.close(INTERNAL_ERROR, "keepalive ping timeout")
            self.serving.websockets.discard(self)
            pipe.close(True)

    def give_up_accepting(self) -> None:
        log.warning("%s: neither accepted nor denied within %g s (ws_accept_timeout)", self.request_line(), self.rules.accept_s)
        self.serving.websockets.discard(self)
        self.stream.fail(504, "Gateway Timeout")
        self.sent = COMPLETE
        self.over(ABNORMAL, "")
        self.cancel()

    def drain(self) -> None:
        self.leaving = True
        self.leave_if_idle()

    def leave_if_idle(self) -> None:
        """Close if the app has answered all that it was given, as far as can be seen: it waits, and nothing is there for it."""
        if self.news is not None and not self.messages and not self.starved and any(not waiter.done() for waiter in self.news):
            self.leave()

    def leave(self) -> None:
        code = self.serving.leave_code
        self.close(code, "the server stops" if code == 1001 else "the server restarts, connect again")

    def notice(self) -> None:
        """The worker has waited long enough for this one to be idle."""
        self.leave()

    # -- the end of the app --------------------------------------------------------------------------------------------------

    def app_returned(self) -> None:
        self.finish()
        if self.sent == OPEN:
            self.close(NORMAL, "")
        elif not self.is_complete() and not self.gone:
            if self.sent == NOTHING:
                what = "the app returned without accepting or denying the WebSocket"
            else:
                what = "the app returned in the middle of its response to a WebSocket that it denied"
            log.error("%s: %s", self.request_line(), what)
            self.stream.fail(500, "Internal Server Error")
        self.let_go()

    def app_raised(self, error: BaseException) -> None:
        self.finish()
        cancelled = isinstance(error, asyncio.CancelledError)
        if self.gone and (cancelled or waits.is_disconnect(error)):
            pass  # it was told that the client is gone, and left
        elif not cancelled:
            when = " after the WebSocket was closed" if self.gone or self.is_complete() else ""
            log.error("%s: the app failed%s", self.request_line(), when, exc_info=waits.as_the_app_saw(error))
            self.end_open(INTERNAL_ERROR, "internal error", 500)
        elif self.leaving:
            self.leave()
            self.end_open(self.serving.leave_code, "", 503)
        else:
            log.warning("%s: cancelled before the WebSocket was closed", self.request_line())
            self.end_open(INTERNAL_ERROR, "internal error", 503)
        self.let_go()

    def end_open(self, code: int, reason: str, status: int) -> None:
        if self.sent == OPEN:
            self.close(code, reason)
        elif not self.is_complete() and not self.gone:
            self.stream.fail(status, "Internal Server Error" if status == 500 else "Service Unavailable")

    def let_go(self) -> None:
        """Tasks that the app has left behind may still hold `send`."""
        if self.pipe is None:
            self.serving.websockets.discard(self)
            self.sent = COMPLETE
        else:
            self.sent = CLOSED
        self.over(self.code or ABNORMAL, self.reason)
        # Nobody reads any more: what was read ahead, and what still comes, is thrown away, or the client's Close would never be seen.
        self.messages.clear()
        self.go_on()

    def progress(self) -> int | None:
        return None  # it has its own limits: `ws_accept_timeout`, pings

    def request_line(self) -> str:
        try:
            return f"WebSocket {asgi_scope.describe_target(self.scope)}"
        except (KeyError, TypeError, AttributeError):
            return "a WebSocket whose scope the app has changed"


def _read_close(message: Any) -> tuple[int, str]:
    """The code and reason of a websocket.close. Raises `AppProtocolError`; whether the code may be sent is the engine's to say."""
    code = message.get("code", NORMAL)
    reason = message.get("reason") or ""
    if code is None:
        code = NORMAL
    if not isinstance(code, int) or isinstance(code, bool):
        raise AppProtocolError(f"close code {code!r} is {type(code).__name__}, not int")
    if not isinstance(reason, str):
        raise AppProtocolError(f"the reason of a websocket.close is {type(reason).__name__}, not str")
    return int(code), reason
