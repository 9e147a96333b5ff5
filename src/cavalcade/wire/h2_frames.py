"""The frames of HTTP/2 (RFC 9113 sections 4 and 6), as far as they are made and taken apart by hand."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

FRAME_HEAD = 9
ALL_STREAMS = 2**31 - 1
LARGEST_WINDOW = 2**31 - 1


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream_id.to_bytes(4, "big"), payload)


def header_frames(stream_id: int, block: bytes, last: bool, most: int) -> bytes:
    """HEADERS, and CONTINUATIONs behind it where `block` has more than the `most` bytes that go into one frame."""
    end = END_STREAM if last else 0
    if len(block) <= most:
        return frame(HEADERS, END_HEADERS | end, stream_id, block)
    pieces = [block[at : at + most] for at in range(0, len(block), most)]
    middle = [frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    return b"".join((frame(HEADERS, end, stream_id, pieces[0]), *middle, frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1])))


def fragment(data: bytes) -> bytes | None:
    """What a HEADERS or CONTINUATION frame has of a header block; None if its padding says what cannot be (section 6.2)."""
    flags = data[4]
    if data[3] != HEADERS or not flags & (PADDED | HAS_PRIORITY):
        return data[FRAME_HEAD:]
    start = FRAME_HEAD
    padding = 0
    if flags & PADDED:
        padding = data[start] if len(data) > start else 0
        start += 1
    if flags & HAS_PRIORITY:
        start += 5
    if start + padding > len(data):
        return None
    return data[start : len(data) - padding]
