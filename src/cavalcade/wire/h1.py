"""The HTTP/1.1 and HTTP/1.0 engine: llhttp (through httptools) tokenizes, the policy here decides.

How it works. A head that comes in one piece and leaves no doubt is read line by line from tables (h1_plain.py); llhttp, which keeps
nothing from one message to the next, does not see it, nor a body of known length behind it. Everything else is llhttp's.

It cannot be stopped in the middle of its input, so bytes are cut before they reach it: one call gets at most one head, or the rest of one
body. That gives three things: the app is started outside of a parser callback; a pipelined request is not even parsed before the one in
front of it is answered; and our own idea of where a message ends must agree with llhttp's, or the connection is refused (two parsers that
disagree are how requests are smuggled).

    HEAD --head is whole--> BODY --body is whole--> WAIT --response is done, `next_request()`--> HEAD
         `---- no body -------------------------------^

The response side is the base class, in h1_response.py.

This file is plain Python and, compiled with the h1.pxd beside it, an extension module. No `async def` in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httptools

from cavalcade import limits
from cavalcade.errors import (
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    NotImplementedByServer,
    PeerError,
    TargetTooLong,
    VersionNotSupported,
)
from cavalcade.wire import fields, llhttp
from cavalcade.wire.fields import (
    HOST_FIELD,
    METHODS,
    REQUEST_NAMES,
    known_hosts,
    learn_request_name,
)
from cavalcade.wire.h1_plain import LINES, NO_BLOCK, NOTHING_KNOWN, Known, read_block, read_line
from cavalcade.wire.h1_response import CRLF, END_OF_HEAD, Responses, Rules
from cavalcade.wire.sink import Sink
from cavalcade.wire.target import TARGETS, read_target

# What RFC 9113 section 3.4 lets a connection of HTTP/2 begin with, as far as it looks like a request.
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
NO_HTTP2 = "HTTP/2 is served where it is not switched off, h2 is installed (pip install 'cavalcade[http2]'), and it comes first"

# llhttp is faster at what is new each time. So after that many heads of this kind ...
STRANGE = 3
STRANGE_TURNS = 16  # ... it gets the next ones at once, and only one in so many is tried

# Where in a message the input stands.
HEAD, BODY_LENGTH, BODY_CHUNKED, WAIT, CLOSED = range(5)
# Where in a chunked body.
SIZE_LINE, CHUNK_DATA, TRAILERS = range(3)


class H1(Responses):
    """One connection's engine. `feed` raises `PeerError`, after which only `refuse` may be called."""

    def __init__(self, sink: Sink, rules: Rules) -> None:
        super().__init__(rules)
        self.sink: Any = sink
        self.parser: Any = None  # made when it is needed: many connections never do
        self.plain = False  # the message was not given to it
        self.block = NO_BLOCK  # the fields of a plain head, as they came ...
        self.known = NOTHING_KNOWN  # ... and read
        self.block_bytes = 0  # how long those of the last plain head were
        self.strange = 0  # so many heads in a row were not plain, or had little in them that was known
        self.state = HEAD
        self.feeding = False
        self.rest = b""  # bytes behind the message that is being answered, not parsed yet
        # the request
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.hosts = 0
        self.length = -2  # -2 not given, -1 chunked
        self.expects_continue = False
        self.tail = b""  # the last bytes of an unfinished head, where its end may have begun
        self.head_bytes = 0
        self.body_left = 0
        self.body_seen = 0
        self.chunk_state = SIZE_LINE
        self.chunk_left = 0
        self.line = b""
        self.spans: list[bytes] = []
        self.head_complete = False
        self.complete = False
        self.empty_bytes = 0  # line ends before the request line

    # -- bytes in --------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Parse as far as the message that is being answered allows, and not more requests at a time than is fair to others; the
        rest waits for `next_request()`."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        self.feeding = True
        turns = 0
        try:
            if self.state == HEAD:
                data = self.feed_head(data)
            while data:
                state = self.state
                if state == HEAD:
                    turns += 1
                    if turns >= limits.PIPELINED_PER_TURN:
                        self.rest = data
                        return
                    data = self.feed_head(data)
                elif state == BODY_LENGTH:
                    data = self.feed_length(data)
                elif state == BODY_CHUNKED:
                    data = self.feed_chunked(data)
                elif state == WAIT:
                    self.rest = data
                    return
                else:
                    return
        except PeerError:
            self.state = CLOSED
            raise
        finally:
            self.feeding = False

    def next_request(self) -> None:
        """The response is done, or others had their turn: go on with what the peer has sent meanwhile. Raises as `feed` does."""
        if self.state == WAIT:
            self.state = HEAD
        elif self.state != HEAD:
            return
        if self.rest and not self.feeding:
            data = self.rest
            self.rest = b""
            self.feed(data)

    def close(self) -> None:
        """Whatever comes now is not for us."""
        self.state = CLOSED
        self.rest = b""

    def release(self) -> None:
        """Close for good. Without the circles of references the memory is free at once, and not when the garbage collector comes by."""
        self.close()
        self.sink = self.parser = None

    def due(self) -> bool:
        """Is there something to go on with, as soon as others had their turn?"""
        return self.state == HEAD and bool(self.rest)

    def idle(self) -> bool:
        """Is this between two requests, with not a byte of the next one here?"""
        return self.state == HEAD and self.head_bytes == 0 and not self.rest

    def feed_head(self, data: bytes) -> bytes:
        size = len(data)
        if self.head_bytes == 0:
            first = data[0]
            if first == 13 or first == 10:
                # RFC 9112 section 2.2: ignore at least one empty line before the request line.
                data = data.lstrip(CRLF)
                self.empty_bytes += size - len(data)
                if self.empty_bytes > limits.LEADING_EMPTY_LINES_BYTES:
                    raise PeerError("empty lines in place of a request")
                if not data:
                    return data
                size = len(data)
            end = data.find(END_OF_HEAD)
            if end >= 0:
                if self.take_plain(data, end):
                    end += 4
                    return data[end:] if end != size else b""
                end += 4
            self.begin_parsing()
        else:
            tail = self.tail
            end = (tail + data).find(END_OF_HEAD)
            if end >= 0:
                end += 4 - len(tail)  # that many bytes of `data` belong to the head: 1, 2 or 3 where its end was cut
        rest = b""
        if end < 0:
            self.tokenize(data)
            self.stay_in_head(data)
            return rest
        if end != size:
            rest = data[end:]
            data = data[:end]
        try:
            self.parser.feed_data(data)
            upgrade = False
        except llhttp.STOPS as error:
            upgrade = llhttp.raise_reason(error, data)
        if self.head_bytes + end > self.rules.head_bytes:
            self.stay_in_head(data)  # says so if it is the request line
            raise HeadTooLarge(f"request head over {self.rules.head_bytes} bytes (limit_request_head)")
        if not self.head_complete:
            if self.url == b"*":  # RFC 9113 section 3.4: PRI * HTTP/2.0
                if self.head_bytes + end == len(PREFACE) and not self.empty_bytes and self.sink.on_preface(PREFACE + rest):
                    self.close()
                    self.head_bytes = 0
                    return b""
                raise VersionNotSupported("an HTTP/2 preface where HTTP/1.1 is spoken", fix=NO_HTTP2)
            raise PeerError("the request head ends where none should")
        self.finish_head(upgrade, data)
        return rest

    def take_plain(self, data: bytes, end: int) -> bool:
        """Hand over the request whose head ends `end` bytes into `data`, with the empty line to come. False, and nothing done, unless
        the head is plain."""
        if self.strange >= STRANGE:
            self.strange = self.strange + 1 if self.strange < STRANGE_TURNS else STRANGE - 1
            return False
        rules = self.rules
        cut = data.find(CRLF)
        text = data[:cut]
        line = LINES.get(text)
        if line is None:
            line = read_line(text)
        if line is None or cut > rules.request_line or end + 4 > rules.head_bytes:
            return False
        block = data[cut:end]
        known: Known | None
        if block == self.block:
            known = self.known  # the same fields as before: nothing to read
            self.strange = 0
        else:
            known = read_block(block, rules.header_fields)
            if known is None:
                self.strange += 1
                return False
            self.strange = self.strange + 1 if known[4] else 0
            if len(block) == self.block_bytes and len(block) <= limits.BLOCK_KEPT_BYTES:
                # As long as the one before it, so it may well be the same again and again. Who asks once costs no memory.
                self.block = block
                self.known = known
            self.block_bytes = len(block)
        head = self.head
        head.method, head.target, head.path, head.raw_path, head.query = line
        head.version = "1.1"
        head.headers = known[0].copy()  # the app may change it
        head.forwarded = known[3]
        head.upgrade = False
        head.keep_alive = self.keep_alive = known[2]
        self.plain = self.head_complete = True
        self.empty_bytes = 0
        self.expects_continue = False
        self.begin(known[1], False)
        return True

    def begin_parsing(self) -> None:
        """llhttp gets the next head."""
        self.plain = False
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        if self.headers:
            self.headers = []  # trailer fields of the request before
        self.url = b""
        self.length = -2
        self.hosts = 0
        self.expects_continue = False
        self.head.forwarded = False
        self.head_complete = False
        self.complete = False

    def stay_in_head(self, data: bytes) -> None:
        """The head goes on: check what is there of it."""
        self.head_bytes += len(data)
        rules = self.rules
        line = self.line
        if line[-1:] != b"\n":
            start, newline, _ = (line + data).partition(b"\n")
            if len(start) > rules.request_line + 1:
                raise TargetTooLong(f"request line over {rules.request_line} bytes (limit_request_line)")
            self.line = start + newline
        if self.head_bytes > rules.head_bytes:
            raise HeadTooLarge(f"request head over {rules.head_bytes} bytes (limit_request_head)")
        self.tail = (self.tail + data)[-3:]

    def tokenize(self, data: bytes) -> None:
        """Give bytes to llhttp."""
        try:
            self.parser.feed_data(data)
        except llhttp.STOPS as error:
            llhttp.raise_reason(error, data)

    def finish_head(self, upgrade: bool, data: bytes) -> None:
        """The policy: what llhttp lets through and RFC 9112 does not, then hand the request over. `data` ends the head."""
        head = self.head
        parser = self.parser
        url = self.url
        headers = self.headers
        self.headers = []  # trailer fields, if any, go there: ASGI has no place for them
        method = parser.get_method()
        length = self.length
        if self.head_bytes == 0:
            line = data
        else:
            self.head_bytes = 0
            self.tail = b""
            line = self.line
            if line[-1:] != b"\n":
                line += data
            self.line = b""
        if line.startswith(b"HTTP/1.1\r\n", len(method) + len(url) + 2):
            version = "1.1"
        else:
            version = self.read_version(line, len(method) + len(url) + 2)
        if self.empty_bytes:
            self.empty_bytes = 0
        if version == "1.1":
            # RFC 9112 section 3.2: no Host, or more than one, in a 1.1 request is answered with 400.
            if self.hosts != 1:
                raise PeerError("an HTTP/1.1 request without a Host header" if self.hosts == 0 else "more than one Host header")
        else:
            self.check_old_version(version)
        if len(headers) > self.rules.header_fields:
            raise HeadTooLarge(f"more than {self.rules.header_fields} header fields (limit_request_fields)")
        if len(url) + len(method) + 10 > self.rules.request_line:
            raise TargetTooLong(f"request line over {self.rules.request_line} bytes (limit_request_line)")
        name = METHODS.get(method)
        if name is None:
            name = fields.read_method(method)
        split = TARGETS.get(url)
        if split is None:
            split = read_target(url, method, headers)
        head.method = name
        head.version = version
        head.headers = headers
        head.target = url
        head.path, head.raw_path, head.query = split
        head.keep_alive = self.keep_alive
        head.upgrade = upgrade
        self.begin(length, upgrade)

    def begin(self, length: int, upgrade: bool) -> None:
        """The head is read, but for what depends on the body."""
        head = self.head
        if length == -2 or length == 0:
            head.expects_continue = False
            head.length = 0
            self.state = WAIT
        else:
            self.expect_body(length, upgrade)
        self.sink.on_request(head)

    def read_version(self, line: bytes, at: int) -> str:
        """The version of a request line that does not end in HTTP/1.1 `at` the place where it should. llhttp takes more than one
        space, and the names of other protocols; that is not what RFC 9112 section 3 calls a request line."""
        version: str = self.parser.get_http_version()
        if version != "0.9" and not line.startswith(b"HTTP/", at):
            raise PeerError("a request line that is not: method, one space, target, one space, HTTP version")
        if line.find(b"\n") > self.rules.request_line + 1:
            raise TargetTooLong(f"request line over {self.rules.request_line} bytes (limit_request_line)")
        return version

    def check_old_version(self, version: str) -> None:
        if version != "1.0":
            raise VersionNotSupported(f"HTTP/{version} in a request line")
        if self.hosts > 1:
            raise PeerError("more than one Host header")
        if self.length == -1:
            # RFC 9112 section 6.1: a 1.0 message with Transfer-Encoding has faulty framing.
            raise PeerError("Transfer-Encoding in an HTTP/1.0 request")

    def expect_body(self, length: int, upgrade: bool) -> None:
        head = self.head
        head.length = length
        # RFC 9110 section 10.1.1: a 100-continue expectation in a 1.0 request, or without a body, is ignored.
        head.expects_continue = self.expects_continue and head.version == "1.1"
        self.body_seen = 0
        if upgrade:
            self.decline_upgrade()
        if length == -1:
            self.state = BODY_CHUNKED
            self.chunk_state = SIZE_LINE
        else:
            if 0 < self.rules.body_bytes < length:
                raise BodyTooLarge(f"Content-Length over {self.rules.body_bytes} bytes (limit_request_body)")
            self.state = BODY_LENGTH
            self.body_left = length

    def decline_upgrade(self) -> None:
        """llhttp takes what follows an upgrade for another protocol. We do not change it under a request that has a body, so a
        fresh parser is told of the body's framing, unheard, and goes on."""
        self.parser = httptools.HttpRequestParser(self)
        framing = b"Transfer-Encoding: chunked" if self.length == -1 else b"Content-Length: %d" % self.length
        self.length = -2
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + END_OF_HEAD)
        self.complete = False
        self.keep_alive = self.head.keep_alive

    def feed_length(self, data: bytes) -> bytes:
        left = self.body_left
        if len(data) > left:
            rest = data[left:]
            data = data[:left]
        else:
            rest = b""
        self.body_left = left - len(data)
        if self.plain:
            self.spans.append(data)
            self.complete = self.body_left == 0
        else:
            self.tokenize(data)
        self.deliver(self.body_left == 0)
        return rest

    def feed_chunked(self, data: bytes) -> bytes:
        end = self.frame_chunks(data)
        rest = b""
        ended = end >= 0
        if ended:
            rest = data[end:]
            data = data[:end]
        self.tokenize(data)
        if 0 < self.rules.body_bytes < self.body_seen:
            raise BodyTooLarge(f"chunked body over {self.rules.body_bytes} bytes (limit_request_body)")
        self.deliver(ended)
        return rest

    def deliver(self, ended: bool) -> None:
        if ended != self.complete:
            raise PeerError("the body does not end where its framing says")
        spans = self.spans
        if spans:
            body = spans[0] if len(spans) == 1 else b"".join(spans)
            self.spans = []
            self.sink.on_body(body)
        if ended:
            if self.state != CLOSED:
                self.state = WAIT
            self.sink.on_end()

    def frame_chunks(self, data: bytes) -> int:
        """Follow the framing of a chunked body (RFC 9112 section 7.1): where it ends in `data`, or -1.

        llhttp decodes and checks; here is only what it does not tell: the sizes, so that absurd ones are refused, and the end.
        """
        at = 0
        size = len(data)
        while at < size:
            if self.chunk_state == CHUNK_DATA:
                step = min(self.chunk_left, size - at)
                self.chunk_left -= step
                at += step
                if self.chunk_left == 0:
                    self.chunk_state = SIZE_LINE
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self.line += data[at:]
                at = size
            else:
                self.line += data[at : newline + 1]
                at = newline + 1
            if len(self.line) > limits.CHUNK_LINE_BYTES and self.chunk_state == SIZE_LINE:
                raise PeerError("a chunk-size line over its limit")
            if self.head_bytes + len(self.line) > self.rules.head_bytes:
                raise HeadTooLarge(f"trailer fields over {self.rules.head_bytes} bytes (limit_request_head)")
            if newline < 0:
                break
            line = self.line
            self.line = b""
            if self.chunk_state == TRAILERS:
                self.head_bytes += len(line)
                if line == CRLF:
                    self.head_bytes = 0
                    return at
            else:
                self.read_chunk_size(line)
        return -1

    def read_chunk_size(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        try:
            length = int(digits, 16) if digits.isalnum() else -1
        except ValueError:
            length = -1
        if length < 0:
            raise PeerError("a chunk size that is not a hexadecimal number")
        if length > limits.LENGTH_MAX:
            raise BodyTooLarge("a chunk size beyond any sense")
        if length == 0:
            self.chunk_state = TRAILERS
        else:
            self.body_seen += length
            self.chunk_state = CHUNK_DATA
            self.chunk_left = length + 2

    # -- llhttp's callbacks: they collect, and refuse what must not go on ----------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        entry = REQUEST_NAMES.get(name)
        if entry is None:
            entry = learn_request_name(name)
        # RFC 9110 section 5.5: white space around a value is not part of it. llhttp leaves what follows it.
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        self.headers.append((entry[0], value))
        kind = entry[1]
        if kind:
            if kind == HOST_FIELD and value in known_hosts:
                self.hosts += 1
            else:
                self.on_special(kind, value)

    def on_special(self, kind: int, value: bytes) -> None:
        if kind == fields.FORWARDING:
            self.head.forwarded = True
        elif kind == fields.HOST_FIELD:
            fields.check_host(value)
            self.hosts += 1
        elif kind == fields.CONTENT_LENGTH:
            if len(value) > 20 or int(value) > limits.LENGTH_MAX:
                raise BodyTooLarge("a Content-Length beyond any sense")
            self.length = int(value)
        elif kind == fields.TRANSFER_ENCODING:
            if value.lower() != b"chunked" or self.length == -1:
                # RFC 9112 section 6.1: a coding that the server does not understand is answered with 501.
                raise NotImplementedByServer("a Transfer-Encoding other than chunked")
            self.length = -1
        elif kind == fields.EXPECT:
            if value.lower() != b"100-continue":
                raise ExpectationFailed("an Expect other than 100-continue")
            self.expects_continue = True

    def on_headers_complete(self) -> None:
        self.head_complete = True
        # Asked here and not later: at the end of a message llhttp forgets the fields that it depends on.
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.spans.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    # -- bytes out, beside those of an app's response ----------------------------------------------------------------------

    def refuse(self, status: int, text: str, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """A whole error response of our own that ends the connection; `more` are further fields of it."""
        self.keep_alive = False
        body = text.encode("utf-8", "replace") + b"\n"
        head = fields.status_line(status) + b"\r\ncontent-type: text/plain; charset=utf-8" + self.rules.common
        for name, value in more:
            head += b"\r\n" + name + b": " + value
        # A HEAD request is answered without a body; before its head is whole there is no method, then one does no harm.
        bodiless = self.head_complete and (self.head.method == "HEAD" if self.plain else self.parser.get_method() == b"HEAD")
        return head + b"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + (b"" if bodiless else body)
