"""The listeners: the control socket, one for each running server and for its own user only, and TCP where that is asked for.

A server that cannot have a control socket runs without, unless it was asked for by its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from pathlib import Path

from cavalcade import limits
from cavalcade.admin.access import Access, TokenAccess, UserAccess, name_user
from cavalcade.admin.app import AdminApp
from cavalcade.admin.streams import Places
from cavalcade.admin.wishes import Wishes
from cavalcade.config import addresses
from cavalcade.config.admin import is_loopback, read_token
from cavalcade.config.options import Settings
from cavalcade.errors import BindError, StartupError
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.commands import Answer
from cavalcade.supervisor.desk import Desk
from cavalcade.worker.server import Place, Server

log = logging.getLogger("cavalcade")

STOP_GRACE_S = 1.0  # for the last answers to leave
AUTO, OFF = "auto", "off"


class Front:
    """Answers for one server, on all of its listeners."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settings = desk.settings()
        self._wishes = Wishes(desk.post)
        self._places = Places()
        self._own: Server | None = None  # in the runtime directory, under a name that no other server has
        self._shared: list[Server] = []  # where only one server can be at a time
        self._token_file: Path | None = None
        self.path: Path | None = None  # of the control socket
        self.url = ""  # of the TCP listener

    # -- life --------------------------------------------------------------------------------------------------------------

    async def start(self, *, alone: bool) -> None:
        """As `supervisor.desk.Front` has it."""
        if self._settings.control == AUTO:
            await self._open_own()
        if alone:
            await self.take_over()

    async def take_over(self) -> None:
        """As `supervisor.desk.Front` has it."""
        try:
            if self._settings.control not in (AUTO, OFF):
                self._shared.append(await self._listen_unix(Path(self._settings.control)))
            if self._settings.admin:
                await self._open_tcp()
        except StartupError:
            await self._close(self._shared)
            raise

    async def hand_over(self) -> None:
        """As `supervisor.desk.Front` has it."""
        await self._close(self._shared)

    def answer(self, answer: Answer) -> None:
        """As `supervisor.desk.Front` has it."""
        self._wishes.answer(answer)

    async def stop(self, code: int) -> None:
        """As `supervisor.desk.Front` has it."""
        self._wishes.end(code)
        await self._close([*self._shared, *([self._own] if self._own is not None else [])])
        self._own = None

    async def _close(self, servers: list[Server]) -> None:
        closing = list(servers)
        self._shared.clear()
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in closing))
        if self._token_file is not None:
            with contextlib.suppress(OSError):
                self._token_file.unlink()
            self._token_file = None

    # -- the control socket ------------------------------------------------------------------------------------------------

    async def _open_own(self) -> None:
        reasons = []
        for directory in runtime_dir.candidates(self._desk.environ):
            try:
                runtime_dir.claim(directory)
                runtime_dir.clean(directory)
                self._own = await self._listen_unix(runtime_dir.socket_path(directory, self._name, os.getpid()))
                return
            except (OSError, BindError) as error:
                reasons.append(f"{directory}: {_reason(error)}")
        log.warning("no control socket, so `cavalcade status`, `reload` and `scale` cannot reach this server: %s", "; ".join(reasons))

    async def _listen_unix(self, path: Path) -> Server:
        server = await self._listen(f"unix:{path}?mode=600", UserAccess())
        self.path = path
        log.debug("control socket: %s", path)
        return server

    @property
    def _name(self) -> str:
        return self._settings.name or self._settings.app

    # -- TCP ---------------------------------------------------------------------------------------------------------------

    async def _open_tcp(self) -> None:
        settings = self._settings
        token, where = self._find_token()
        access = TokenAccess(token, hosts=settings.admin_hosts, open_to_all=settings.admin_open, write=settings.admin_write)
        server = await self._listen(settings.admin, access)
        self._shared.append(server)
        self.url = server.url
        may = "look and steer" if settings.admin_write else "look only"
        log.info("admin on %s/ (%s; %s)", self.url, may, where)
        if not is_loopback(addresses.parse(settings.admin).host):
            log.warning(
                "admin on %s is plain HTTP: who listens on the way there can read the token; put a proxy with TLS before it", self.url
            )

    def _find_token(self) -> tuple[str, str]:
        """The token, and where it is. On a loopback address one is made where none was given. Raises `StartupError`."""
        try:
            token = read_token(self._settings, Path.cwd())
        except ValueError as problem:
            raise StartupError(f"admin_token_file {problem}.") from None
        if token:
            return token, f"token in {self._settings.admin_token_file}" if self._settings.admin_token_file else "token as given"
        token = secrets.token_urlsafe(24)
        reasons = []
        for directory in runtime_dir.candidates(self._desk.environ):
            try:
                runtime_dir.claim(directory)
                runtime_dir.clean(directory)
                path = runtime_dir.token_path(directory, self._name, os.getpid())
                runtime_dir.write_private(path, f"{token}\n")
            except OSError as error:
                reasons.append(f"{directory}: {_reason(error)}")
                continue
            self._token_file = path
            return token, f"token in {path}"
        cause = f"admin {self._settings.admin}: no token was given, and one that is made cannot be kept anywhere: {'; '.join(reasons)}."
        raise StartupError(cause, fix="Give one with --admin-token-file, or in CAVALCADE_ADMIN_TOKEN")

    # -- both --------------------------------------------------------------------------------------------------------------

    async def _listen(self, bind: str, access: Access) -> Server:
        settings = Settings(
            app="admin",
            bind=(bind,),
            access_log=False,
            lifespan="off",
            ws="none",
            http2=False,
            cancel_on_disconnect=True,  # a stream of events ends with its client
            trusted_proxies=("none",),
            keep_alive=limits.ADMIN_KEEP_ALIVE_S,
            write_timeout=limits.ADMIN_WRITE_S,
            limit_request_head=limits.ADMIN_HEAD_BYTES,
            limit_request_body=limits.ADMIN_BODY_BYTES,
            limit_concurrency=limits.ADMIN_REQUESTS,
        )
        server = Server(AdminApp(self._desk, self._wishes, access, self._places), settings=settings)
        server.adopt(Place(name_peer=name_user, connections_max=limits.ADMIN_CONNECTIONS))
        await server.start()
        return server


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
