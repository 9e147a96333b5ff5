"""The types of ASGI (spec 3.0) and WSGI (PEP 3333), and the few that several layers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Literal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# PEP 3333: (environ, start_response) -> an iterable of bytes.
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
App = ASGIApp | WSGIApp
Interface = Literal["asgi", "wsgi"]

# Header fields as ASGI has them: names in lower case, values as they came, in the order of the wire.
Headers = list[tuple[bytes, bytes]]

# (host, port); for a unix socket (path, None), as the ASGI spec has it for `server`.
Address = tuple[str, int | None]
