"""How the h2 library is used. It keeps what is the same for every HTTP/2 endpoint: the states of streams, windows, settings.

It sees the frames of a connection after the engine has looked at their heads, and it never sees the fields of a message: they go around
it, to a policy of ours, because it ends the whole connection over one bad request, and a proxy in front has those of many clients on
one connection. So its HPACK decoder is replaced by one that keeps the fields for us and gives the library a request that it takes for
good, and its encoder by one that is given blocks that are encoded already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hpack import Decoder, Encoder
from hpack.struct import HeaderTuple

from cavalcade import limits
from cavalcade.wire.h1_response import Rules

ANY_REQUEST: list[HeaderTuple] = [HeaderTuple(b":method", b"GET")]
FINAL = [(b":status", b"200")]
INTERIM = [(b":status", b"100")]

KEPT_BLOCKS = 64  # decoded heads that are kept for one connection
KEPT_BLOCK_BYTES = 512

EMPTY_TABLE = b"\x20"  # RFC 7541 section 6.3: the encoder's dynamic table has size 0 from now on

LEARN_CLOSED = 32


class Fields:
    """The decoded fields of one header block. `read` is for whoever makes something of them, and lives as long as they do."""

    __slots__ = ("read", "size", "these")

    def __init__(self, these: list[HeaderTuple]) -> None:
        self.these = these
        # RFC 9113 section 6.5.2: the size of a field section, as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
        self.size = sum([len(name) + len(value) + 32 for name, value in these])
        self.read: Any = None


class FieldDecoder(Decoder):
    """HPACK. Blocks that change nothing in its table mean the same until one comes that does: they are decoded once."""

    def __init__(self, head_bytes: int) -> None:
        super().__init__(max_header_list_size=head_bytes * limits.H2_HEAD_FACTOR)
        self.fields = Fields([])  # of the last block
        self._kept: dict[bytes, Fields] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """For the library: what it gets says nothing."""
        kept = self._kept.get(data)
        if kept is not None:
            self.fields = kept
            return ANY_REQUEST
        entries = self.header_table.dynamic_entries
        count = len(entries)
        newest = entries[0] if count else None
        self.fields = Fields(list(super().decode(data, raw=True)))
        if len(entries) != count or (count and entries[0] is not newest):
            self._kept.clear()
        elif len(data) <= KEPT_BLOCK_BYTES:
            if len(self._kept) >= KEPT_BLOCKS:
                self._kept.clear()
            self._kept[bytes(data)] = self.fields
        return ANY_REQUEST


class BlockEncoder(Encoder):
    """Gives the library the block that was put into `block`.

    Responses do not use the dynamic table: each of their fields is encoded once for the whole process, and nothing can be learnt of one
    response from the size of another (RFC 7541 section 7.1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.block = b""
        self._say_empty = False

    @property
    def header_table_size(self) -> int:
        return 0

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        # RFC 7541 section 4.2: a smaller table must be confirmed. None at all is small enough for whatever comes.
        self._say_empty = True

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        block = self.block
        if self._say_empty:
            self._say_empty = False
            block = EMPTY_TABLE + block
        return block


class Library(H2Connection):
    """The server's end of one connection."""

    MAX_CLOSED_STREAMS = 1024

    decoder: FieldDecoder
    encoder: BlockEncoder

    def __init__(self, rules: Rules, connect: bool) -> None:
        config = H2Configuration(
            client_side=False,
            validate_inbound_headers=False,  # it would only see ANY_REQUEST
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(config)
        self.decoder = FieldDecoder(rules.head_bytes)
        self.encoder = BlockEncoder()
        self._opened = 0
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.H2_STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.H2_STREAM_WINDOW_BYTES,
            SettingCodes.MAX_FRAME_SIZE: limits.H2_FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: rules.head_bytes,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: int(connect),  # RFC 8441 section 3
        }
        self.local_settings = Settings(client=False, initial_values=settings)
        self.initiate_connection()
        self.increment_flow_control_window(limits.H2_CONNECTION_WINDOW_BYTES - 65535)

    @property
    def open_inbound_streams(self) -> int:
        """None, as far as the library's own limit goes: it would end the connection where the engine refuses one stream. Asked for at every
        new stream, and what the library then does by the way, forgetting closed ones, looks at all there are; now and then is enough."""
        self._opened += 1
        if self._opened % LEARN_CLOSED == 0:
            super().open_inbound_streams  # noqa: B018  asked for what it does
        return 0
