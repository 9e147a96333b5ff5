"""A transport that speaks TLS: to the connection above it is one like any other, to the plaintext one below it is a protocol.

The loops have such a layer of their own. This one is the same on each of them; it ends its own side while it reads on, as a plain
socket can, so that a response is not destroyed by a close; it has no timers, because the sweep has all deadlines; it knows what was
sent before there was any TLS; and it holds no buffer for an idle connection. OpenSSL does the rest, over two buffers in memory.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from cavalcade import limits
from cavalcade.net.transport import Transport

if TYPE_CHECKING:
    from cavalcade.net.link import Link

RECORD_BYTES = 16 * limits.KIB  # RFC 8446 section 5.1: no record holds more


class TlsTransport:
    """Made when the handshake is done; `link` is what it carries."""

    def __init__(self, raw: Transport, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, link: Link) -> None:
        self.raw = raw
        self.tls = tls
        # What an SSLObject passes reading and writing on to, at the price of a Python call each.
        self.records: Any = getattr(tls, "_sslobj", tls)
        self.incoming = incoming
        self.outgoing = outgoing
        self.link: Any = link
        self.read_paused = False
        self.input_over = False  # the client will send nothing more, or nothing that we want
        self.output_over = False  # close_notify is out
        self.unasked_bytes = 0

    # -- what the connection calls ---------------------------------------------------------------------------------------------

    def set_protocol(self, link: Link) -> None:
        self.link = link

    def get_protocol(self) -> Link:
        link: Link = self.link
        return link

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self.tls
        return self.raw.get_extra_info(name, default)

    def fileno(self) -> int:
        return self.raw.fileno()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet, encrypted."""
        return self.raw.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self.raw.is_closing()

    def write(self, data: bytes) -> None:
        if self.output_over or not data:
            return
        records = self.records
        try:
            done = records.write(data)
            if done != len(data):  # it takes a record at a time
                view = memoryview(data)
                while done < len(data):
                    done += records.write(view[done:])
        except ssl.SSLError as error:
            self.fail(error)
            return
        self.raw.write(self.outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """End our side, and read on."""
        self.end_output()
        if not self.raw.is_closing():
            self.raw.write_eof()

    def close(self) -> None:
        """Close after what was written has gone out. The client need not agree (RFC 8446 section 6.1)."""
        self.end_output()
        self.raw.close()

    def abort(self) -> None:
        """Close now and say nothing: a client can tell that this is not the proper end."""
        self.output_over = True
        self.raw.abort()

    def pause_reading(self) -> None:
        self.read_paused = True
        self.raw.pause_reading()

    def resume_reading(self) -> None:
        self.read_paused = False
        self.raw.resume_reading()
        if self.incoming.pending or self.tls.pending():
            # Not from here: this may be inside of an app's `receive`.
            self.link.context.loop.call_soon(self.pump)

    # -- what the transport below calls ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.input_over:
            self.incoming.write(data)
            if not self.read_paused:
                self.pump()

    def eof_received(self) -> bool:
        return not self.end_input()

    def connection_lost(self, error: BaseException | None) -> None:
        self.input_over = self.output_over = True
        self.link.connection_lost(error)
        self.link = None  # no circle, which only the garbage collector could undo

    def pause_writing(self) -> None:
        self.link.pause_writing()

    def resume_writing(self) -> None:
        self.link.resume_writing()

    # -- in between ----------------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Decrypt what is there and pass it on, for as long as the connection wants it."""
        read = self.records.read
        incoming = self.incoming
        while not (self.read_paused or self.input_over):
            # Room for what is there, which is less when it is decrypted; more than that would be asked of malloc, and given back.
            size = min(incoming.pending or RECORD_BYTES, RECORD_BYTES)
            try:
                data = read(size)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self.fail(error)
                return
            if not data:  # close_notify
                self.answer()
                self.end_input()
                return
            self.link.data_received(data)
            if not incoming.pending and len(data) < size:  # else OpenSSL may have more of this record
                break
        self.answer()

    def answer(self) -> None:
        """Send what TLS itself has to say: new keys, a refused renegotiation. So much of it is not a client but an attack."""
        if self.outgoing.pending and not self.output_over:
            data = self.outgoing.read()
            self.unasked_bytes += len(data)
            if self.unasked_bytes > limits.TLS_UNASKED_BYTES:
                self.complain("it asked for new keys again and again")
                self.link.abort()
                return
            self.raw.write(data)

    def end_input(self) -> bool:
        """The client sends nothing more; True where the connection is closed for it."""
        if self.input_over:
            return True
        self.input_over = True
        if self.link.eof_received():
            return False
        self.close()
        return True

    def end_output(self) -> None:
        """Say that this was all (close_notify), so that a client knows that nothing is missing."""
        if self.output_over:
            return
        self.output_over = True
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # it would wait for the client's; or TLS is broken already
            pass
        if self.outgoing.pending:
            self.raw.write(self.outgoing.read())

    def fail(self, error: ssl.SSLError) -> None:
        """What came is not TLS, or not whole: nothing that follows can be understood."""
        if self.input_over:
            return
        if self.output_over:  # OpenSSL takes nothing more once we have ended; what a client goes on to say is dropped, and not kept
            self.input_over = True
            self.incoming.read()
            return
        self.input_over = self.output_over = True
        self.complain(f"TLS: {reason(error)}")
        if self.outgoing.pending:
            self.raw.write(self.outgoing.read())  # the alert
        self.raw.abort()

    def complain(self, why: str) -> None:
        context = self.link.context
        context.tls_log.closed(context.now, self.link.peer(), why)


def reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    text = getattr(error, "verify_message", "") or (error.reason or str(error)).lower().replace("_", " ")
    return str(text)
