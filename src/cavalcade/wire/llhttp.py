"""What llhttp (through httptools) says, in our terms."""

from __future__ import annotations

import httptools

from cavalcade.errors import BodyTooLarge, NotImplementedByServer, PeerError, VersionNotSupported
from cavalcade.wire import fields

STOPS = (httptools.HttpParserUpgrade, httptools.HttpParserError)  # everything that `feed_data` raises

PROXY_V2 = b"\0\r\nQUIT\n"  # what is left of its signature without the line ends before it
TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS record with a ClientHello in it


def raise_reason(error: Exception, data: bytes) -> bool:
    """Raise the `PeerError` that `error` stands for; returns True where it only says that the peer asks for another protocol."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return True
    if isinstance(error, httptools.HttpParserCallbackError):
        raise error.__context__ if isinstance(error.__context__, PeerError) else error
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        if data[:1] == TLS_HANDSHAKE:
            raise PeerError(
                "TLS spoken to a plain HTTP port", fix="use http:// here, or give the server --ssl-certfile and --ssl-keyfile"
            ) from None
        if data.startswith((b"PROXY ", PROXY_V2)):
            raise PeerError("a PROXY protocol header at an address that expects none", fix="bind it with ?proxy_protocol=on") from None
        method = data.partition(b" ")[0]
        if len(method) < 32 and fields.TOKEN.fullmatch(method):
            raise NotImplementedByServer("not an HTTP method") from None
        raise PeerError("not HTTP") from None
    reason = str(error)
    if reason == "Invalid HTTP version":
        raise VersionNotSupported("an HTTP version that does not exist") from None
    if "overflow" in reason:
        raise BodyTooLarge(reason) from None
    raise PeerError(reason) from None
