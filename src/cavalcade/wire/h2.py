"""The HTTP/2 engine (RFC 9113): bytes in, calls on a sink and its streams, bytes out.

How it works. The h2 library keeps the states (wire/h2_library.py), but what comes in is looked at here first, frame by frame, by its nine
bytes of head: what a peer may do only so often is counted before it costs anything, and what the library would end the whole connection
over, where the RFC asks for one stream or nothing at all, never reaches it: GOAWAY, PRIORITY, unknown frames, frames for streams that
are over. Requests go to a policy of ours (wire/h2_request.py), response heads come from one (wire/h2_response.py).

The sending side is the base class, in h2_outgoing.py; there is also what tells streams that the library knows from `ours`.

Two windows hold a request body: that of the connection is given back on arrival, so that a slow stream holds nobody else up, that of
its stream only when the app has taken what came.

Time is given (`now`), not read. Nothing here feeds itself: a stream that is called may call back at any moment, but not `feed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2.connection import ConnectionInputs
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKError, OversizedHeaderListError

from cavalcade import limits
from cavalcade.errors import BodyTooLarge, ConnectionFault, NotImplementedByServer, PeerError, StreamFault
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2_frames import (
    ACK,
    ALL_STREAMS,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    fragment,
    header_frames,
)
from cavalcade.wire.h2_hpack import FieldDecoder, Fields
from cavalcade.wire.h2_library import NO_FIELDS
from cavalcade.wire.h2_outgoing import SETTLE, Outgoing, Sink
from cavalcade.wire.h2_request import check_trailers, malformed, read_request
from cavalcade.wire.h2_stream import StreamState
from cavalcade.wire.sink import Head

BEYOND = "a WINDOW_UPDATE beyond the largest window"


class H2(Outgoing):
    """The server's end of one connection. `feed` raises `ConnectionFault`, after which there is only `take_output`."""

    def __init__(self, sink: Sink, rules: Rules, *, websocket: bool = False) -> None:
        super().__init__(sink, rules, websocket=websocket)
        self.websocket = websocket  # extended CONNECT is offered
        self.decoder = FieldDecoder(rules.head_bytes)
        self.head = Head()
        self.head.version = "2"
        self.head.keep_alive = True
        self.head.upgrade = False
        self.now = 0.0  # kept by the caller
        self.closed = False
        self.tail = b""  # an unfinished frame
        self.preface_left = PREFACE
        self.set_up = False  # its first SETTINGS are here
        self.head_frames: list[bytes] = []  # of a header block that goes on
        self.head_bytes = 0
        self.window_unacked = 0
        self.initial_room = self.library.remote_settings.initial_window_size  # what a stream may send before the first WINDOW_UPDATE

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
            # It may never hear of a stream, and must know all the same that there are some.
            self.library.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        return data[len(start) :]

    def has_begun(self) -> bool:
        """Has the peer said anything at all?"""
        return self.preface_left != PREFACE

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
            self.decode(frames)
            return
        self.highest = stream_id
        taken = stream_id <= self.last_taken
        stream = self.sink.new_stream(stream_id) if taken and len(self.streams) < limits.H2_STREAMS else None
        if stream is None:
            self.pass_over(stream_id, frames, taken)
        elif flags & END_STREAM:
            stream.ours = True
            stream.room = self.initial_room
            self.library.highest_inbound_stream_id = stream_id
            self.open(stream, self.decode(frames), True)
        else:
            fields = self.decode(frames)
            self.receive(header_frames(stream_id, NO_FIELDS, False, limits.H2_FRAME_BYTES))
            self.open(stream, fields, False)

    def receive(self, data: bytes) -> list[Event]:
        """Give frames to the library."""
        self.spoke = True
        return self.library.receive_data(data)

    def pass_over(self, stream_id: int, frames: list[bytes], refused: bool) -> None:
        """A request that is not looked at. The peer knows by our GOAWAY or is told that it was `refused`: it may try again."""
        self.decode(frames)
        self.library.highest_inbound_stream_id = stream_id
        self.note_reset(stream_id)
        if refused:
            self.send_raw(RST_STREAM, stream_id, ErrorCodes.REFUSED_STREAM.to_bytes(4, "big"))
            self.spend_reset()

    def open(self, stream: StreamState, fields: Fields, ended: bool) -> None:
        """A request has come."""
        self.streams[stream.stream_id] = stream
        stream.remote_ended = ended
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
            self.decode(frames)
            self.fault(stream, error)
            return
        fields = self.decode(frames)
        self.receive(header_frames(stream.stream_id, NO_FIELDS, True, limits.H2_FRAME_BYTES))
        stream.remote_ended = True
        try:
            check_trailers(fields.these)
            if 0 <= stream.expected != stream.received:
                raise malformed("a body shorter than its Content-Length")
        except StreamFault as error:
            self.fault(stream, error)
            return
        self.end_request(stream)

    def decode(self, frames: Iterable[bytes]) -> Fields:
        """The fields of a header block. Also one that nobody wants is decoded, because the decoder's table must stay as the peer's
        encoder has it (RFC 9113 section 4.3)."""
        block = b""
        for data in frames:
            piece = fragment(data)
            if piece is None:
                raise ConnectionFault("padding beyond the end of a frame", ErrorCodes.PROTOCOL_ERROR)
            block = block + piece if block else piece
        try:
            return self.decoder.decode(block)
        except OversizedHeaderListError as error:
            raise ConnectionFault("a request head beyond any sense", ErrorCodes.ENHANCE_YOUR_CALM) from error
        except HPACKError as error:
            raise ConnectionFault("a header block that cannot be decoded", ErrorCodes.COMPRESSION_ERROR) from error

    # -- bodies ------------------------------------------------------------------------------------------------------------------

    def on_data(self, stream_id: int, flags: int, data: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or stream.ours:
            self.check_opened(stream_id, "DATA")
            self.spend("frames on streams that are over")
            # The library gives the connection's window back, and says that the stream is closed. Once is enough: RFC 9113 section 5.1.
            self.put(b"")
            self.receive(data)
            if stream_id in self.lately_reset:
                self.spoke = False
                self.output.append(self.library.data_to_send()[: -FRAME_HEAD - 4])
            elif stream is not None:
                self.lost(stream, ErrorCodes.STREAM_CLOSED, "DATA behind the end of a request")
            return
        events = self.receive(data)
        if self.was_reset(stream, events, "DATA behind the end of a request"):
            return
        event: Any = events[0]
        body = event.data
        counted = event.flow_controlled_length
        self.window_unacked += counted
        if self.window_unacked >= limits.H2_CONNECTION_WINDOW_BYTES // 4:
            self.library.increment_flow_control_window(self.window_unacked)
            self.spoke = True
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

    # -- other frames ------------------------------------------------------------------------------------------------------------

    def on_window_update(self, stream_id: int, data: bytes) -> None:
        self.spend("window updates")
        if stream_id == 0:
            self.receive(data)
            if self.waiting:
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
        if stream.ours:
            if len(data) != FRAME_HEAD + 4:
                raise ConnectionFault("a WINDOW_UPDATE that is none", ErrorCodes.FRAME_SIZE_ERROR)
            stream.room += int.from_bytes(data[FRAME_HEAD:], "big") & LARGEST_WINDOW
            if stream.room > LARGEST_WINDOW:
                self.fault(stream, StreamFault(BEYOND, ErrorCodes.FLOW_CONTROL_ERROR))
                return
        elif self.was_reset(stream, self.receive(data), BEYOND):
            return
        if stream.pending:
            self.send_some(stream)

    def on_settings(self, data: bytes) -> None:
        self.spend("SETTINGS", 1.0 + (len(data) - FRAME_HEAD) / 64)
        self.receive(data)
        now = self.library.remote_settings.initial_window_size
        if now != self.initial_room:
            # RFC 9113 section 6.9.2: the windows of all streams change by as much, and may become negative.
            for stream in self.streams.values():
                stream.room += now - self.initial_room
                if stream.room > LARGEST_WINDOW:
                    raise ConnectionFault("SETTINGS that make a window too large", ErrorCodes.FLOW_CONTROL_ERROR)
            self.initial_room = now
        self.send_waiting()

    def on_ping(self, flags: int, data: bytes) -> None:
        self.spend("PINGs")
        self.receive(data)
        if flags & ACK and self.settling and data[FRAME_HEAD:] == SETTLE:
            self.settling = False
            self.sink.on_settled()

    def on_rst_stream(self, stream_id: int, data: bytes) -> None:
        stream = self.streams.get(stream_id)
        if len(data) != FRAME_HEAD + 4:
            raise ConnectionFault("a RST_STREAM that is none", ErrorCodes.FRAME_SIZE_ERROR)
        if stream is None:
            self.check_opened(stream_id, "RST_STREAM")
            self.spend("frames on streams that are over")
            return
        if not stream.ours:
            self.receive(data)
        self.forget(stream)
        stream.on_reset(int.from_bytes(data[FRAME_HEAD:], "big"))
        if not stream.ended:
            self.spend_reset()

    def on_goaway(self, stream_id: int, data: bytes) -> None:
        """RFC 9113 section 6.8: it says which of our streams the peer takes, and we open none. What it has asked for, it still wants."""
        if stream_id != 0 or len(data) < FRAME_HEAD + 8:
            raise ConnectionFault("a GOAWAY that is none", ErrorCodes.PROTOCOL_ERROR if stream_id else ErrorCodes.FRAME_SIZE_ERROR)
        self.spend("GOAWAYs")
        code = int.from_bytes(data[FRAME_HEAD + 4 : FRAME_HEAD + 8], "big")
        if code != ErrorCodes.NO_ERROR:
            self.sink.on_complaint(code, data[FRAME_HEAD + 8 :])

    # -- the end of streams --------------------------------------------------------------------------------------------------------

    def was_reset(self, stream: StreamState, events: list[Event], why: str) -> bool:
        """Has the library reset the stream for what the peer sent (CVE-2025-8671)?"""
        for event in events:
            if isinstance(event, StreamReset):
                self.lost(stream, int(event.error_code or 0), why)
                return True
        return False

    def lost(self, stream: StreamState, code: int, why: str) -> None:
        """The library has reset it."""
        self.note_reset(stream.stream_id)
        self.forget(stream)
        stream.on_reset(code)
        self.sink.on_malformed(StreamFault(why, code))
        self.spend_reset()

    def fault(self, stream: StreamState, error: StreamFault, *, begun: bool = True) -> None:
        """The peer broke a rule on a stream: it is over, the others go on."""
        self.reset(stream, error.code)
        if begun:
            stream.on_reset(error.code)
        self.sink.on_malformed(error)
        self.spend_reset()
