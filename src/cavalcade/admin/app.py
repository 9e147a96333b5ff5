"""The admin app: a plain ASGI app, served by our own engine in the supervisor's event loop. Nothing in it decides anything: it shows
what the supervisor knows, and turns orders into events for the policy.

Every answer but a page, a probe and the metrics is JSON. That to an order has `verdict` and `text`, and where it is not done `fix` and
`trace`: 200 done, 400 it makes no sense, 401 and 403 it is not for this client to ask, 404 there is no such thing, 409 it was tried,
failed and was taken back, 503 the server stops.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from cavalcade.admin import looking, page, steering, streams
from cavalcade.admin.access import Access, Need
from cavalcade.admin.answers import Answer, Asked, BadRequest, Handler, query, reject
from cavalcade.admin.wishes import Wishes
from cavalcade.supervisor.desk import Desk
from cavalcade.types import Receive, Scope, Send

log = logging.getLogger("cavalcade")


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for. `{name}` in the path stands for one word."""

    method: str
    path: str
    need: Need
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        """The words of a path that fits, else None."""
        mine, theirs = self.path.strip("/").split("/"), path.strip("/").split("/")
        if len(mine) != len(theirs):
            return None
        words: dict[str, str] = {}
        for part, word in zip(mine, theirs, strict=True):
            if part.startswith("{"):
                words[part.strip("{}")] = word
            elif part != word:
                return None
        return words


ROUTES = (
    Route("GET", "/", Need.PAGE, page.index),
    Route("GET", "/page/{file}", Need.PAGE, page.part),
    Route("GET", "/livez", Need.HEALTH, looking.livez),
    Route("GET", "/readyz", Need.HEALTH, looking.readyz),
    Route("GET", "/startupz", Need.HEALTH, looking.startupz),
    Route("GET", "/metrics", Need.METRICS, looking.metrics),
    Route("GET", "/status", Need.READ, looking.status),
    Route("GET", "/workers", Need.READ, looking.workers),
    Route("GET", "/workers/{worker}/stack", Need.READ, looking.stack),
    Route("GET", "/config", Need.READ, looking.config),
    Route("GET", "/events", Need.READ, streams.events),
    Route("GET", "/logs", Need.READ, looking.recent),
    Route("POST", "/reload", Need.WRITE, steering.reload),
    Route("POST", "/scale", Need.WRITE, steering.scale),
    Route("POST", "/drain", Need.WRITE, steering.drain),
    Route("POST", "/stop", Need.WRITE, steering.stop),
    Route("POST", "/workers/{worker}/recycle", Need.WRITE, steering.recycle),
    Route("POST", "/workers/{worker}/restart", Need.WRITE, steering.recycle),  # what others call it
    Route("POST", "/log-level", Need.WRITE, steering.log_level),
    Route("POST", "/certs/reload", Need.WRITE, steering.renew_certificates),
)
HELP = ", ".join(f"{route.method} {route.path}" for route in ROUTES if route.need is not Need.PAGE)


class AdminApp:
    """The app as one listener serves it."""

    def __init__(self, desk: Desk, wishes: Wishes, access: Access, places: streams.Places) -> None:
        self._desk = desk
        self._wishes = wishes
        self._access = access
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await _send(send, scope["method"], await self._answer(scope))
        except OSError:
            log.debug("admin: whoever asked for %s %s has left before the answer", scope["method"], scope["path"])

    async def _answer(self, scope: Scope) -> Answer:
        method, path = scope["method"], scope["path"]
        fitting = [(route, words) for route in ROUTES if (words := route.match(path)) is not None]
        need = fitting[0][0].need if fitting else Need.READ
        if (refused := self._access.refuse(scope, need)) is not None:
            return refused
        if not fitting:
            return reject(404, f"There is no {path[:200]} here.", fix=HELP)
        for route, words in fitting:
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                return await self._handle(route, words, scope)
        allowed = ", ".join(route.method for route, _ in fitting)
        return reject(405, f"{method} is not how {path} is asked for.", fix=HELP, fields=[(b"allow", allowed.encode())])

    async def _handle(self, route: Route, words: dict[str, str], scope: Scope) -> Answer:
        draining: asyncio.Event = scope["extensions"]["cavalcade.draining"]
        asked = Asked(self._desk, self._wishes, draining, words, query(scope["query_string"]), scope["headers"])
        try:
            answer = await route.handler(asked)
        except BadRequest as problem:
            return reject(400, str(problem))
        if answer.stream is None or scope["method"] == "HEAD":
            return answer
        if self._places.full:
            return streams.too_many()
        return Answer(answer.status, b"", answer.content_type, answer.fields, self._places(answer.stream))


async def _send(send: Send, method: str, answer: Answer) -> None:
    fields = [
        (b"content-type", answer.content_type.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *answer.fields,
    ]
    if answer.stream is None:
        fields.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    if answer.stream is not None and method != "HEAD":
        try:
            async for piece in answer.stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            await answer.stream.aclose()  # type: ignore[attr-defined]  # a generator: its place is free again now, not when it is collected
    await send({"type": "http.response.body", "body": answer.body})
