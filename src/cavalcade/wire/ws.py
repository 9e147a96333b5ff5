"""The WebSocket engine (RFC 6455, with the compression of RFC 7692): bytes in, messages and bytes out.

How it works. What comes in is cut into frames here. The usual frame (a whole text or binary message, uncompressed, up to 64 KiB)
is read here as well; every other one goes to the Sans-I/O engine of the `websockets` library, one at a time, and what that makes of
it is picked up at once: fragments, compressed messages, pings, the close handshake, and whatever breaks a rule. So the library's
state is always that of a frame boundary, or of the one long frame that it is being fed in pieces.

Messages are read ahead only so far: up to `queue` of them, or `limits.WS_QUEUE_BYTES`. Then the rest stays unread (`full`), until the
app has taken them all and `go_on()` is called.

This file is plain Python and, compiled with the ws.pxd beside it, an extension module. No `async def` in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.extensions import Extension
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from cavalcade import limits
from cavalcade.errors import AppProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C extension for this interpreter
    from websockets.utils import apply_mask

# First bytes of a frame: FIN and the opcode.
TEXT, BINARY, PING = 0x81, 0x82, 0x89
MASKED = 0x80
CONTROL = 0x08  # this bit of an opcode marks a control frame
COMPRESSED = 0x40  # RSV1 (RFC 7692 section 6)

# Frame heads of short messages, by the length of their payload.
TEXT_HEADS = [bytes((TEXT, size)) for size in range(126)]
BINARY_HEADS = [bytes((BINARY, size)) for size in range(126)]
EMPTY_PING = bytes((PING, 0))

UNBOUNDED = 1 << 60


class WebSocketRules:
    """What holds for all WebSockets of one worker. Times are in turns of the sweep, so that a loop that stood still is no reason to think
    that a peer did."""

    def __init__(
        self,
        *,
        message_bytes: int = limits.WS_MESSAGE_BYTES,
        queue: int = limits.WS_QUEUE,
        deflate: bool = True,
        ping_s: float = limits.WS_PING_INTERVAL_S,
        pong_s: float = limits.WS_PING_TIMEOUT_S,
        accept_s: float = limits.WS_ACCEPT_TIMEOUT_S,
    ) -> None:
        self.message_bytes = message_bytes
        self.queue = queue
        self.deflate = deflate
        self.ping_s = ping_s
        self.pong_s = pong_s
        self.accept_s = accept_s
        self.ping_turns = _turns(ping_s)
        self.pong_turns = _turns(pong_s)
        self.accept_turns = _turns(accept_s)
        self.close_turns = _turns(limits.WS_CLOSE_TIMEOUT_S)


def _turns(seconds: float) -> int:
    return -int(-seconds // limits.SWEEP_S)


class WebSocketEngine:
    """One connection, from the moment it is open. Nothing here raises for what a peer does wrong: the engine closes, and `fault` says why.

    `messages` are those to be taken, text as str and binary as bytes; `out` is what has to be written. When `ended` is set, the
    connection is to be closed after that; `close_code` and `close_reason` are then those of the peer (1005 where it gave none), or, with
    a `fault`, those that were sent to it.
    """

    def __init__(self, rules: WebSocketRules, extensions: Sequence[Extension], logger: Any) -> None:
        self.message_bytes = rules.message_bytes
        self.queue = rules.queue
        self.queue_bytes = limits.WS_QUEUE_BYTES
        self.protocol = ServerProtocol(state=State.OPEN, max_size=rules.message_bytes, logger=logger)
        self.protocol.extensions = list(extensions)
        self.deflate: Extension | None = extensions[0] if extensions else None
        self.messages: deque[Any] = deque()
        self.queued = 0  # bytes in `messages`, and those taken since it was last empty
        self.full = False
        self.data = b""
        self.at = 0  # how far `data` has been read
        self.foreign = 0  # bytes still to come of the long frame that the library is reading
        self.fragments: bytearray | None = None  # the message that is not whole yet
        self.fragments_text = False
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.closing = False  # we have sent a Close and wait for the peer's
        self.ended = False
        self.close_code = 0
        self.close_reason = ""
        self.fault = ""

    # -- bytes in --------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self.ended:
            return
        if self.at < len(self.data):
            data = self.data[self.at :] + data
        self.data = data
        self.at = 0
        self.go_on()

    def go_on(self) -> None:
        """Read what is here, until there are messages enough."""
        data = self.data
        end = len(data)
        at = self.at
        messages = self.messages
        if not messages:
            self.queued = 0
        room = self.queue - len(messages)
        queued = self.queued
        if self.foreign:
            at = self.pass_on_more(data, end)
            if self.ended:
                self.data = b""
                return
            room = self.queue - len(messages)
            queued = self.queued
        while end - at > 1 and room > 0 and queued < self.queue_bytes:
            first = data[at]
            size = data[at + 1] - MASKED
            start = at + 6
            if size == 126 and end - at > 3:
                size = data[at + 2] << 8 | data[at + 3]
                start = at + 8
                if size < 126:
                    size = -1
            if (first != TEXT and first != BINARY) or size < 0 or size > self.message_bytes or self.fragments is not None or size == 127:
                at = self.pass_on(data, at, end)
                if at < 0:
                    at = -at - 1
                    break
                room = self.queue - len(messages)
                queued = self.queued
                continue
            stop = start + size
            if stop > end:
                break
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            if first == TEXT:
                try:
                    messages.append(payload.decode())
                except UnicodeDecodeError as error:
                    self.refuse_text(error)
                    return
            else:
                messages.append(payload)
            at = stop
            room -= 1
            queued += size
            self.queued = queued
        self.at = at
        self.full = room <= 0 or queued >= self.queue_bytes
        if self.closing:
            # RFC 6455 section 1.4: we have sent a Close; whatever still comes is answered by nobody.
            messages.clear()
            self.full = False
        if self.ended or at == end:
            self.data = b""
            self.at = 0

    def pass_on(self, data: bytes, at: int, end: int) -> int:
        """Give the frame at `at` to the library: whole, or what is here of a long one. Returns where the next one begins; where more of
        this one must come first, or none may follow, that is the complement."""
        first = data[at]
        second = data[at + 1]
        size = second & 127
        start = at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            start += width
            if start > end:
                return -at - 1
            size = int.from_bytes(data[at + 2 : start], "big")
            if size < 126 or (width == 8 and size < 65536):
                # RFC 6455 section 5.2: the minimal number of bytes must be used to encode the length.
                return self.fail(CloseCode.PROTOCOL_ERROR, "a payload length that is not encoded in the shortest way")
        if first & CONTROL and size > 125:
            return self.fail(CloseCode.PROTOCOL_ERROR, "control frame too long")  # said before all of it has come
        stop = start if second < MASKED else start + 4 + size
        if stop > end:
            if stop - at <= limits.WS_WHOLE_FRAME_BYTES and size <= self.message_bytes:
                return -at - 1
            self.foreign = stop - end
            stop = end
        self.protocol.receive_data(data[at:stop])
        self.pick_up()
        return -stop - 1 if self.ended else stop

    def pass_on_more(self, data: bytes, end: int) -> int:
        """More of the long frame that the library is reading."""
        stop = min(self.foreign, end)
        self.foreign -= stop
        self.protocol.receive_data(data[:stop] if stop < end else data)
        self.pick_up()
        return stop

    def pick_up(self) -> None:
        """What the library has made of the last bytes."""
        protocol = self.protocol
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            opcode = event.opcode
            if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                self.fragments_text = opcode is Opcode.TEXT
                if event.fin:
                    self.deliver(bytes(event.data))
                else:
                    # Put together at once: a flood of one-byte fragments must not become a flood of objects.
                    self.fragments = bytearray(event.data)
            elif opcode is Opcode.CONT:
                assert self.fragments is not None
                self.fragments += event.data
                if event.fin:
                    whole = bytes(self.fragments)
                    self.fragments = None
                    self.deliver(whole)
            elif opcode is Opcode.CLOSE and protocol.close_rcvd is not None:
                self.close_code = int(protocol.close_rcvd.code)
                self.close_reason = protocol.close_rcvd.reason
        self.collect()

    def collect(self) -> None:
        """What the library wants to have written, and whether this is the end."""
        protocol = self.protocol
        for piece in protocol.data_to_send():
            if piece:
                self.out.append(piece)
                self.out_bytes += len(piece)
        # After our Close the peer has nothing more to say, and answers it wherever it is: in the middle of a message too, where a control
        # frame may be (RFC 6455 section 5.4). The library takes that for a fault.
        answered = self.closing and protocol.close_rcvd is not None
        if protocol.parser_exc is not None and not self.fault and not answered:
            self.note_fault(str(protocol.parser_exc))
        if protocol.eof_sent:
            self.ended = True

    def deliver(self, payload: bytes) -> None:
        """A whole message of more than one frame, or compressed."""
        self.queued += len(payload)
        if not self.fragments_text:
            self.messages.append(payload)
            return
        try:
            self.messages.append(payload.decode())
        except UnicodeDecodeError as error:
            self.refuse_text(error)

    def refuse_text(self, error: UnicodeDecodeError) -> None:
        self.fail(CloseCode.INVALID_DATA, f"text that is not UTF-8: {error.reason} at position {error.start}")

    def fail(self, code: int, why: str) -> int:
        """End the connection for a rule that the peer broke (RFC 6455 section 7.1.7). Returns what `pass_on` does at the end."""
        self.protocol.fail(code, why)
        self.note_fault(why)
        self.collect()
        self.data = b""
        self.at = 0
        return -1

    def note_fault(self, why: str) -> None:
        self.fault = why
        sent = self.protocol.close_sent
        self.close_code = int(sent.code) if sent is not None else int(CloseCode.PROTOCOL_ERROR)
        self.close_reason = sent.reason if sent is not None else ""

    # -- bytes out -------------------------------------------------------------------------------------------------------

    def send_text(self, text: str) -> None:
        """Raises `UnicodeEncodeError` for a lone surrogate, which UTF-8 has no bytes for."""
        payload = text.encode()
        size = len(payload)
        if size < 126:
            self.out.append(TEXT_HEADS[size] + payload)
            self.out_bytes += size + 2
        else:
            self.send_long(TEXT, payload)

    def send_binary(self, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            self.out.append(BINARY_HEADS[size] + payload)
            self.out_bytes += size + 2
        else:
            self.send_long(BINARY, payload)

    def send_long(self, first: int, payload: bytes) -> None:
        size = len(payload)
        if self.deflate is not None and size >= limits.WS_DEFLATE_MIN_BYTES:
            # RFC 7692 section 6: each message may be compressed or not; a short one only gets longer.
            payload = bytes(self.deflate.encode(Frame(Opcode(first & 15), payload)).data)
            first |= COMPRESSED
            size = len(payload)
        if size < 126:
            head = bytes((first, size))
        elif size < 65536:
            head = bytes((first, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 127)) + size.to_bytes(8, "big")
        self.out.append(head)
        self.out.append(payload)
        self.out_bytes += len(head) + size

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.out.append(EMPTY_PING)
        self.out_bytes += 2

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake, unless it has begun. Raises `AppProtocolError` for a code or reason that may not be sent."""
        if self.closing or self.ended:
            return
        try:
            self.protocol.send_close(code, reason)
        except ProtocolError as error:
            if "too long" in str(error):
                raise AppProtocolError("a close reason of more than 123 bytes (RFC 6455 section 5.5)") from None
            raise AppProtocolError(f"close code {code!r} may not be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may") from None
        self.collect()
        self.closing = True
        self.queue = UNBOUNDED
        self.queue_bytes = UNBOUNDED
        self.messages.clear()
