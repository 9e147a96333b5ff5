"""An app under a path prefix that the proxy in front keeps: requests below it go to the app, which is told of the prefix as ASGI and WSGI
have it; everything else is answered 404, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cavalcade.types import ASGIApp, Receive, Scope, Send

REASON = b"outside-mount-path"
STATUS = 404


class AsgiMount:
    """An ASGI app at `path`, which has no slash at its end."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        root_path = scope["root_path"]
        if is_below(scope["path"][len(root_path) :], self.path):
            # ASGI: `path` includes the root path, so it stays as it is.
            scope["root_path"] = root_path + self.path
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted, this is a 403
        else:
            body = not_found(self.path)
            headers = [(name.encode(), value.encode()) for name, value in _headers(body)]
            await send({"type": "http.response.start", "status": STATUS, "headers": headers})
            await send({"type": "http.response.body", "body": body})


class WsgiMount:
    """A WSGI app at `path`, which has no slash at its end."""

    def __init__(self, app: Any, path: str) -> None:
        self.app = app
        self.path = path.encode("utf-8").decode("latin-1")  # as PEP 3333 has its strings

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if is_below(path, self.path):
            environ["SCRIPT_NAME"] += self.path
            environ["PATH_INFO"] = path[len(self.path) :]
            answer: Iterable[bytes] = self.app(environ, start_response)
            return answer
        body = not_found(self.path.encode("latin-1").decode("utf-8"))
        start_response("404 Not Found", _headers(body))
        return [body]


def is_below(path: str, prefix: str) -> bool:
    """Is this path the prefix, or below it?"""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


def not_found(path: str) -> bytes:
    return f"Not Found: what is served here is below {path}/\n".encode()


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("cavalcade-reason", REASON.decode()),
    ]
