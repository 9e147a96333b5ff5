"""The HTTP/2 engine (RFC 9113): bytes in, calls on a sink and its streams, bytes out.

How it works. The h2 library keeps the states (wire/h2_library.py), but what comes in is looked at here first, frame by frame, by its nine
bytes of head: what a peer may do only so often is counted before it costs anything, and what the library would end the whole connection
over, where the RFC asks for one stream or nothing at all, never reaches it: GOAWAY, PRIORITY, unknown frames, frames for streams that
are over. Requests go to a policy of ours (wire/h2_request.py), response heads come from one (wire/h2_response.py).

Bodies go out as far as the peer's windows and the transport have room, a frame of each stream in turn; the rest waits in its stream,
uncopied. Two windows hold a request body: that of the connection is given back on arrival, so that a slow stream holds nobody else up,
that of its stream only when the app has taken what came.

Time is given (`now`), not read. Nothing here feeds itself: a stream that is called may call back at any moment, but not `feed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKError

from cavalcade import limits
from cavalcade.errors import AppProtocolError, BodyTooLarge, ConnectionFault, NotImplementedByServer, PeerError, StreamFault
from cavalcade.wire import h2_response
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2_budget import Budget
from cavalcade.wire.h2_library import FINAL, INTERIM, Library
from cavalcade.wire.h2_request import check_trailers, malformed, read_request
from cavalcade.wire.h2_stream import StreamState
from cavalcade.wire.sink import Head

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

FRAME_HEAD = 9
ALL_STREAMS = 2**31 - 1
SETTLE = b"cavalcad"  # the PING between the two GOAWAYs


class Sink(Protocol):
    """What the engine calls for the connection as a whole."""

    def new_stream(self, stream_id: int) -> StreamState | None:
        """A request has come; None to refuse it for now, unread."""

    def on_malformed(self, error: StreamFault) -> None:
        """The peer broke a rule, and one stream was reset for it."""

    def on_settled(self) -> None:
        """The peer has seen the first GOAWAY."""

    def on_stream_closed(self) -> None:
        """A stream is over in both directions."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """RFC 9113 section 4.1."""
    return b"".join((len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream_id.to_bytes(4, "big"), payload))


class H2:
    """The server's end of one connection. `feed` raises `ConnectionFault`, after which there is only `take_output`."""

    def __init__(self, sink: Sink, rules: Rules, *, websocket: bool = False) -> None:
        self.sink = sink
        self.rules = rules
        self.websocket = websocket  # extended CONNECT is offered
        self.library = Library(rules, websocket)
        self.head = Head()
        self.head.version = "2"
        self.head.keep_alive = True
        self.head.upgrade = False
        self.streams: dict[int, StreamState] = {}
        self.now = 0.0  # kept by the caller
        self.held_back = False  # the transport takes no more: bodies wait
        self.closed = False
        self.highest = 0  # the last stream that the peer has opened
        self.last_taken = ALL_STREAMS  # beyond it nothing is taken any more: a GOAWAY said so
        self.settling = False
        self.tail = b""  # an unfinished frame
        self.preface_left = PREFACE
        self.set_up = False  # its first SETTINGS are here
        self.head_frames: list[bytes] = []  # of a header block that goes on
        self.head_bytes = 0
        self.lately_reset: dict[int, None] = {}
        self.waiting: dict[int, StreamState] = {}  # streams with a body that had to wait
        self.window_extra = 0
        self.window_unacked = 0
        self.control = Budget(limits.H2_CONTROL_FRAMES, limits.H2_CONTROL_FRAMES_PER_S)
        self.resets = Budget(limits.H2_RESETS, limits.H2_RESETS_PER_S)
        self.output: list[bytes] = []
        self.made = 0  # about so many bytes of bodies since `take_output`

    # -- bytes in --------------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what the peer sent."""
        if self.closed:
            return
        try:
            if self.preface_left:
                data = self.take_preface(data)
            if self.tail:
                data = self.tail + data
                self.tail = b""
            at = 0
            size = len(data)
            while size - at >= FRAME_HEAD and not self.closed:
                length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
                if length > limits.H2_FRAME_BYTES:
                    raise ConnectionFault(f"a frame over {limits.H2_FRAME_BYTES} bytes", ErrorCodes.FRAME_SIZE_ERROR)
                end = at + FRAME_HEAD + length
                if end > size:
                    break
                stream_id = int.from_bytes(data[at + 5 : at + 9], "big") & ALL_STREAMS
                self.on_frame(data[at + 3], data[at + 4], stream_id, data[at:end])
                at = end
            if at < size:
                self.tail = data[at:]
        except ProtocolError as error:  # the library has written its GOAWAY already
            self.closed = True
            raise ConnectionFault(str(error), error.error_code) from error
        except ConnectionFault as error:
            self.goaway(self.highest, error.code, error.cause)
            self.closed = True
            raise

    def take_preface(self, data: bytes) -> bytes:
        start = data[: len(self.preface_left)]
        if not self.preface_left.startswith(start):
            raise ConnectionFault("no HTTP/2 preface", ErrorCodes.PROTOCOL_ERROR)
        self.preface_left = self.preface_left[len(start) :]
        if not self.preface_left:
            self.library.receive_data(PREFACE)
        return data[len(start) :]

    def is_partial(self) -> bool:
        """Has something begun, a frame or a head, that must come to its end?"""
        return bool(self.tail or self.head_frames or not self.set_up)

    def close(self) -> None:
        """Whatever comes now is not for us."""
        self.closed = True
        self.tail = b""

    def on_frame(self, kind: int, flags: int, stream_id: int, data: bytes) -> None:
        if self.head_frames:
            self.go_on_with_head(kind, flags, stream_id, data)
        elif not self.set_up:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault("a connection that does not begin with SETTINGS", ErrorCodes.PROTOCOL_ERROR)
            self.set_up = True
            self.on_settings(data)
        elif kind == HEADERS:
            if flags & END_HEADERS:
                self.on_headers(stream_id, flags, [data])
            else:
                self.head_frames.append(data)
                self.head_bytes = len(data)
        elif kind == DATA:
            self.on_data(stream_id, flags, data)
        elif kind == WINDOW_UPDATE:
            self.on_window_update(stream_id, data)
        elif kind == RST_STREAM:
            self.on_rst_stream(stream_id, data)
        elif kind == SETTINGS:
            self.on_settings(data)
        elif kind == PING:
            self.on_ping(flags, data)
        elif kind == GOAWAY:
            self.on_goaway(stream_id, data)
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise ConnectionFault("a frame that no client may send here", ErrorCodes.PROTOCOL_ERROR)
        else:
            # RFC 9113 sections 5.3 and 5.5: priorities are a hint that is taken for nothing, what is unknown is ignored.
            self.spend("frames without use")
            if kind == PRIORITY and stream_id == 0:
                raise ConnectionFault("a PRIORITY of no stream", ErrorCodes.PROTOCOL_ERROR)
            if kind == PRIORITY and len(data) != FRAME_HEAD + 5:
                raise ConnectionFault("a PRIORITY that is none", ErrorCodes.FRAME_SIZE_ERROR)

    def spend(self, what: str, cost: float = 1.0) -> None:
        """A frame that costs us and is of no use."""
        if not self.control.spend(self.now, cost):
            raise ConnectionFault(f"a flood of {what}", ErrorCodes.ENHANCE_YOUR_CALM)

    def spend_reset(self) -> None:
        """A request was begun for nothing."""
        if not self.resets.spend(self.now):
            raise ConnectionFault("a flood of requests that are cancelled or break the protocol", ErrorCodes.ENHANCE_YOUR_CALM)

    def check_opened(self, stream_id: int, what: str) -> None:
        """RFC 9113 section 5.1: only HEADERS may come on a stream that was never opened."""
        if stream_id > self.highest or stream_id % 2 == 0:
            raise ConnectionFault(f"{what} on a stream that was never opened", ErrorCodes.PROTOCOL_ERROR)

    # -- heads -----------------------------------------------------------------------------------------------------------------

    def go_on_with_head(self, kind: int, flags: int, stream_id: int, data: bytes) -> None:
        first = self.head_frames[0]
        if kind != CONTINUATION or stream_id != int.from_bytes(first[5:9], "big") & ALL_STREAMS:
            raise ConnectionFault("another frame inside of a header block", ErrorCodes.PROTOCOL_ERROR)
        self.head_frames.append(data)
        self.head_bytes += len(data)
        if len(self.head_frames) > limits.H2_HEAD_FRAMES or self.head_bytes > self.rules.head_bytes + limits.H2_FRAME_BYTES:
            raise ConnectionFault("a flood of CONTINUATION frames", ErrorCodes.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            frames, self.head_frames = self.head_frames, []
            self.on_headers(stream_id, first[4], frames)

    def on_headers(self, stream_id: int, flags: int, frames: list[bytes]) -> None:
        if stream_id in self.streams:
            self.on_trailers(self.streams[stream_id], flags, frames)
            return
        if stream_id % 2 == 0:
            raise ConnectionFault("a stream id that a client may not use", ErrorCodes.PROTOCOL_ERROR)
        if stream_id <= self.highest:
            if stream_id not in self.lately_reset:
                raise ConnectionFault("HEADERS on a stream that is over", ErrorCodes.STREAM_CLOSED)
            self.spend("frames on streams that were reset")  # RFC 9113 section 5.1: the peer may not know yet
            self.decode_only(frames)
            return
        self.highest = stream_id
        taken = stream_id <= self.last_taken
        stream = self.sink.new_stream(stream_id) if taken and len(self.streams) < limits.H2_STREAMS else None
        if stream is None:
            self.pass_over(stream_id, frames, taken)
        else:
            self.library.receive_data(frames[0] if len(frames) == 1 else b"".join(frames))
            self.open(stream, bool(flags & END_STREAM))

    def pass_over(self, stream_id: int, frames: list[bytes], refused: bool) -> None:
        """A request that is not looked at. The peer knows by our GOAWAY or is told that it was `refused`: it may try again."""
        self.decode_only(frames)
        self.library.highest_inbound_stream_id = stream_id
        self.note_reset(stream_id)
        if refused:
            self.send_raw(RST_STREAM, stream_id, ErrorCodes.REFUSED_STREAM.to_bytes(4, "big"))
            self.spend_reset()

    def open(self, stream: StreamState, ended: bool) -> None:
        """A request whose fields are decoded."""
        self.streams[stream.stream_id] = stream
        stream.remote_ended = ended
        fields = self.library.decoder.fields
        try:
            request = fields.read
            if request is None:
                request = fields.read = read_request(fields.these, fields.size, self.rules)
            if ended and request.length > 0:
                raise malformed("no body where Content-Length says that there is one")
            if request.protocol and not self.websocket:
                raise NotImplementedByServer("an extended CONNECT that was not offered")
        except StreamFault as error:
            self.fault(stream, error, begun=False)
            return
        except PeerError as error:
            stream.method = "HEAD" if (b":method", b"HEAD") in fields.these else ""
            stream.on_refused(error)
            return
        stream.method = request.method
        stream.expected = request.length
        head = self.head
        request.fill(head)
        if ended:
            head.length = 0
            head.expects_continue = False  # RFC 9110 section 10.1.1: nothing to wait for
        else:
            head.length = request.length
        stream.on_request(head)

    def on_trailers(self, stream: StreamState, flags: int, frames: list[bytes]) -> None:
        try:
            if stream.remote_ended:
                raise StreamFault("HEADERS behind the end of a request", ErrorCodes.STREAM_CLOSED)
            if not flags & END_STREAM:
                raise malformed("trailers that do not end their request")
        except StreamFault as error:
            self.decode_only(frames)
            self.fault(stream, error)
            return
        self.library.receive_data(b"".join(frames))
        stream.remote_ended = True
        try:
            check_trailers(self.library.decoder.fields.these)
            if 0 <= stream.expected != stream.received:
                raise malformed("a body shorter than its Content-Length")
        except StreamFault as error:
            self.fault(stream, error)
            return
        self.end_request(stream)

    def decode_only(self, frames: Iterable[bytes]) -> None:
        """Keep the decoder's table as the peer's encoder has it (RFC 9113 section 4.3), for fields that nobody wants."""
        block = []
        for data in frames:
            flags = data[4]
            payload = data[FRAME_HEAD:]
            if data[3] == HEADERS:
                padding = payload[0] if flags & PADDED and payload else 0
                start = (1 if flags & PADDED else 0) + (5 if flags & HAS_PRIORITY else 0)
                if start + padding > len(payload):
                    raise ConnectionFault("padding beyond the end of a frame", ErrorCodes.PROTOCOL_ERROR)
                payload = payload[start : len(payload) - padding]
            block.append(payload)
        try:
            self.library.decoder.decode(b"".join(block), raw=True)
        except (HPACKError, IndexError) as error:
            raise ConnectionFault("a header block that cannot be decoded", ErrorCodes.COMPRESSION_ERROR) from error

    # -- bodies ------------------------------------------------------------------------------------------------------------------

    def on_data(self, stream_id: int, flags: int, data: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.check_opened(stream_id, "DATA")
            self.spend("frames on streams that are over")
            # The library gives the connection's window back, and says that the stream is closed. Once is enough: RFC 9113 section 5.1.
            self.output.append(self.library.data_to_send())
            self.library.receive_data(data)
            if stream_id in self.lately_reset:
                self.output.append(self.library.data_to_send()[: -FRAME_HEAD - 4])
            return
        events = self.library.receive_data(data)
        if self.was_reset(stream, events, "DATA behind the end of a request"):
            return
        event: Any = events[0]
        body = event.data
        counted = event.flow_controlled_length
        self.window_unacked += counted
        if self.window_unacked >= limits.H2_CONNECTION_WINDOW_BYTES // 4:
            self.library.increment_flow_control_window(self.window_unacked)
            self.window_unacked = 0
        stream.received += len(body)
        stream.held += counted
        ended = bool(flags & END_STREAM)
        if ended:
            stream.remote_ended = True
        elif not body:
            self.spend("empty frames")
        if stream.expected >= 0 and (stream.received > stream.expected or (ended and stream.received < stream.expected)):
            self.fault(stream, malformed("a body that is not as long as its Content-Length"))
        elif 0 < self.rules.body_bytes < stream.received:
            stream.on_refused(BodyTooLarge(f"body over {self.rules.body_bytes} bytes (limit_request_body)"))
        else:
            if body:
                stream.on_body(body)
            if ended and not stream.closed:
                self.end_request(stream)

    def end_request(self, stream: StreamState) -> None:
        stream.on_end()
        if stream.ended and not stream.closed:
            self.forget(stream)

    def give_back(self, stream: StreamState, unread: int = 0) -> None:
        """The body that came so far was taken, but for `unread` bytes: the peer may send more."""
        if unread < stream.held:
            stream.unacked += stream.held - unread
            stream.held = unread
        window = stream.window
        if stream.remote_ended or stream.closed:
            return
        if stream.unacked * 2 < window and (not stream.unacked or stream.held + stream.unacked + limits.H2_FRAME_BYTES < window):
            return  # not worth a frame
        increment = stream.unacked
        stream.unacked = 0
        if window < limits.H2_STREAM_WINDOW_MAX_BYTES and self.window_extra + window <= limits.H2_WINDOW_EXTRA_BYTES:
            # Its reader keeps up, and a window is all that a peer can send in one round trip: twice as much from now on.
            self.window_extra += window
            increment += window
            stream.window = window * 2
        self.library.increment_flow_control_window(increment, stream.stream_id)

    # -- other frames ------------------------------------------------------------------------------------------------------------

    def on_window_update(self, stream_id: int, data: bytes) -> None:
        self.spend("window updates")
        if stream_id == 0:
            self.library.receive_data(data)
            self.send_waiting()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self.check_opened(stream_id, "WINDOW_UPDATE")
            return
        if data[FRAME_HEAD:] == b"\0\0\0\0":
            # RFC 9113 section 6.9: an error of its stream; the library ends the connection.
            self.fault(stream, StreamFault("a WINDOW_UPDATE of nothing", ErrorCodes.PROTOCOL_ERROR))
            return
        if not self.was_reset(stream, self.library.receive_data(data), "a WINDOW_UPDATE beyond the largest window") and stream.pending:
            self.send_some(stream)

    def on_settings(self, data: bytes) -> None:
        self.spend("SETTINGS", 1.0 + (len(data) - FRAME_HEAD) / 64)
        self.library.receive_data(data)
        self.send_waiting()

    def on_ping(self, flags: int, data: bytes) -> None:
        self.spend("PINGs")
        self.library.receive_data(data)
        if flags & ACK and self.settling and data[FRAME_HEAD:] == SETTLE:
            self.settling = False
            self.sink.on_settled()

    def on_rst_stream(self, stream_id: int, data: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.check_opened(stream_id, "RST_STREAM")
            if len(data) != FRAME_HEAD + 4:
                raise ConnectionFault("a RST_STREAM that is none", ErrorCodes.FRAME_SIZE_ERROR)
            self.spend("frames on streams that are over")
            return
        self.library.receive_data(data)
        self.forget(stream)
        stream.on_reset(int.from_bytes(data[FRAME_HEAD:], "big"))
        if not stream.ended:
            self.spend_reset()

    def on_goaway(self, stream_id: int, data: bytes) -> None:
        """RFC 9113 section 6.8: it says which of our streams the peer takes, and we open none. What it has asked for, it still wants."""
        if stream_id != 0 or len(data) < FRAME_HEAD + 8:
            raise ConnectionFault("a GOAWAY that is none", ErrorCodes.PROTOCOL_ERROR if stream_id else ErrorCodes.FRAME_SIZE_ERROR)
        self.spend("GOAWAYs")

    # -- the end of streams --------------------------------------------------------------------------------------------------------

    def was_reset(self, stream: StreamState, events: list[Event], why: str) -> bool:
        """Has the library reset the stream for what the peer sent (CVE-2025-8671)?"""
        for event in events:
            if isinstance(event, StreamReset):
                self.note_reset(stream.stream_id)
                self.forget(stream)
                code = int(event.error_code or 0)
                stream.on_reset(code)
                self.sink.on_malformed(StreamFault(why, code))
                self.spend_reset()
                return True
        return False

    def fault(self, stream: StreamState, error: StreamFault, *, begun: bool = True) -> None:
        """The peer broke a rule on a stream: it is over, the others go on."""
        self.reset(stream, error.code)
        if begun:
            stream.on_reset(error.code)
        self.sink.on_malformed(error)
        self.spend_reset()

    def reset(self, stream: StreamState, code: int) -> None:
        """End a stream at once, in both directions."""
        if stream.closed:
            return
        self.forget(stream)
        self.library.reset_stream(stream.stream_id, code)
        self.note_reset(stream.stream_id)

    def note_reset(self, stream_id: int) -> None:
        lately = self.lately_reset
        lately[stream_id] = None
        if len(lately) > limits.H2_LATELY_RESET:
            del lately[next(iter(lately))]

    def forget(self, stream: StreamState) -> None:
        """It is over in both directions."""
        stream.closed = True
        stream.pending.clear()
        stream.pending_bytes = 0
        self.window_extra -= stream.window - limits.H2_STREAM_WINDOW_BYTES
        self.waiting.pop(stream.stream_id, None)
        del self.streams[stream.stream_id]
        self.sink.on_stream_closed()

    # -- responses -----------------------------------------------------------------------------------------------------------------

    def start_response(self, stream: StreamState, status: Any, headers: Any) -> None:
        """Check and keep a response head; it goes out with the first body, or by `send_head`. Raises `AppProtocolError`."""
        h2_response.give_head(stream, status, headers, self.rules)

    def send_interim(self, stream: StreamState, status: int, headers: Any) -> None:
        """An interim response, such as 103 Early Hints (RFC 9110 section 15.2). Raises `AppProtocolError`."""
        block = h2_response.encode_field(b":status", b"%d" % status) + h2_response.encode_fields(headers)
        if not stream.closed:
            self.library.encoder.block = block
            self.library.send_headers(stream.stream_id, INTERIM)

    def send_head(self, stream: StreamState, size: int, more: bool) -> None:
        """Send the head that is due; `size` bytes of body follow, and `more` tells whether others, or trailers, do."""
        stream.head_due = False
        block = stream.response_block
        # RFC 9110 section 8.6: a 204 has none; a 304, or an answer to HEAD, would need that of the body it does not have.
        if stream.length < 0 and not more and stream.status != 204 and stream.status != 304 and (size or not stream.bodiless):
            stream.length = stream.left = size
            block += h2_response.encode_length(size)
        last = not more and (size == 0 or stream.bodiless) and not stream.is_short()
        self.library.encoder.block = block
        self.library.send_headers(stream.stream_id, FINAL, last)
        if last:
            self.end_response(stream)

    def send(self, stream: StreamState, body: bytes, more: bool) -> None:
        """Send a piece of the body, the head before it if it is still due. With `more` False the response is complete, unless
        `stream.is_short()`. Raises `AppProtocolError` when the body is longer than its Content-Length."""
        size = len(body)
        if not stream.bodiless and 0 <= stream.left < size:
            sent = stream.length - stream.left + size
            raise AppProtocolError(f"the response body is longer than its Content-Length: {sent} bytes instead of {stream.length}")
        if stream.closed:
            return
        if stream.head_due:
            self.send_head(stream, size, more)
        if stream.ended:
            return
        if size and not stream.bodiless:
            if stream.length >= 0:
                stream.left -= size
            stream.pending.append(body)
            stream.pending_bytes += size
        if not more and not stream.is_short():
            stream.end_due = True
        self.send_some(stream)

    def send_trailers(self, stream: StreamState, headers: Any) -> None:
        """End the response with trailer fields (RFC 9113 section 8.1). Raises `AppProtocolError`."""
        block = h2_response.encode_fields(headers)
        if stream.closed or stream.ended or stream.is_short():
            return
        if stream.head_due:
            self.send_head(stream, 0, True)
        stream.trailers = b"" if stream.bodiless else block
        stream.end_due = True
        self.send_some(stream)

    def send_some(self, stream: StreamState) -> None:
        """Send what there is room for."""
        before = stream.pending_bytes
        while self.send_frame(stream):
            pass
        if stream.pending:
            self.waiting[stream.stream_id] = stream
        else:
            self.waiting.pop(stream.stream_id, None)
        if stream.pending_bytes < before:
            stream.on_taken()

    def send_waiting(self) -> None:
        """The peer, or the transport, has room again: a frame of each stream that waits, in turn."""
        waiting = self.waiting
        took: dict[int, StreamState] = {}
        going = True
        while going and waiting:
            going = False
            for stream in tuple(waiting.values()):
                before = stream.pending_bytes
                going = self.send_frame(stream) or going
                if stream.pending_bytes < before or not stream.pending:
                    waiting.pop(stream.stream_id, None)
                    if stream.pending:
                        waiting[stream.stream_id] = stream  # behind the others
                if stream.pending_bytes < before:
                    took[stream.stream_id] = stream
        for stream in took.values():
            stream.on_taken()

    def send_frame(self, stream: StreamState) -> bool:
        """Send one DATA frame, or the end. False when there is nothing to send, or no room for it."""
        library = self.library
        stream_id = stream.stream_id
        if not stream.pending:
            if stream.end_due and not stream.ended:
                if stream.trailers:
                    library.encoder.block = stream.trailers
                    library.send_headers(stream_id, FINAL, True)
                else:
                    library.end_stream(stream_id)
                self.end_response(stream)
            return False
        if self.held_back or self.made > limits.H2_OUTPUT_BYTES:
            return False
        piece = stream.pending[0]
        size = len(piece)
        room = min(library.local_flow_control_window(stream_id), library.max_outbound_frame_size)
        if room <= 0:
            return False
        if size > room:
            stream.pending[0] = memoryview(piece)[room:]
            piece = piece[:room]
            size = room
        else:
            stream.pending.popleft()
            self.control.earn(limits.H2_CONTROL_PER_DATA)
        stream.pending_bytes -= size
        self.made += size
        last = stream.end_due and not stream.pending and not stream.trailers
        library.send_data(stream_id, piece, last)
        if last:
            self.end_response(stream)
            return False
        return True

    def end_response(self, stream: StreamState) -> None:
        stream.ended = True
        self.control.earn(limits.H2_CONTROL_PER_REQUEST)
        self.resets.earn(limits.H2_RESETS_PER_REQUEST)
        if stream.remote_ended:
            self.forget(stream)
        else:
            stream.on_answered()

    # -- leaving, and bytes out ------------------------------------------------------------------------------------------------------

    def announce_leaving(self) -> None:
        """The first of two GOAWAYs (RFC 9113 section 6.8): nothing is refused yet, but the peer had better go elsewhere. What it sends
        before it knows is still taken; `on_settled` is called when it knows."""
        self.goaway(ALL_STREAMS, ErrorCodes.NO_ERROR, "")
        self.settling = True
        self.send_raw(PING, 0, SETTLE)

    def stop_taking(self) -> None:
        """The last GOAWAY: what was begun is finished, what comes now is not looked at, and the peer knows that it can ask elsewhere."""
        if self.last_taken == ALL_STREAMS:
            self.settling = False
            self.last_taken = self.highest
            self.goaway(self.highest, ErrorCodes.NO_ERROR, "")

    def goaway(self, last_stream_id: int, code: int, why: str) -> None:
        self.send_raw(GOAWAY, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode("ascii", "replace"))

    def send_raw(self, kind: int, stream_id: int, payload: bytes) -> None:
        """A frame that the library must not know of: after a GOAWAY of its own it would send nothing more."""
        self.output.append(self.library.data_to_send())
        self.output.append(frame(kind, 0, stream_id, payload))

    def take_output(self) -> bytes:
        """What is to be written."""
        self.made = 0
        data = self.library.data_to_send()
        if self.output:
            data = b"".join((*self.output, data))
            self.output.clear()
        return data
