"""The connection scopes of ASGI HTTP and WebSocket (spec 2.5)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from cavalcade.apps.stream import REQUEST_ID, Serving
from cavalcade.types import Address
from cavalcade.wire.sink import Head

# Ours: an object with `is_set()` and `await wait()`, set when this worker begins to leave. A response that streams for ever can
# end itself then, before it is told by http.disconnect.
DRAINING = "cavalcade.draining"


class Offered(dict[str, Any]):
    """What the name of an extension stands for in the scope where there is nothing to say of it: an empty dict that stays empty, because
    all requests share it."""

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError("what the server offers is not the app's to change")

    def update(self, *more: Any, **by_name: Any) -> None:
        raise TypeError("what the server offers is not the app's to change")

    def setdefault(self, name: str, value: Any = None) -> Any:
        raise TypeError("what the server offers is not the app's to change")


_OFFERED = Offered()
_ASGI: dict[str, Any] = {"version": "3.0", "spec_version": "2.5"}


def extensions(serving: Serving, *, debug: bool) -> dict[str, Any]:
    """The extensions of every request. `debug` offers one that is not for production (ASGI extensions, "Debug")."""
    offered: dict[str, Any] = {DRAINING: serving.draining}
    for name in ("pathsend", "zerocopysend", "trailers", "early_hint", *(["debug"] if debug else [])):
        offered[f"http.response.{name}"] = _OFFERED
    return offered


def template(
    serving: Serving, scheme: str, client: Address | None, server: Address | None, tls: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What all requests of one connection have in common, and a place for all that they have not: a copy that gets no further key is
    made in one piece. `tls` is the extension of that name (ASGI TLS extension 0.2)."""
    template: dict[str, Any] = {
        "type": "http",
        "asgi": None,
        "http_version": "1.1",
        "server": server,
        "client": client,
        "scheme": scheme,
        "root_path": serving.root_path,
        "extensions": tls,
        "method": None,
        "path": None,
        "raw_path": None,
        "query_string": None,
        "headers": None,
    }
    if serving.state is not None:
        template["state"] = None
    return template


def on_behalf(template: dict[str, Any], client: Address | None, scheme: str, root_path: str | None) -> dict[str, Any]:
    """What a request has in common with the others of its connection, where a proxy makes it for somebody else. None or "": not said."""
    template = template.copy()
    if client is not None:
        template["client"] = client
    if scheme:
        template["scheme"] = scheme
    if root_path is not None:
        template["root_path"] = root_path
    return template


def build(serving: Serving, template: dict[str, Any], head: Head) -> dict[str, Any]:
    """The scope of one request. It is the app's to change: nothing in it is shared with another request."""
    scope = template.copy()
    scope["asgi"] = _ASGI.copy()
    scope["http_version"] = head.version
    scope["method"] = head.method
    root_path = template["root_path"]
    if root_path and head.path != "*":
        # ASGI: `path` and `raw_path` include the root path. The proxy has cut it off, so it is put back.
        scope["path"] = root_path + head.path
        scope["raw_path"] = (serving.raw_root_path if root_path is serving.root_path else quote(root_path).encode()) + head.raw_path
    else:
        scope["path"] = head.path
        scope["raw_path"] = head.raw_path
    scope["query_string"] = head.query
    scope["headers"] = head.headers
    tls = scope["extensions"]
    scope["extensions"] = extensions = serving.extensions.copy()
    if tls is not None:
        extensions["tls"] = tls.copy()
    state = serving.state
    if state is not None:
        scope["state"] = state.copy()
    return scope


def build_websocket(serving: Serving, template: dict[str, Any], head: Head, subprotocols: list[str]) -> dict[str, Any]:
    """The scope of one WebSocket."""
    scope = build(serving, template, head)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = subprotocols
    offered = scope["extensions"]
    scope["extensions"] = extensions = {DRAINING: serving.draining, "websocket.http.response": {}}
    if "tls" in offered:
        extensions["tls"] = offered["tls"]
    return scope


def describe_target(scope: dict[str, Any]) -> str:
    """The target of a request, and its id if it has one, as the log shows them, safe to print. Raises `KeyError`, `TypeError` or
    `AttributeError` where the app, which has had the scope in its hands, has changed it."""
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    name = f" [{scope[REQUEST_ID]}]" if REQUEST_ID in scope else ""
    return f"{target.decode('ascii', 'backslashreplace')[:512]}{name}"
