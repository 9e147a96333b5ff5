"""`--request-id`: every request has a name, by which it is found in all logs: ours, the app's, the proxy's, the client's.

It is in the request's `X-Request-ID`, where every framework can read it, in the scope and environ as `cavalcade.request_id`, in the
response, in the access line and in every line of the log that is about the request.

Connections and streams that name their requests are classes of their own, chosen at start: where it is off, nothing is asked.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal

from cavalcade.apps.stream import REQUEST_ID, Pipe
from cavalcade.errors import PeerError
from cavalcade.net.connection import Connection
from cavalcade.net.link import Link
from cavalcade.observe.requests import trace_id
from cavalcade.types import Headers
from cavalcade.wire.sink import Head

NAME = b"x-request-id"

# Nothing that could end a line, close a quote or steer a terminal; the longest ids in use are two UUIDs or so.
_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")
_RANDOM_BYTES = 4096  # asked of the kernel at once
_ID_BYTES = 16  # as a trace-id has, so that it can become one

Mode = Literal["make", "trusted", "accept"]


class RequestIds:
    """Those of one worker. They are random: a counter would tell a client how many requests there are."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._random = b""
        self._at = 0

    def make(self) -> str:
        """A new one: 32 hexadecimal digits."""
        at = self._at
        if at >= len(self._random):
            self._random = os.urandom(_RANDOM_BYTES)  # in the worker's own process: siblings must not have the same
            at = 0
        self._at = at + _ID_BYTES
        return self._random[at : at + _ID_BYTES].hex()

    def identify(self, link: Link, headers: Headers) -> str:
        """The id of a request, which then is the one X-Request-ID in its `headers`."""
        given = [value for name, value in headers if name == NAME]
        found = ""
        if self._mode != "make" and (self._mode == "accept" or self._trusts(link)):
            if len(given) == 1 and _ID.fullmatch(given[0]):
                return given[0].decode("ascii")
            if not given:
                found = trace_id(headers)
        if given:
            headers[:] = [pair for pair in headers if pair[0] != NAME]
        found = found or self.make()
        headers.append((NAME, found.encode("ascii")))
        return found

    def _trusts(self, link: Link) -> bool:
        return (None if link.client is None else link.client[0]) in link.context.forwarding.trusted


def with_id(headers: Any, request_id: str) -> Any:
    """The fields of a response, and the id, unless the app has given one. What are no fields is left for others to complain about."""
    try:
        given = list(headers)
    except TypeError:
        return headers
    try:
        for name, _ in given:
            if len(name) == len(NAME) and name.lower() == NAME:
                return given
        given.append((NAME, request_id.encode("ascii")))
    except (TypeError, ValueError, AttributeError):
        pass
    return given


def sign(error: PeerError, request_id: str) -> None:
    """Put the id into the answer to a request that is refused, and so into the line about it."""
    error.fields = (*error.fields, (NAME, request_id.encode("ascii")))


class NamedConnection(Connection):
    """Speaks HTTP/1 and names its requests."""

    def __init__(self, *arguments: Any) -> None:
        Connection.__init__(self, *arguments)
        self.request_id = ""

    def on_request(self, head: Head) -> None:
        self.request_id = self.context.request_ids.identify(self, head.headers)
        self.own_template[REQUEST_ID] = self.request_id
        Connection.on_request(self, head)

    def start(self, status: int, headers: Any) -> None:
        Connection.start(self, status, with_id(headers, self.request_id))

    def switch(self, headers: list[tuple[bytes, bytes]]) -> Pipe:
        return Connection.switch(self, with_id(headers, self.request_id))

    def refuse(self, error: PeerError, data: bytes) -> None:
        if self.exchange is None:
            self.request_id = self.context.request_ids.make()  # it has come to no request
        sign(error, self.request_id)
        Connection.refuse(self, error, data)

    def account(self, status: int) -> None:
        note(self.context.access, self.request_id)
        Connection.account(self, status)


def note(access: Any, request_id: str) -> None:
    """The access line that comes next is of this request."""
    if access is not None:
        access.request_id = request_id
