"""How the h2 library is used. It keeps what is the same for every HTTP/2 endpoint: the states of streams, windows, settings.

It sees the frames of a connection after the engine has looked at their heads, and it never sees the fields of a message: they go around
it, to a policy of ours, because it ends the whole connection over one bad request, and a proxy in front has those of many clients on
one connection. So it is told of a request without its fields, and its encoder is one that is given blocks that are encoded already.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hpack import Encoder

from cavalcade import limits
from cavalcade.wire.h1_response import Rules

NO_FIELDS = b"\x82"  # a header block that says ":method: GET", which is enough of a message for the library
FINAL = [(b":status", b"200")]
INTERIM = [(b":status", b"100")]

EMPTY_TABLE = b"\x20"  # RFC 7541 section 6.3: the encoder's dynamic table has size 0 from now on

LEARN_CLOSED = 32


class BlockEncoder(Encoder):
    """Gives the library the block that was put into `block`.

    Responses do not use the dynamic table: each of their fields is encoded once for the whole process, and nothing can be learnt of one
    response from the size of another (RFC 7541 section 7.1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.block = b""  # of the next head
        self.say_empty = False

    @property
    def header_table_size(self) -> int:
        return 0

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        # RFC 7541 section 4.2: a smaller table must be confirmed. None at all is small enough for whatever comes.
        self.say_empty = True

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        block = self.block
        if self.say_empty:
            self.say_empty = False
            block = EMPTY_TABLE + block
        return block


class Library(H2Connection):
    """The server's end of one connection."""

    MAX_CLOSED_STREAMS = 1024

    encoder: BlockEncoder

    def __init__(self, rules: Rules, connect: bool) -> None:
        config = H2Configuration(
            client_side=False,
            validate_inbound_headers=False,  # it sees none
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(config)
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
