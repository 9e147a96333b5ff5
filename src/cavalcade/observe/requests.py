"""What is known of one request beyond its access line's usual facts, and how it is found out: at the end of the request, and only where a
format, JSON or somebody's own handlers ask for it.
"""

from __future__ import annotations

import re
from typing import Any

from cavalcade.types import Headers

# W3C Trace Context section 3.2: version, trace-id, parent-id, flags; a later version may have more behind that.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_START = re.compile(rb"(?:t=)?([0-9]{10,16}(?:\.[0-9]{1,9})?)")
_SECONDS_DIGITS = 10  # of a number of seconds since the epoch, until 2286; milliseconds have 13, microseconds 16


class Seen:
    """One request, as far as it was watched."""

    # Of the class, so that a request only has what is true of it.
    scope: Any = None  # what an ASGI app was called with
    environ: Any = None  # what a WSGI app was called with
    response_headers: Any = ()
    received = 0  # bytes of its body
    left = False  # the client did, before the end
    queue_s = -1.0  # -1 where nobody says
    ttfb_s = 0.0
    route = ""
    request_id = ""

    def __init__(self, request_headers: Headers) -> None:
        self.request_headers = request_headers

    def header(self, name: bytes) -> str:
        """A field of the request, "" where there is none."""
        return find(self.request_headers, name)


def find(headers: Any, name: bytes) -> str:
    """The value of the first header field of this name, in lower case; "" where there is none, or what is searched are no fields."""
    try:
        for each, value in headers:
            if each.lower() == name:
                return str(value, "latin-1")
    except (TypeError, ValueError, AttributeError):
        pass
    return ""


def trace_id(headers: Headers) -> str:
    """That of the one valid traceparent, else ""."""
    values = [value for name, value in headers if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    return match[1].decode("ascii") if match is not None else ""


def request_start(headers: Headers) -> float:
    """When a proxy has got the request, in seconds since the epoch, by its X-Request-Start: `t=` and seconds (nginx), milliseconds
    (Heroku) or microseconds (Apache); 0 where it does not say."""
    for name, value in headers:
        if name == b"x-request-start":
            match = _START.fullmatch(value)
            if match is None:
                return 0.0
            whole = match[1].partition(b".")[0]
            return float(match[1]) / 10.0 ** (len(whole) - _SECONDS_DIGITS)
    return 0.0


def route(scope: Any) -> str:
    """ "/items/{id}": what the framework calls the route of this scope, with what the app is mounted below; "" where it does not tell, as
    FastAPI does. Flask and Django know theirs, but no longer, or nowhere, where a server could see it."""
    try:
        template = getattr(scope.get("route"), "path", None)
        return f"{scope.get('root_path', '')}{template}" if isinstance(template, str) else ""
    except AttributeError:
        return ""
