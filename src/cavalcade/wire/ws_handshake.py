"""The opening handshake of a WebSocket (RFC 6455 section 4.2; over HTTP/2 RFC 8441): is this request one, may it be, what is offered."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

from websockets.datastructures import Headers as FieldTable
from websockets.exceptions import InvalidHeader
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from cavalcade.errors import NotGet, PeerError, UpgradeRequired
from cavalcade.wire import fields
from cavalcade.wire.sink import Head

VERSION = b"13"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

# Nothing of one message is kept for the next, on either side: compression costs memory only while a message is at work, not for as long as
# a connection is open (about 50 KiB each otherwise). The windows are small for the same reason.
_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)


class Handshake:
    """A handshake that may be accepted. `fields` are those that the answer must have."""

    __slots__ = ("extensions", "fields", "subprotocols")

    def __init__(self, subprotocols: list[str], extensions: Sequence[Extension], fields: list[tuple[bytes, bytes]]) -> None:
        self.subprotocols = subprotocols
        self.extensions = extensions
        self.fields = fields


def is_websocket(head: Head) -> bool:
    """Does an HTTP/1 request that asks for another protocol ask for this one?

    RFC 9110 section 7.8: what it asks for in HTTP/1.0 is ignored.
    """
    if head.version == "1.0":
        return False
    return any(name == b"upgrade" and b"websocket" in map(bytes.strip, value.lower().split(b",")) for name, value in head.headers)


def read(head: Head, *, deflate: bool, keyed: bool = True) -> Handshake:
    """Check a handshake. `keyed` is that of HTTP/1.1; over HTTP/2 there is no key, and its method is no GET.

    Raises `PeerError`.
    """
    named: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        if name.startswith(b"sec-websocket-"):
            named.setdefault(name, []).append(value)
    answer = []
    if keyed:
        if head.method != "GET":
            raise NotGet(f"a WebSocket handshake by {head.method} instead of GET")
        if head.length:
            raise PeerError("a WebSocket handshake with a body")
        answer.append((b"sec-websocket-accept", _accept(named.get(b"sec-websocket-key", []))))
    versions = named.get(b"sec-websocket-version", [])
    if versions != [VERSION]:
        given = b", ".join(versions).decode("ascii", "backslashreplace")[:32] or "not given"
        raise UpgradeRequired(f"a WebSocket handshake whose Sec-WebSocket-Version is {given}, not 13")
    extensions: Sequence[Extension] = ()
    if deflate and b"sec-websocket-extensions" in named:
        value, extensions = _negotiate(named[b"sec-websocket-extensions"])
        if value:
            answer.append((b"sec-websocket-extensions", value))
    return Handshake(_subprotocols(named.get(b"sec-websocket-protocol", [])), extensions, answer)


def _accept(keys: list[bytes]) -> bytes:
    """What proves to the client that its key was read (RFC 6455 section 4.2.2)."""
    if len(keys) != 1:
        raise PeerError("more than one Sec-WebSocket-Key" if keys else "a WebSocket handshake without Sec-WebSocket-Key")
    try:
        nonce = base64.b64decode(keys[0], validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:
        raise PeerError("a Sec-WebSocket-Key that is not 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(keys[0] + GUID, usedforsecurity=False).digest())


def _subprotocols(values: list[bytes]) -> list[str]:
    offered = []
    for value in values:
        for name in value.split(b","):
            name = name.strip(b" \t")
            if not fields.TOKEN.fullmatch(name):
                raise PeerError("a Sec-WebSocket-Protocol that is not a list of names")
            offered.append(name.decode("ascii"))
    return offered


def _negotiate(values: list[bytes]) -> tuple[bytes, Sequence[Extension]]:
    protocol = ServerProtocol(extensions=[_DEFLATE])
    table = FieldTable([("Sec-WebSocket-Extensions", value.decode("latin-1")) for value in values])
    try:
        answer, extensions = protocol.process_extensions(table)
    except InvalidHeader:
        raise PeerError("a Sec-WebSocket-Extensions that cannot be understood") from None
    return (answer or "").encode("ascii"), extensions
