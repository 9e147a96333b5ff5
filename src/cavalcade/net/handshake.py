"""The beginning of a TLS connection, up to the moment when it is known which protocol follows.

What goes wrong here goes wrong before there is a request, so nobody can be answered, except for one: who speaks plain HTTP is told
so. Everybody else gets TLS's own alert, and the log one line with what can be done about it.
"""

from __future__ import annotations

import ssl
from typing import Any

from cavalcade.errors import PeerError
from cavalcade.net.context import ConnectionContext
from cavalcade.net.link import FIRST_BYTE, NOTHING, Link
from cavalcade.net.tls import HTTP2, Tls
from cavalcade.net.tls_transport import TlsTransport, reason
from cavalcade.types import Address

HANDSHAKE = 0x16  # the type of the first record of every TLS connection (RFC 8446 section 5.1)

# What to do about what OpenSSL says.
_HINTS = {
    "NO_SHARED_CIPHER": "the client knows none of our ciphers (ssl_ciphers), or none that fits the kind of our key",
    "UNSUPPORTED_PROTOCOL": "the client's TLS is older than ssl_minimum_version",
    "WRONG_VERSION_NUMBER": "not TLS, or a version that is long gone",
    "VERSION_TOO_LOW": "the client's TLS is older than ssl_minimum_version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has sent no certificate (ssl_cert_reqs required)",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not good (ssl_ca_certs, ssl_crl)",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate: is its chain in ssl_certfile?",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, by the client's clock",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the client does not speak our versions of TLS (ssl_minimum_version)",
}


class Handshake(Link):
    """A client that is not let in yet. It has as long as for the head of its first request, which is not begun anew after it."""

    def __init__(self, context: ConnectionContext, tls: Tls, client: Address | None, server: Address | None, opened_at: float) -> None:
        Link.__init__(self, context, "https", client, server, opened_at)
        self.tls = tls
        self.object: ssl.SSLObject | None = None
        self.incoming: ssl.MemoryBIO | None = None
        self.outgoing: ssl.MemoryBIO | None = None
        self.over = False

    # -- called by the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.attach(transport)
        self.deadline = self.context.now + self.context.head_s
        self.deadline_for = FIRST_BYTE

    def data_received(self, data: bytes) -> None:
        if self.over:
            return
        if self.object is None:
            if data[0] != HANDSHAKE:
                self.refuse_plain(data)
                return
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.object = self.tls.front.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.incoming.write(data)  # type: ignore[union-attr]
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
        except ssl.SSLError as error:
            self.flush()  # the alert
            hint = _HINTS.get(error.reason or "", "")
            self.fail(f"TLS handshake failed: {reason(error)}{f'; {hint}' if hint else ''}")
        else:
            self.flush()
            self.succeeded(self.object)

    def eof_received(self) -> bool:
        if self.object is not None and not self.over:
            self.fail("it left in the middle of the TLS handshake; does it trust our certificate?")
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        if self.object is not None and not self.over:
            self.fail("it left in the middle of the TLS handshake; does it trust our certificate?")
        Link.connection_lost(self, error)

    # -- outcomes ------------------------------------------------------------------------------------------------------------

    def succeeded(self, tls: ssl.SSLObject) -> None:
        """The client may speak."""
        assert self.incoming is not None
        assert self.outgoing is not None
        self.over = True
        raw = self.transport
        context = self.context
        speaks_http2 = context.http2 is not None and tls.selected_alpn_protocol() == HTTP2
        make: Any = context.http2 if speaks_http2 else context.connection_class
        link: Link = make(context, "https", self.client, self.server, self.opened_at, self.tls.extension(tls))
        transport = TlsTransport(raw, tls, self.incoming, self.outgoing, link)
        context.connections.discard(self)
        raw.set_protocol(transport)
        deadline = self.deadline
        link.connection_made(transport)
        if link.deadline_for == FIRST_BYTE:
            link.deadline = deadline
        if self.write_paused:
            link.pause_writing()
        if self.incoming.pending:  # its request has come along with the end of the handshake
            transport.pump()

    def refuse_plain(self, data: bytes) -> None:
        """Not TLS. Where it is HTTP, the client, or whoever has configured it, is told so in plain text."""
        self.over = True
        if not data[:1].isupper():
            self.fail(f"neither TLS nor HTTP: it began {data[:16]!r}")
            return
        connection = self.context.connection_class(self.context, "http", self.client, self.server, self.opened_at)
        self.deadline = 0.0
        connection.succeed(self)
        connection.refuse(PeerError("plain HTTP spoken to an HTTPS port", fix="use https:// here"), data)

    def fail(self, why: str) -> None:
        """No connection comes of it."""
        self.over = True
        self.deadline = 0.0
        self.context.tls_log.closed(self.context.now, self.peer(), why)
        self.transport.close()

    def flush(self) -> None:
        assert self.outgoing is not None
        if self.outgoing.pending and not self.transport.is_closing():
            self.transport.write(self.outgoing.read())

    # -- what every link has -------------------------------------------------------------------------------------------------

    def stop_parsing(self) -> None:
        self.over = True

    def abandon(self) -> None:
        """Nobody waits for it."""

    def on_deadline(self, now: float) -> None:
        if self.object is not None and not self.over:
            self.context.tls_log.closed(now, self.peer(), f"no whole TLS handshake within {self.context.head_s:g} s (head_timeout)")
        self.deadline_for = NOTHING
        self.over = True
        self.transport.abort()

    def drain(self) -> None:
        """It goes on, for its request may be on its way; after the last call it is over."""
        if not self.context.last_call:
            self.over = True
            self.transport.abort()

    def is_idle(self) -> bool:
        return False

    def close_idle(self) -> None:
        """It is not idle; its deadline is near."""
