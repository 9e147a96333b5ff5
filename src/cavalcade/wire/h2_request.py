"""The fields of an HTTP/2 request: what RFC 9113 sections 8.2 and 8.3 call malformed is not let through, and the rest becomes a `Head`
like that of any other request.

A fault of the message itself resets its stream; what is well-formed and not wanted is answered, as over HTTP/1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from h2.errors import ErrorCodes

from cavalcade import limits
from cavalcade.errors import BodyTooLarge, ExpectationFailed, HeadTooLarge, NotImplementedByServer, PeerError, StreamFault, TargetTooLong
from cavalcade.types import Headers
from cavalcade.wire import fields
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.sink import Head
from cavalcade.wire.target import TARGETS, read_target

# RFC 9113 section 8.2.1: a token in lower case; RFC 9110 section 5.5: no control character but the tab, no white space around it.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_PATH = re.compile(rb"[\x21-\x7e]+")

# Kinds of fields, beside those that every engine knows.
PLAIN, HOST, CONTENT_LENGTH, EXPECT = fields.PLAIN, fields.HOST_FIELD, fields.CONTENT_LENGTH, fields.EXPECT
FORWARDING = fields.FORWARDING
COOKIE, TE, FORBIDDEN, PSEUDO = 100, 101, 102, 103

_KINDS = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"expect": EXPECT,
    b"cookie": COOKIE,
    b"te": TE,
    **dict.fromkeys(fields.FORWARDING_NAMES, FORWARDING),
    # RFC 9113 section 8.2.2: what is only about one HTTP/1.1 connection
    **dict.fromkeys([b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"], FORBIDDEN),
}
_SECRET = (b"cookie", b"authorization", b"proxy-authorization")
_PSEUDO = (b":method", b":scheme", b":authority", b":path", b":protocol")

# Fields that were looked at and found good: (name, value) -> (the same with an own name, kind). Bounded, and only short ones.
_KNOWN: dict[tuple[bytes, bytes], tuple[tuple[bytes, bytes], int]] = {}
_KNOWN_BYTES = 192
_NAMES: dict[bytes, bytes] = {name: name for name, _ in fields.REQUEST_NAMES.values()}


class Request:
    """A request head, read. The same fields make the same one, so it may serve many requests: what an app could change is copied."""

    __slots__ = ("expects_continue", "forwarded", "headers", "length", "method", "protocol", "split", "target")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.split: tuple[str, bytes, bytes] = ("", b"", b"")
        self.headers: Headers = []
        self.length = -1  # Content-Length; -1 for none
        self.expects_continue = False
        self.forwarded = False
        self.protocol = ""  # of an extended CONNECT (RFC 8441 section 4)

    def fill(self, head: Head) -> None:
        """Say it as every engine does; `head.length` is for the engine."""
        head.method = self.method
        head.target = self.target
        head.path, head.raw_path, head.query = self.split
        head.headers = self.headers.copy()
        head.expects_continue = self.expects_continue
        head.forwarded = self.forwarded
        head.protocol = self.protocol


def malformed(cause: str) -> StreamFault:
    """RFC 9113 section 8.1.1: a malformed message is a stream error of type PROTOCOL_ERROR."""
    return StreamFault(cause, ErrorCodes.PROTOCOL_ERROR)


def read_request(these: Iterable[tuple[bytes, bytes]], size: int, rules: Rules) -> Request:
    """Raises `StreamFault` for a malformed request, another `PeerError` for one that is to be answered with its status."""
    request = Request()
    pseudo: dict[bytes, bytes] = {}
    hosts: list[bytes] = []
    cookies: list[bytes] = []
    headers: Headers = []
    expectation = b""
    regular = False
    for field in these:
        known = _KNOWN.get(field)
        if known is None:
            known = _learn(*field) if field[0][:1] != b":" else _learn_pseudo(*field)
        own, kind = known
        if kind == PSEUDO:
            if regular:
                raise malformed("a pseudo-header field after a regular one")
            name, value = own
            if name in pseudo:
                raise malformed(f"more than one {name.decode()}")
            pseudo[name] = value
            continue
        regular = True
        if kind == PLAIN:
            headers.append(own)
        elif kind == COOKIE:
            cookies.append(own[1])
        elif kind == HOST:
            hosts.append(own[1])
        elif kind == CONTENT_LENGTH:
            if request.length >= 0:
                raise malformed("more than one Content-Length")
            request.length = int(own[1])
            headers.append(own)
        elif kind == EXPECT:
            expectation = own[1].lower()
            headers.append(own)
        elif kind == FORWARDING:
            request.forwarded = True
            headers.append(own)
        else:  # TE: trailers, which is all it may say
            headers.append(own)
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))  # RFC 9113 section 8.2.3
    request.headers = headers
    _read_pseudo(request, pseudo, hosts)
    _apply_limits(request, size, rules)
    if expectation:
        if expectation != b"100-continue":
            raise ExpectationFailed("an Expect other than 100-continue")
        request.expects_continue = True
    return request


def check_trailers(these: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises `StreamFault` for trailer fields that may not be. ASGI has no place for those that may."""
    for field in these:
        if field[0][:1] == b":":
            raise malformed("a pseudo-header field in a trailer section")
        if field not in _KNOWN:
            _learn(*field)


def check_value(name: bytes, value: bytes) -> None:
    """Raises `StreamFault`."""
    if not _VALUE.fullmatch(value):
        raise malformed(f"a control character, or white space at an end, in the value of {name.decode('ascii', 'backslashreplace')}")


def _learn(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], int]:
    """What a field is that was not seen before. Raises `StreamFault`."""
    if not _NAME.fullmatch(name):
        what = "a field name in upper case" if _NAME.fullmatch(name.lower()) else "a field name that is none"
        raise malformed(what)
    check_value(name, value)
    kind = _KINDS.get(name, PLAIN)
    if kind == FORBIDDEN:
        raise malformed(f"the connection-specific field {name.decode()}")
    if kind == TE and value.lower() != b"trailers":
        raise malformed("a TE other than trailers")
    if kind == CONTENT_LENGTH and not value.isdigit():
        raise malformed("a Content-Length that is no number")
    if kind == CONTENT_LENGTH and (len(value) > 20 or int(value) > limits.LENGTH_MAX):
        raise BodyTooLarge("a Content-Length beyond any sense")
    name = _NAMES.get(name, name)
    known = ((name, value), kind)
    if len(name) + len(value) <= _KNOWN_BYTES and name not in _SECRET:
        if len(_KNOWN) >= fields.TABLE_MAX:
            _KNOWN.clear()
        _KNOWN[name, value] = known
    return known


def _learn_pseudo(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], int]:
    """What a pseudo-header field is that was not seen before. Raises `StreamFault`."""
    if name not in _PSEUDO:
        raise malformed("an unknown pseudo-header field")
    known = ((name, value), PSEUDO)
    if name == b":path":
        return known  # paths have a table of their own, and a grammar of their own that is stricter than that of values
    check_value(name, value)
    if len(name) + len(value) <= _KNOWN_BYTES:
        if len(_KNOWN) >= fields.TABLE_MAX:
            _KNOWN.clear()
        _KNOWN[name, value] = known
    return known


def _read_pseudo(request: Request, pseudo: dict[bytes, bytes], hosts: list[bytes]) -> None:
    """RFC 9113 section 8.3.1."""
    method = pseudo.get(b":method")
    if method is None:
        raise malformed("no :method")
    protocol = pseudo.get(b":protocol")
    if protocol is not None and method != b"CONNECT":
        raise malformed("a :protocol without CONNECT")
    name = fields.METHODS.get(method)
    if name is None:
        if not fields.TOKEN.fullmatch(method):
            raise malformed("a :method that is none")
        name = method.decode("ascii")
    request.method = name
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path")
    if method == b"CONNECT" and protocol is None:
        if scheme is not None or path is not None:
            raise malformed("a CONNECT with :scheme or :path")
        raise NotImplementedByServer("CONNECT: this is no proxy")
    if scheme is None or path is None:
        raise malformed("no :scheme" if scheme is None else "no :path")
    if scheme.lower() not in (b"http", b"https"):
        raise PeerError("a :scheme other than http and https")
    request.headers.insert(0, (b"host", _read_host(pseudo.get(b":authority"), hosts)))
    # Section 8.3.1: a path begins with a slash, or is * with OPTIONS. No other form of a target has a place here.
    if not _PATH.fullmatch(path) or (path[:1] != b"/" and (path != b"*" or method != b"OPTIONS")):
        raise malformed("a :path that is none")
    request.target = path
    request.split = TARGETS.get(path) or read_target(path, method, [])
    if protocol is not None:
        if protocol != b"websocket":
            raise NotImplementedByServer("an extended CONNECT for another protocol than websocket")
        request.protocol = "websocket"


def _read_host(authority: bytes | None, hosts: list[bytes]) -> bytes:
    if len(hosts) > 1:
        raise malformed("more than one Host")
    if authority is None:
        if not hosts:
            raise malformed("neither :authority nor Host")
        authority = hosts[0]
    elif hosts and hosts[0].lower() != authority.lower():
        raise malformed("a Host that is not the :authority")
    if not authority:
        raise malformed("an empty :authority")
    if b"@" in authority:
        raise malformed("user information in :authority")
    fields.check_host(authority)
    return authority


def _apply_limits(request: Request, size: int, rules: Rules) -> None:
    if size > rules.head_bytes:
        raise HeadTooLarge(f"request head over {rules.head_bytes} bytes (limit_request_head)")
    if len(request.headers) > rules.header_fields:
        raise HeadTooLarge(f"more than {rules.header_fields} header fields (limit_request_fields)")
    if len(request.method) + len(request.target) + 10 > rules.request_line:
        raise TargetTooLong(f"request line over {rules.request_line} bytes (limit_request_line)")
    if 0 < rules.body_bytes < request.length:
        raise BodyTooLarge(f"Content-Length over {rules.body_bytes} bytes (limit_request_body)")
