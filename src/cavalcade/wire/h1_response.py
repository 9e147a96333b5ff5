"""The response side of the HTTP/1 engine: the head that an app gives is checked and framed here.

It is tied to the request that it answers, because HEAD, HTTP/1.0 and `Connection: close` decide how a response is framed; so it is
the base class of the engine, and not a thing beside it.

This file is plain Python and, compiled with the h1_response.pxd beside it, an extension module. No `async def` in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cavalcade import limits
from cavalcade.errors import AppProtocolError
from cavalcade.wire import fields
from cavalcade.wire.fields import (
    CONTENT_LENGTH,
    PLAIN,
    RESPONSE_FIELDS,
    STATUS_LINES,
    learn_response_field,
)
from cavalcade.wire.sink import Head

CRLF = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
END_OF_CHUNKS = CRLF + LAST_CHUNK

# All fields of a response head, as an app gives them -> (their lines, the length that they state or -1). Most apps give the same few heads
# again and again. Bounded, and only of short fields.
RESPONSE_HEADS: dict[object, tuple[bytes, int]] = {}
RESPONSE_HEADS_MAX = 512
RESPONSE_HEAD_KEPT_FIELDS = 16


class Rules:
    """The limits of one listener, and what every response of it carries."""

    def __init__(
        self,
        *,
        request_line: int = limits.REQUEST_LINE_BYTES,
        header_fields: int = limits.HEADER_FIELDS,
        head_bytes: int = limits.HEAD_BYTES,
        body_bytes: int = 0,
        server: bytes = b"",
    ) -> None:
        self.request_line = request_line
        self.header_fields = header_fields
        self.head_bytes = head_bytes
        self.body_bytes = body_bytes
        self.server = b"\r\nserver: " + server if server else b""
        self.date = b""
        self.common = self.server

    def set_date(self, date: bytes) -> None:
        """The Date of all responses from now on; called once a second."""
        self.date = b"\r\ndate: " + date
        self.common = self.date + self.server


class Responses:
    """How the responses of one connection are framed. `head` is the request that is answered, `keep_alive` whether another may follow."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.head = Head()
        self.keep_alive = True
        self.response_lines: list[bytes] = []  # the status line and the app's fields, checked
        self.response_common = b""
        self.response_status = 0
        self.response_length = -1  # -1 when the app gave none
        self.response_left = 0
        self.response_chunked = False
        self.response_bodiless = False
        self.head_due = False  # `start_response` was called, its head is not out yet

    def start_response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check and keep a response head; it goes out with the first body. Raises `AppProtocolError`, with nothing kept."""
        if type(status) is not int:
            status = fields.plain_status(status)
        line = STATUS_LINES.get(status)
        if line is None:
            line = fields.status_line(status)
        self.response_common = self.rules.common
        try:
            given = tuple(headers)
            try:
                known = RESPONSE_HEADS.get(given)
            except TypeError:  # a list, or what has one in it, cannot be looked up
                known = None
            if known is not None and status != 204:
                self.response_lines = [line, known[0]]
                self.response_length = known[1]
            else:
                self.read_fields(line, given, status)
        except TypeError as error:
            raise fields.explain_bad_headers([]) from error
        # RFC 9112 section 6.3: these never have a body, whatever their headers say.
        self.response_bodiless = status == 204 or status == 304 or self.head.method == "HEAD"
        self.response_status = status
        self.head_due = True

    def read_fields(self, line: bytes, given: tuple[Any, ...], status: int) -> None:
        """Check the fields of a head that is not in the table as a whole."""
        out = [line]
        length = -1
        special = status == 204
        learnt = len(given) > RESPONSE_HEAD_KEPT_FIELDS
        for field in given:
            try:
                entry = RESPONSE_FIELDS.get(field)
            except TypeError:
                entry = None
            if entry is None:
                entry = learn_response_field(field)
                learnt = True
            if entry[1]:
                if entry[1] == CONTENT_LENGTH and length == -1:
                    length = entry[2]
                else:
                    special = True
            out.append(entry[0])
        if special:
            out = self.start_special(out, status)
        elif not learnt:
            # Each of its fields was here before: it may be so again with all of them.
            if len(RESPONSE_HEADS) >= RESPONSE_HEADS_MAX:
                RESPONSE_HEADS.clear()
            RESPONSE_HEADS[given] = b"".join(out[1:]), length
        self.response_lines = out
        self.response_length = length

    def start_special(self, seen: list[bytes], status: int) -> list[bytes]:
        """The lines again, of a head with fields that the server has a say in."""
        out = seen[:1]
        length = -1
        dated = named = closing = False
        for line in seen[1:]:
            name, _, value = line[2:].partition(b": ")
            kind = fields.kind_of(name.lower())
            if kind == PLAIN:
                pass
            elif kind == CONTENT_LENGTH:
                given = fields.response_length(value)
                if length not in (-1, given):
                    raise AppProtocolError(f"two content-length headers that differ: {length} and {given}")
                if length == given or status == 204:
                    continue  # once is enough; RFC 9110 section 8.6: no Content-Length in a 204
                length = given
            elif kind == fields.TRANSFER_ENCODING:
                continue  # ASGI: the server frames the response, so this one is ours
            elif kind == fields.CONNECTION:
                closing = closing or b"close" in value.lower()
                continue  # hop by hop, so ours too
            dated = dated or kind == fields.DATE
            named = named or kind == fields.SERVER
            out.append(line)
        if closing:
            self.keep_alive = False
        self.response_common = (b"" if dated else self.rules.date) + (b"" if named else self.rules.server)
        return out

    def reword(self, reason: bytes) -> None:
        """Give the head that is kept a reason phrase other than the usual one; it has been checked."""
        self.response_lines[0] = b"HTTP/1.1 %d " % self.response_status + reason

    def respond(self, body: bytes) -> bytes:
        """The whole response, where the head is still due and `body` is all of the body. Raises as `frame` does."""
        if self.response_length == len(body) and self.keep_alive and not self.response_bodiless and self.head.version == "1.1":
            # The usual response: everything is known, one join makes it.
            self.head_due = False
            self.response_left = 0
            out = self.response_lines
            out.append(self.response_common)
            out.append(END_OF_HEAD)
            out.append(body)
            return b"".join(out)
        before, _ = self.frame(len(body), False)
        return before if self.response_bodiless else before + body

    def frame(self, size: int, more: bool) -> tuple[bytes, bytes]:
        """What goes before and after a piece of body of `size` bytes; before the first piece, that is the head.

        The caller puts the three on the wire, and leaves the piece itself out when `response_bodiless` is set. Raises
        `AppProtocolError` when the body is longer than its Content-Length. With `more` False the response is complete;
        `response_short()` then tells whether the body was shorter.
        """
        before = b""
        if self.head_due:
            if 0 <= self.response_length < size and not self.response_bodiless:
                raise self.too_long(size)  # and the head is still not out: this can become a 500
            before = self.take_head(size, more)
        if self.response_bodiless:
            return before, b""
        if self.response_chunked:
            if size == 0:
                return before, b"" if more else LAST_CHUNK
            return before + b"%x\r\n" % size, CRLF if more else END_OF_CHUNKS
        if self.response_length >= 0:
            self.response_left -= size
            if self.response_left < 0:
                raise self.too_long(self.response_length - self.response_left)
        return before, b""

    def too_long(self, sent: int) -> AppProtocolError:
        return AppProtocolError(
            f"the response body is longer than its Content-Length: {sent} bytes instead of {self.response_length}",
        )

    def take_head(self, size: int, more: bool) -> bytes:
        """The response head with its framing; `size` bytes of body follow at once, and `more` tells whether others do."""
        self.head_due = False
        framing = b""
        self.response_chunked = False
        if self.response_length < 0:
            if not more:
                # RFC 9110 section 8.6: a 204 has none; a 304, or an answer to HEAD, would need that of the body it does not have.
                if self.response_status != 204 and self.response_status != 304 and (size or not self.response_bodiless):
                    self.response_length = size
                    framing = b"\r\ncontent-length: %d" % size
            elif self.response_bodiless:
                pass
            elif self.head.version == "1.1":
                self.response_chunked = True
                framing = b"\r\ntransfer-encoding: chunked"
            else:
                self.keep_alive = False  # RFC 9112 section 6.3: such a body ends with the connection
        self.response_left = self.response_length
        if not self.keep_alive:
            framing += b"\r\nconnection: close"
        elif self.head.version == "1.0":
            framing += b"\r\nconnection: keep-alive"
        return b"".join((*self.response_lines, self.response_common, framing, END_OF_HEAD))

    def early_hints(self, links: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A 103 (RFC 8297); empty for a client of HTTP/1.0, which knows no interim responses (RFC 9110 section 15.2). Raises
        `AppProtocolError`."""
        fields.check_fields(links)
        if self.head.version != "1.1":
            return b""
        return b"HTTP/1.1 103 Early Hints" + _lines(links) + END_OF_HEAD

    def end_chunks(self, trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The last chunk and trailer fields that have been checked (RFC 9112 section 7.1.2); empty where the body is no chunked one and
        can have none."""
        if not self.response_chunked or self.response_bodiless:
            return b""
        return b"0" + _lines(trailers) + END_OF_HEAD

    def switch_protocols(self, protocol: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The 101 that changes the protocol of the connection (RFC 9110 section 15.2.2). Raises `AppProtocolError`, with nothing kept."""
        self.start_response(200, headers)
        self.head_due = False
        self.response_status = 101
        start = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: " + protocol + b"\r\nconnection: upgrade"
        return b"".join((start, *self.response_lines[1:], self.response_common, END_OF_HEAD))

    def response_short(self) -> int:
        """How many bytes a complete response lacks of its Content-Length."""
        return self.response_left if self.response_length > 0 and not self.response_bodiless else 0


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Field lines that have been checked, each with the line end before it."""
    return b"".join([fields.RESPONSE_NAMES.get(name, (b"\r\n" + name + b": ",))[0] + value for name, value in headers])
