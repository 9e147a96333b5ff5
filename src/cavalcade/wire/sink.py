"""Who an engine talks to, and what it says of a request."""

from __future__ import annotations

from typing import Protocol

from cavalcade.types import Headers


class Head:
    """One request head, checked. An engine reuses it for its next request: keep what you need of it, not the object.

    `length` is the body's: 0 for none, -1 when it is chunked and known only at its end.
    """

    __slots__ = (
        "expects_continue",
        "forwarded",
        "headers",
        "keep_alive",
        "length",
        "method",
        "path",
        "protocol",
        "query",
        "raw_path",
        "target",
        "upgrade",
        "version",
    )

    method: str
    target: bytes  # as it stood in the request line
    path: str  # percent-decoded
    raw_path: bytes
    protocol: str  # HTTP/2 only: of an extended CONNECT (RFC 8441 section 4), else ""
    query: bytes
    version: str  # "1.0", "1.1"
    headers: Headers
    length: int
    keep_alive: bool
    expects_continue: bool
    forwarded: bool  # there are fields in it with which proxies speak of the client
    upgrade: bool  # it asks for another protocol (RFC 9110 section 7.8)


class Sink(Protocol):
    """What an engine calls. All three may start the app, none may feed the engine."""

    def on_request(self, head: Head) -> None:
        """A request head is whole. A body follows unless `head.length` is 0, in which case `on_end` is not called."""

    def on_preface(self, data: bytes) -> bool:
        """The peer speaks HTTP/2, beginning with `data`; True if somebody else takes the connection over from here."""

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body, never empty."""

    def on_end(self) -> None:
        """The body is whole."""
