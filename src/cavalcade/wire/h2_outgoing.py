"""The sending side of the HTTP/2 engine: responses within the peer's windows, resets, GOAWAY. It is the base class of the engine.

Streams are of two kinds. One whose request has a body is known to the library, which keeps both of its windows. One whose request was
whole with its head, as most are, can only be answered or reset: the library never hears of it, and its frames are made here. The
window of the connection, which both share, is the library's.

Bodies go out as far as the peer's windows and the transport have room, a frame of each stream in turn; the rest waits in its stream,
uncopied.
"""

from __future__ import annotations

from typing import Any, Protocol

from h2.errors import ErrorCodes

from cavalcade import limits
from cavalcade.errors import AppProtocolError, StreamFault
from cavalcade.wire import h2_response
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.h2_budget import Budget
from cavalcade.wire.h2_frames import ALL_STREAMS, DATA, END_STREAM, GOAWAY, PING, RST_STREAM, frame, header_frames
from cavalcade.wire.h2_library import FINAL, INTERIM, Library
from cavalcade.wire.h2_stream import StreamState

SETTLE = b"cavalcad"  # the PING between the two GOAWAYs


class Sink(Protocol):
    """What the engine calls for the connection as a whole."""

    def new_stream(self, stream_id: int) -> StreamState | None:
        """A request has come; None to refuse it for now, unread."""

    def on_malformed(self, error: StreamFault) -> None:
        """The peer broke a rule, and one stream was reset for it."""

    def on_complaint(self, code: int, why: bytes) -> None:
        """The peer says that it was we who broke a rule."""

    def on_settled(self) -> None:
        """The peer has seen the first GOAWAY."""

    def on_stream_closed(self) -> None:
        """A stream is over in both directions."""


class Outgoing:
    """What goes out on one connection."""

    def __init__(self, sink: Sink, rules: Rules, *, websocket: bool) -> None:
        self.sink = sink
        self.rules = rules
        self.library = Library(rules, websocket)
        self.spoke = True  # the library may have something to send
        self.streams: dict[int, StreamState] = {}
        self.held_back = False  # the transport takes no more: bodies wait
        self.highest = 0  # the last stream that the peer has opened
        self.last_taken = ALL_STREAMS  # beyond it nothing is taken any more: a GOAWAY said so
        self.settling = False
        self.lately_reset: dict[int, None] = {}
        self.waiting: dict[int, StreamState] = {}  # streams with a body that had to wait
        self.window_extra = 0
        self.control = Budget(limits.H2_CONTROL_FRAMES, limits.H2_CONTROL_FRAMES_PER_S)
        self.resets = Budget(limits.H2_RESETS, limits.H2_RESETS_PER_S)
        self.output: list[bytes] = []
        self.made = 0  # about so many bytes of bodies since `take_output`

    # -- responses -----------------------------------------------------------------------------------------------------------------

    def start_response(self, stream: StreamState, status: Any, headers: Any) -> None:
        """Check and keep a response head; it goes out with the first body, or by `send_head`. Raises `AppProtocolError`."""
        h2_response.give_head(stream, status, headers, self.rules)

    def send_interim(self, stream: StreamState, status: int, headers: Any) -> None:
        """An interim response, such as 103 Early Hints (RFC 9110 section 15.2). Raises `AppProtocolError`."""
        block = h2_response.encode_field(b":status", b"%d" % status) + h2_response.encode_fields(headers)
        if not stream.closed:
            self.send_block(stream, block, INTERIM, False)

    def send_block(self, stream: StreamState, block: bytes, kind: list[tuple[bytes, bytes]], last: bool) -> None:
        """Send a head, or trailers; the library is told which `kind` it is."""
        library = self.library
        library.encoder.block = block
        if stream.ours:
            if library.encoder.say_empty:
                block = library.encoder.encode(kind)
            self.put(header_frames(stream.stream_id, block, last, library.max_outbound_frame_size))
        else:
            library.send_headers(stream.stream_id, kind, last)
            self.spoke = True

    def send_head(self, stream: StreamState, size: int, more: bool) -> None:
        """Send the head that is due; `size` bytes of body follow, and `more` tells whether others, or trailers, do."""
        stream.head_due = False
        block = stream.response_block
        # RFC 9110 section 8.6: a 204 has none; a 304, or an answer to HEAD, would need that of the body it does not have.
        if stream.length < 0 and not more and stream.status != 204 and stream.status != 304 and (size or not stream.bodiless):
            stream.length = stream.left = size
            block += h2_response.encode_length(size)
        last = not more and (size == 0 or stream.bodiless) and not stream.is_short()
        self.send_block(stream, block, FINAL, last)
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
        elif self.waiting:
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
        if not stream.pending:
            if stream.end_due and not stream.ended:
                self.send_end(stream)
            return False
        if self.held_back or self.made > limits.H2_OUTPUT_BYTES:
            return False
        library = self.library
        piece = stream.pending[0]
        size = len(piece)
        if stream.ours:
            room = min(stream.room, library.outbound_flow_control_window, library.max_outbound_frame_size)
        else:
            room = min(library.local_flow_control_window(stream.stream_id), library.max_outbound_frame_size)
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
        self.send_data(stream, piece, size, last)
        if last:
            self.end_response(stream)
        return not last

    def send_data(self, stream: StreamState, piece: bytes | memoryview, size: int, last: bool) -> None:
        library = self.library
        if stream.ours:
            stream.room -= size
            library.outbound_flow_control_window -= size
            self.put(frame(DATA, END_STREAM if last else 0, stream.stream_id, bytes(piece)))
        else:
            library.send_data(stream.stream_id, piece, last)
            self.spoke = True

    def send_end(self, stream: StreamState) -> None:
        """The end of a response whose body is out."""
        if stream.trailers:
            self.send_block(stream, stream.trailers, FINAL, True)
        else:
            self.send_data(stream, b"", 0, True)
        self.end_response(stream)

    def end_response(self, stream: StreamState) -> None:
        stream.ended = True
        self.control.earn(limits.H2_CONTROL_PER_REQUEST)
        self.resets.earn(limits.H2_RESETS_PER_REQUEST)
        if stream.remote_ended:
            self.forget(stream)
        else:
            stream.on_answered()

    def give_back(self, stream: StreamState, unread: int = 0) -> None:
        """The request body that came so far was taken, but for `unread` bytes: the peer may send more."""
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
        self.spoke = True

    # -- the end of streams ----------------------------------------------------------------------------------------------------------

    def reset(self, stream: StreamState, code: int) -> None:
        """End a stream at once, in both directions."""
        if stream.closed:
            return
        self.forget(stream)
        if stream.ours:
            self.send_raw(RST_STREAM, stream.stream_id, code.to_bytes(4, "big"))
        else:
            self.library.reset_stream(stream.stream_id, code)
            self.spoke = True
        self.note_reset(stream.stream_id)

    def note_reset(self, stream_id: int) -> None:
        lately = self.lately_reset
        lately[stream_id] = None
        if len(lately) > limits.H2_LATELY_RESET:
            del lately[next(iter(lately))]

    def forget(self, stream: StreamState) -> None:
        """It is over in both directions."""
        stream.closed = True
        if stream.pending:
            stream.pending.clear()
            stream.pending_bytes = 0
            self.waiting.pop(stream.stream_id, None)
        self.window_extra -= stream.window - limits.H2_STREAM_WINDOW_BYTES
        del self.streams[stream.stream_id]
        self.sink.on_stream_closed()

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
        # Not by the library: after a GOAWAY of its own it would send nothing more.
        self.send_raw(GOAWAY, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode("ascii", "replace"))

    def send_raw(self, kind: int, stream_id: int, payload: bytes) -> None:
        """A frame without flags that the library does not know of."""
        self.put(frame(kind, 0, stream_id, payload))

    def put(self, data: bytes) -> None:
        """Frames of ours, behind those of the library."""
        if self.spoke:
            self.spoke = False
            self.output.append(self.library.data_to_send())
        self.output.append(data)

    def take_output(self) -> bytes:
        """What is to be written."""
        self.made = 0
        if self.spoke:
            self.spoke = False
            self.output.append(self.library.data_to_send())
        output = self.output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data
