"""A client's end of an HTTP/2 connection, made by hand: it keeps no rule, sends what it is told and notes what comes.

Nothing of the server's engine is used. Needs the extra `http2`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ACK = b"\0\0\0\4\1\0\0\0\0"  # of SETTINGS

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"test")]
POST = [(b":method", b"POST"), *GET[1:]]

Fields = Iterable[tuple[bytes, bytes]]


def make(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame at all."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


@dataclass
class Answer:
    """What came on one stream."""

    interim: list[dict[bytes, bytes]] = field(default_factory=list)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] | None = None
    ended: bool = False
    reset: int | None = None  # the error code

    @property
    def status(self) -> int:
        return int(dict(self.fields).get(b":status", b"0"))

    def field(self, name: bytes) -> bytes | None:
        """The one value of a field, None where there is none."""
        values = [value for other, value in self.fields if other == name]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Peer:
    """Makes frames, and takes apart what the server sends: `answers` by stream, `goaways` as (last stream, code, why)."""

    def __init__(self, *, refuse_pings: bool = False) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int, bytes]] = []
        self.settings: dict[int, int] = {}
        self.windows: dict[int, int] = {}  # what was given back, by stream
        self.frames: list[Frame] = []
        self.acks = 0  # of our SETTINGS
        self.pongs: list[bytes] = []
        self.reply = b""  # what a client owes: acknowledgements
        self._refuse_pings = refuse_pings
        self._buffer = b""
        self._block: tuple[int, bytes, bool] | None = None

    def start(self, settings: dict[int, int] | None = None) -> bytes:
        """Preface and SETTINGS."""
        frame = SettingsFrame(0)
        frame.settings = settings or {}
        return PREFACE + frame.serialize()

    def block(self, fields: Fields) -> bytes:
        return bytes(self.encoder.encode(list(fields)))

    def request(self, stream_id: int, fields: Fields = GET, *, end: bool = True) -> bytes:
        frame = HeadersFrame(stream_id, self.block(fields))
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return bytes(frame.serialize())

    def data(self, stream_id: int, data: bytes, *, end: bool = False) -> bytes:
        frame = DataFrame(stream_id, data)
        if end:
            frame.flags.add("END_STREAM")
        return bytes(frame.serialize())

    def window(self, stream_id: int, increment: int) -> bytes:
        return make(8, 0, stream_id, increment.to_bytes(4, "big"))

    def rst(self, stream_id: int, code: int = 8) -> bytes:
        return make(3, 0, stream_id, code.to_bytes(4, "big"))

    # -- what comes ------------------------------------------------------------------------------------------------------------

    def answer(self, stream_id: int) -> Answer:
        return self.answers.setdefault(stream_id, Answer())

    def take(self, data: bytes) -> None:
        """Read frames. Raises what a strict reader raises."""
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            self.frames.append(frame)
            self._note(frame)

    def _note(self, frame: Any) -> None:
        if self._block is not None and not isinstance(frame, ContinuationFrame):
            raise AssertionError(f"{frame} inside of a header block")
        if isinstance(frame, HeadersFrame):
            self._block = (frame.stream_id, frame.data, "END_STREAM" in frame.flags)
        elif isinstance(frame, ContinuationFrame):
            assert self._block is not None
            self._block = (self._block[0], self._block[1] + frame.data, self._block[2])
        elif isinstance(frame, DataFrame):
            answer = self.answer(frame.stream_id)
            assert answer.fields
            assert not answer.over
            answer.body += frame.data
            answer.ended = "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            self.answer(frame.stream_id).reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code, bytes(frame.additional_data)))
        elif isinstance(frame, WindowUpdateFrame):
            self.windows[frame.stream_id] = self.windows.get(frame.stream_id, 0) + frame.window_increment
        elif isinstance(frame, SettingsFrame):
            if "ACK" in frame.flags:
                self.acks += 1
            else:
                self.settings.update(frame.settings)
                self.reply += ACK
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            elif not self._refuse_pings:
                self.reply += make(6, 1, 0, frame.opaque_data)
        if isinstance(frame, HeadersFrame | ContinuationFrame) and "END_HEADERS" in frame.flags:
            self._end_block()

    def _end_block(self) -> None:
        assert self._block is not None
        stream_id, block, ended = self._block
        self._block = None
        fields = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        answer = self.answer(stream_id)
        assert not answer.over
        if answer.fields:
            assert ended
            answer.trailers = fields
        elif fields[0][1].startswith(b"1"):
            assert not ended
            answer.interim.append(dict(fields))
        else:
            answer.fields = fields
        answer.ended = ended

    def take_reply(self) -> bytes:
        """What a client owes by now."""
        reply, self.reply = self.reply, b""
        return reply
