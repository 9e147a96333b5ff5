"""The control socket: HTTP and JSON on a unix socket, one for each running server, for its own user only.

    GET  /status                 how it is (`supervisor/status.py`)
    GET  /metrics                the same and more for Prometheus, in its text format or in OpenMetrics (docs/metrics.md)
    GET  /livez /readyz /startupz    200 yes, 503 no, as `cavalcade health` tells it
    POST /reload                 new code, worker by worker
    POST /scale?workers=N        so many workers; +1 and -1 are one more, one fewer
    POST /workers/ID/recycle     a successor for a worker; ID may be `all`
    POST /stop                   what SIGTERM does; answered when every worker is gone

An answer to a POST comes when the thing is done or has failed; with `?wait=0` at once, with 202. Every answer is an object: `verdict`
and `text`, and where it is not done `fix` and `trace`. 200 done, 400 it makes no sense, 403 it is not for this user to ask, 409 it was
tried, failed and was taken back, 503 the server stops.

Only the user that the server runs as and root are listened to, whatever the permissions of the socket file have become: the kernel says
who has connected (unix(7), SO_PEERCRED).

It is served by our own engine in the supervisor's event loop; the app here is a plain ASGI app. Nothing in it decides: it turns
requests into events for the policy, and the policy's answers into responses. A server that cannot have such a socket runs without.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from cavalcade.config.options import Settings
from cavalcade.errors import BindError
from cavalcade.supervisor import events as on
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.commands import Answer, Verdict
from cavalcade.supervisor.status import Status, answer
from cavalcade.types import Address, Receive, Scope, Send
from cavalcade.worker.server import Place, Server

log = logging.getLogger("cavalcade")

STATUS_OF = {Verdict.DONE: 200, Verdict.REJECTED: 400, Verdict.FAILED: 409, Verdict.STOPPING: 503}
ROOT = 0
STOP_GRACE_S = 1.0  # for the last answers to leave
PROBES = {"livez": "live", "readyz": "ready", "startupz": "started"}
HELP = "GET /status, /metrics, /livez, /readyz, /startupz, POST /reload, POST /scale?workers=N, POST /workers/ID/recycle, POST /stop"


class Reply(msgspec.Struct, omit_defaults=True):
    """The body of every answer but a status."""

    verdict: str
    text: str
    fix: str = ""
    trace: str = ""
    generation: int = 0
    workers: int = 0
    seconds: float = 0.0


class Rendered(NamedTuple):
    """A body that is no JSON, and its content type."""

    content: bytes
    content_type: str


class Control:
    """The control socket of this process. `post` takes events for the policy, and has had them handled when it returns."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        post: Callable[[on.Event], object],
        take_status: Callable[[], Status],
        render_metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._post = post
        self._take_status = take_status
        self._render_metrics = render_metrics
        self._server: Server | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._last_request = 0
        self.path: Path | None = None

    # -- life ----------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises `BindError` only for a path that was asked for; where there is no place of our own, a line says so."""
        wanted = self._settings.control
        if wanted == "off":
            return
        if wanted != "auto":
            await self._listen(Path(wanted))
            return
        reasons = []
        for directory in runtime_dir.candidates(self._environ):
            try:
                runtime_dir.claim(directory)
                runtime_dir.clean(directory)
                await self._listen(runtime_dir.socket_path(directory, self._settings.name or self._settings.app, os.getpid()))
                return
            except (OSError, BindError) as error:
                reasons.append(f"{directory}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error))
        log.warning("no control socket, so `cavalcade status`, `reload` and `scale` cannot reach this server: %s", "; ".join(reasons))

    async def _listen(self, path: Path) -> None:
        settings = Settings(bind=(f"unix:{path}?mode=600",), access_log=False, lifespan="off", keep_alive=5.0, trusted_proxies=("none",))
        server = Server(self._app, settings=settings)
        server.adopt(Place(name_peer=name_user))
        await server.start()
        self._server = server
        self.path = path
        log.debug("control socket: %s", path)

    async def stop(self, code: int) -> None:
        """Every worker is gone, and `code` is how it ends: answer whoever still waits, and remove the socket."""
        self._end.set_result(code)
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Answer(0, Verdict.STOPPING, "The server stops.", 0, 0, 0.0))
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)

    # -- wishes --------------------------------------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """The policy has answered. Nobody may be waiting any more."""
        future = self._waiting.get(answer.request)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _wish(self, make: Callable[[int], on.Event], wait: bool) -> tuple[int, Reply]:
        self._last_request += 1
        request = self._last_request
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        try:
            self._post(make(request))
            if not wait and not future.done():
                return 202, Reply("begun", "It has begun; GET /status shows how it goes.")
            answer = await future
        finally:
            del self._waiting[request]
        reply = Reply(answer.verdict.value, answer.text, answer.fix, answer.trace, answer.generation, answer.workers, answer.seconds)
        return STATUS_OF[answer.verdict], reply

    # -- HTTP ----------------------------------------------------------------------------------------------------------------

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, body = refuse_user(scope["client"]) or self._observe(scope) or await self._respond(scope)
        if not isinstance(body, Rendered):
            body = Rendered(msgspec.json.encode(body) + b"\n", "application/json")
        content = body.content
        headers = [(b"content-type", body.content_type.encode()), (b"content-length", b"%d" % len(content))]
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})
        except OSError:
            log.debug("control socket: whoever asked for %s %s has left before the answer", scope["method"], scope["path"])

    def _observe(self, scope: Scope) -> tuple[int, Status | Reply | Rendered] | None:
        """What only looks; None for anything else."""
        if scope["method"] not in ("GET", "HEAD"):
            return None
        match scope["path"].strip("/"):
            case "status":
                return 200, self._take_status()
            case "metrics":
                return 200, Rendered(*self._render_metrics(_accept(scope["headers"])))
            case "livez" | "readyz" | "startupz" as probe:
                yes, line = answer(self._take_status(), PROBES[probe])
                return (200, Reply("yes", line)) if yes else (503, Reply("no", line))
        return None

    async def _respond(self, scope: Scope) -> tuple[int, Reply]:
        method, path, query = scope["method"], scope["path"], _query(scope["query_string"])
        wait = query.get("wait", "1") not in ("0", "false", "no")
        match method, path.strip("/").split("/"):
            case "POST", ["reload"]:
                return await self._wish(on.Reload, wait)
            case "POST", ["scale"]:
                workers = _number(query.get("workers", ""))
                if workers is None:
                    return 400, Reply("rejected", "How many workers? Say ?workers=4, +1 or -1.")
                relative = query["workers"].strip()[0] in "+-"
                return await self._wish(lambda request: on.Scale(request, workers, relative), wait)
            case "POST", ["workers", "all", "recycle"]:
                return await self._wish(on.Recycle, wait)
            case "POST", ["workers", number, "recycle"] if number.isascii() and number.isdigit():
                return await self._wish(lambda request: on.Recycle(request, int(number)), wait)
            case "POST", ["stop"]:
                self._post(on.Stop())
                return (200, Reply("done", f"stopped, exit code {await self._end}")) if wait else (202, Reply("begun", "It stops."))
            case _, ["status"] | ["metrics"] | ["livez"] | ["readyz"] | ["startupz"] | ["reload"] | ["scale"] | ["stop"] | [
                "workers",
                _,
                "recycle",
            ]:
                return 405, Reply("rejected", f"{method} is not how {path} is asked for.", fix=HELP)
        return 404, Reply("rejected", f"There is no {path} here.", fix=HELP)


def name_user(sock: socket.socket) -> Address | None:
    """Who has connected to a unix socket, as ("user", uid); None where the system does not say, and the file's permissions must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return ("user", uid)


def refuse_user(client: Address | None) -> tuple[int, Reply] | None:
    """The answer to a user who may not ask; None for one who may."""
    own = os.geteuid()
    if client is None or client[1] in (own, ROOT):
        return None
    text = f"This server takes orders from user {own} and from root, not from user {client[1]}."
    return 403, Reply("rejected", text, fix=f"Ask as user {own}, with sudo -u for example")


def _accept(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")


def _query(raw: bytes) -> dict[str, str]:
    """The parameters. A plus stays a plus, or `workers=+1` would be one worker."""
    pairs = (part.partition("=") for part in raw.decode("ascii", "replace").split("&"))
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _number(text: str) -> int | None:
    digits = text.strip().lstrip("+-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 9 and len(text.strip()) <= len(digits) + 1 else None
