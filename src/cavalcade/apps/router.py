"""Several apps in one worker: which of them a request is for, and how each is called.

The connection has one template for all of them, that of an ASGI scope; an environ is made from it where the app turns out to be WSGI.
Behind the choice every app is served as if it were alone below its prefix, by the mounts that `--mount-path` has too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Protocol

from cavalcade import limits
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.mount import is_below
from cavalcade.apps.stream import REQUEST_ID, Call, Serving, Stream
from cavalcade.apps.wsgi import environ
from cavalcade.apps.wsgi.service import Service
from cavalcade.config.options import AppTable
from cavalcade.types import Address, Headers, Receive, Scope, Send
from cavalcade.wire.sink import Head


class Target(Protocol):
    """One app, ready to be called. `serving` is what opens a WebSocket to it."""

    serving: Serving

    def new_call(self, stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        """The call of one request; `template` is that of an ASGI scope."""


class AsgiTarget:
    """An ASGI app, with a `Serving` of its own."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def new_call(self, stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        serving = self.serving
        return Exchange(serving, stream, asgi_scope.build(serving, template, head), head.length != 0)


class WsgiTarget:
    """A WSGI app. `serving` refuses a WebSocket."""

    def __init__(self, service: Service, serving: Serving) -> None:
        self.service = service
        self.serving = serving
        self._templates: dict[tuple[Any, ...], dict[str, Any]] = {}

    def new_call(self, stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        key = template["scheme"], template["client"], template["server"], template["root_path"]
        own = self._templates.get(key)
        if own is None:
            own = self._make(*key)
        if REQUEST_ID in template:
            own[REQUEST_ID] = template[REQUEST_ID]  # it is copied before anybody else may set it
        return self.service.new_call(stream, head, own)

    def _make(self, scheme: str, client: Address | None, server: Address | None, root_path: str) -> dict[str, Any]:
        """What all requests of one connection, or of one client that a proxy passes on, have in common."""
        if len(self._templates) >= limits.ROUTED_KEPT:
            self._templates.clear()
        own = environ.on_behalf(self.service.template(scheme, client, server), None, "", root_path)
        self._templates[scheme, client, server, root_path] = own
        return own


class Refusal:
    """The app of requests that no app is for."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.body = text.encode() + b"\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = "websocket.http.response." if scope["type"] == "websocket" else "http.response."
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(self.body)),
            (b"cavalcade-reason", b"no-app"),
        ]
        await send({"type": kind + "start", "status": self.status, "headers": headers})
        await send({"type": kind + "body", "body": self.body})


class Router:
    """Chooses the app of each request: that of its host before that of a wildcard before those for every host, and among these the one
    with the longest prefix."""

    def __init__(self, serving: Serving, mount_path: str) -> None:
        self._mount_path = mount_path
        self._exact: dict[str, list[tuple[str, Target]]] = {}
        self._wildcards: list[tuple[str, list[tuple[str, Target]]]] = []  # (".example.org", ...), the longest first
        self._everywhere: list[tuple[str, Target]] = []
        self._not_found = _refusing(serving, 404, "Not Found: no app is mounted at this path")
        # RFC 9110 section 15.5.20: the request's target URI does not match an origin for which the server has been configured.
        self._misdirected = _refusing(serving, 421, "Misdirected Request: no app is mounted for this host")
        # RFC 8441 section 3 leaves the status open; RFC 9220 section 3 says 501 where the protocol is not supported.
        self.no_websocket = _refusing(serving, 501, "Not Implemented: the app at this path is WSGI, which has no WebSocket").serving

    def add(self, table: AppTable, target: Target) -> None:
        """Mount an app."""
        path = self._mount_path + table.path
        wildcards = dict(self._wildcards)
        for host in table.host:
            mounts = wildcards.setdefault(host[1:], []) if host.startswith("*.") else self._exact.setdefault(host, [])
            _insert(mounts, path, target)
        if not table.host:
            _insert(self._everywhere, path, target)
        self._wildcards = sorted(wildcards.items(), key=lambda item: -len(item[0]))

    def new_call(self, stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        """The call of one request."""
        return self.choose(head).new_call(stream, head, template)

    def websocket_serving(self, head: Head) -> Serving:
        """What opens the WebSocket that a request asks for."""
        return self.choose(head).serving

    def choose(self, head: Head) -> Target:
        """The app of a request; one that refuses it where there is none."""
        path = head.path
        known = False
        for mounts in self._mounts_for(host_of(head.headers)):
            known = True
            for prefix, target in mounts:
                if not prefix or is_below(path, prefix):
                    return target
        return self._not_found if known else self._misdirected

    def _mounts_for(self, host: str) -> Iterator[list[tuple[str, Target]]]:
        exact = self._exact.get(host)
        if exact is not None:
            yield exact
        for suffix, mounts in self._wildcards:
            if len(host) > len(suffix) and host.endswith(suffix):
                yield mounts
        if self._everywhere:
            yield self._everywhere


def host_of(headers: Headers) -> str:
    """The host that a request names, in lower case, without a port; "" where it names none."""
    for name, value in headers:
        if name == b"host":
            text = value.decode("latin-1").lower()
            if text.startswith("["):
                literal = text[1:].partition("]")[0]
                try:
                    return str(ipaddress.IPv6Address(literal))
                except ValueError:
                    return literal
            return text.partition(":")[0].removesuffix(".")
    return ""


def _insert(mounts: list[tuple[str, Target]], path: str, target: Target) -> None:
    mounts.append((path, target))
    mounts.sort(key=lambda mount: -len(mount[0]))


def _refusing(serving: Serving, status: int, text: str) -> AsgiTarget:
    return AsgiTarget(serving.with_app(Refusal(status, text), serving.context, None))
