"""The ASGI types (ASGI spec 3.0) and the few that several layers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# Header fields as ASGI has them: names in lower case, values as they came, in the order of the wire.
Headers = list[tuple[bytes, bytes]]

# (host, port); for a unix socket (path, None), as the ASGI spec has it for `server`.
Address = tuple[str, int | None]
