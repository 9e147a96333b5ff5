"""The server of one event loop: lifespan, listeners, connections, drain. Every worker runs one, and so does a program that
embeds Cavalcade:

    async with cavalcade.Server(app, bind="127.0.0.1:0") as server:
        print(server.url)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

from cavalcade.apps import loader
from cavalcade.apps.asgi import scope as asgi_scope
from cavalcade.apps.asgi.exchange import Exchange
from cavalcade.apps.asgi.lifespan import Lifespan
from cavalcade.apps.loader import LoadedApp, Part, SeveralApps
from cavalcade.apps.mount import AsgiMount, WsgiMount
from cavalcade.apps.router import AsgiTarget, Router, WsgiTarget
from cavalcade.apps.static.service import StaticFiles
from cavalcade.apps.stream import Call, NewCall, Serving, Stream
from cavalcade.apps.wsgi.service import Service
from cavalcade.board import layout
from cavalcade.board.ledger import Ledger, private_ledger
from cavalcade.board.row import Row
from cavalcade.board.siblings import Siblings
from cavalcade.config import sources, static_mounts
from cavalcade.config.options import Settings
from cavalcade.net import http2, sockets
from cavalcade.net.connection import Connection
from cavalcade.net.context import ConnectionContext
from cavalcade.net.gate import Gate
from cavalcade.net.handover import HandOver
from cavalcade.net.listener import Listener, close, with_scheme
from cavalcade.net.observed import ObservedConnection, ObservedNamedConnection, remembering
from cavalcade.net.request_ids import NamedConnection, RequestIds
from cavalcade.net.sweep import Sweep
from cavalcade.net.tls import Tls
from cavalcade.net.tls_watch import TlsWatch
from cavalcade.observe.access import is_detailed, new_access_log
from cavalcade.observe.blackbox import BlackBox
from cavalcade.types import Address, App, ASGIApp
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.sink import Head
from cavalcade.wire.ws import WebSocketRules
from cavalcade.worker import channel, drain
from cavalcade.worker.heartbeat import Heartbeat
from cavalcade.worker.recycle import Recycle
from cavalcade.worker.threads import Threads
from cavalcade.worker.timeouts import RequestTimeouts
from cavalcade.worker.witness import Witness

log = logging.getLogger("cavalcade")


@dataclass
class Place:
    """What a server is given by whoever runs several: sockets that others have bound and own, its row and ledger of the shared board, its
    siblings, and the two ends of the queue through which connections are handed over. By default it is alone."""

    listeners: list[Listener] = field(default_factory=list)
    row: Row = field(default_factory=lambda: Row(memoryview(bytearray(layout.ROW_BYTES)).cast("Q")))
    ledger: Ledger = field(default_factory=private_ledger)
    siblings: Siblings | None = None
    give: socket.socket | None = None
    take: socket.socket | None = None
    retire: Callable[[str], None] = log.info  # called once with the reason when this worker should be replaced
    draining: Callable[[], None] = lambda: None  # called once when nothing more is accepted
    stalled: Callable[[channel.Stalled], None] | None = None  # called whenever the loop was blocked for longer than stall_warn
    box: BlackBox | None = None
    tls: Tls | None = None
    executor: ThreadPoolExecutor | None = None  # the loop's default one, where the loop is ours
    # called with what the operator ought to hear once, and a key by which it is known again
    advise: Callable[[str, str], None] = lambda key, text: log.warning("%s", text)
    connections_max: int = 0  # at a time; who comes when there are so many is closed at once. 0 for no limit
    name_peer: Callable[[socket.socket], Address | None] | None = None  # what `client` is in the scope, for clients of a unix socket


class Server:
    """Serves one app in the running event loop. It installs no signal handlers and configures no logging.

    `app` is an ASGI or WSGI app, or "module:attribute" to import. Options are those of the command line, by their Python names; files and
    environment variables are not read. Raises `ConfigError` for bad options; `start()`, and entering the context manager, raise
    `TlsError`, `BindError`, `AppLoadError` or `LifespanFailed`.
    """

    def __init__(self, app: App | SeveralApps | str, *, settings: Settings | None = None, **options: object) -> None:
        if settings is None:
            arguments = {**options, "app": app} if isinstance(app, str) else options
            settings = sources.resolve(arguments, cwd=Path.cwd(), environ={}, files=False, origin_of=str).settings
        elif options:
            raise TypeError("give either settings or options")
        self.settings = settings
        self.app = app
        self._listeners: list[Listener] = []
        self._place = Place()
        self._lifespans: list[Lifespan] = []  # of the apps that have started, in their order
        self._context: ConnectionContext | None = None
        self._gate: Gate | None = None
        self._sweep: Sweep | None = None
        self._heartbeat: Heartbeat | None = None
        self._recycle: Recycle | None = None
        self._threads: Threads | None = None
        self._tls_watch: TlsWatch | None = None
        self._services: list[Service] = []  # of WSGI apps
        self._servings: list[Serving] = []
        self._static: StaticFiles | None = None
        self._hurry = asyncio.Event()
        self._stopped = False

    def adopt(self, place: Place) -> None:
        """Work in this place, among siblings perhaps. Call before `boot()`."""
        self._place = place

    @property
    def url(self) -> str:
        """Where it listens, as a client would write it: `http://127.0.0.1:43210`, or `https://`. Only after `start()`."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """All addresses it listens on."""
        return [listener.url for listener in self._listeners]

    async def start(self) -> None:
        """Bind, import, run lifespan startup, accept. Raises `StartupError`, with nothing left behind."""
        # Before any user code runs: a bad certificate and a port in use are known at once, and not after a long import.
        self._place.tls = tls = Tls(self.settings) if self.settings.ssl_certfile else None
        bound = sockets.bind_all(self.settings.bind, self.settings.backlog)
        self._listeners = [with_scheme(listener, "http" if tls is None else "https") for listener in bound]
        self._place.listeners = self._listeners
        try:
            await self.boot()
        except BaseException:
            self._close_listeners()
            raise
        if tls is not None:
            self._tls_watch = TlsWatch(tls, asyncio.get_running_loop())
            self._tls_watch.start()
        self.open()

    async def boot(self) -> None:
        """Import the app if need be and run its lifespan startup. Raises `StartupError`."""
        settings = self.settings
        if isinstance(self.app, str):
            self.app = loader.load(settings).app
        place = self._place
        if isinstance(self.app, SeveralApps):
            parts = self.app.parts
            await self._start_lifespans([_new_lifespan(part.loaded, part.settings, part.table.path, part.name) for part in parts])
            serving = new_serving(
                settings, self._lifespans, place.ledger, websockets=any(part.loaded.interface == "asgi" for part in parts)
            )
            self._context = new_context(settings, serving, place)
            self._context.new_call = self._route(parts, serving).new_call
        else:
            loaded = loader.usable(self.app, "the app", settings)
            self.app = loaded.app
            await self._start_lifespans([_new_lifespan(loaded, settings)])
            serving = new_serving(settings, self._lifespans, place.ledger, websockets=loaded.interface == "asgi")
            self._context = new_context(settings, serving, place)
            if loaded.interface == "wsgi":
                self._context.wsgi = service = self._new_service(loaded, settings, "", serving)
                self._context.new_call = service.new_call
        self._servings.append(serving)
        if settings.static:
            mounts = [static_mounts.parse(item) for item in settings.static]
            app_call = self._context.new_call or new_asgi_call(serving)
            self._static = StaticFiles(mounts, settings.static_max_age, serving, app_call)
            self._context.new_call = self._static.new_call
        if self._services and self._context.new_call is not None and is_detailed(settings):
            self._context.new_call = remembering(self._context.new_call)
        self._gate = Gate(
            self._context,
            place.listeners,
            siblings=place.siblings,
            queue=place.take,
            name_peer=place.name_peer,
            tls=place.tls,
            connections_max=place.connections_max,
        )
        timeouts = RequestTimeouts(serving, settings.request_timeout, settings.packages) if settings.request_timeout else None
        self._sweep = Sweep(self._context, date_header=settings.date_header, also=timeouts.look if timeouts is not None else None)
        self._recycle = Recycle(settings, serving.ledger, time.monotonic())
        self._threads = Threads(serving, place.row, place.executor, warn_s=settings.stall_warn, packages=settings.packages)
        witness = Witness(serving, settings.stall_warn, place.box, place.stalled) if place.stalled is not None else None
        self._heartbeat = Heartbeat(self._context, place.row, self._on_totals, witness)

    async def _start_lifespans(self, lifespans: list[Lifespan]) -> None:
        """Start the apps in their order. Raises `LifespanFailed` when one does not, after those before it were shut down."""
        try:
            for lifespan in lifespans:
                await lifespan.startup()
                self._lifespans.append(lifespan)
        except BaseException:
            await self._stop_lifespans(drain.reserve(self.settings.graceful_timeout))
            raise

    async def _stop_lifespans(self, seconds: float) -> None:
        """Shut the apps down, the last first. One that hangs does not use up the time of the others."""
        deadline = time.monotonic() + seconds
        while self._lifespans:
            share = (deadline - time.monotonic()) / len(self._lifespans)
            await self._lifespans.pop().shutdown(max(share, 0.0))

    def _new_service(self, loaded: LoadedApp, settings: Settings, path: str, serving: Serving) -> Service:
        """What calls a WSGI app, below `path` of the mount path."""
        # Under a supervisor two workers overlap in every reload, whatever their number is.
        multiprocess = self._place.siblings is not None
        prefix = settings.mount_path + path
        mounted = WsgiMount(loaded.app, prefix) if prefix else loaded.app
        service = Service(mounted, serving, settings.threads, multiprocess=multiprocess, body_limit=settings.limit_request_body)
        self._services.append(service)
        return service

    def _route(self, parts: Sequence[Part], serving: Serving) -> Router:
        """The way of each request to its app, where there are several."""
        router = Router(serving, self.settings.mount_path)
        for part, lifespan in zip(parts, self._lifespans, strict=True):
            if part.loaded.interface == "wsgi":
                service = self._new_service(part.loaded, part.settings, part.table.path, serving)
                router.add(part.table, WsgiTarget(service, router.no_websocket))
            else:
                own = serving.with_app(lifespan.app, lifespan.context, lifespan.state)
                self._servings.append(own)
                router.add(part.table, AsgiTarget(own))
        serving.websocket_serving = router.websocket_serving
        return router

    def open(self) -> None:
        """Accept connections. Only after `boot()`."""
        if self._gate is None or self._sweep is None or self._heartbeat is None:
            raise RuntimeError("boot() comes before open()")
        for service in self._services:
            service.start()
        if self._static is not None:
            self._static.start()
        self._sweep.start()
        if self._place.siblings is not None:  # else nobody listens, and a process that idles should not wake for it
            self._heartbeat.start()
        self._place.row.set(layout.PHASE, layout.Phase.READY)
        self._gate.open()

    def _on_totals(self, now: float) -> None:
        if self._threads is not None:
            self._threads.look(now)
        if self._place.siblings is not None:
            self._place.siblings.refresh()
            if self._recycle is not None and (reason := self._recycle.due(now)):
                self._place.retire(reason)

    async def stop(self, grace_s: float | None = None, *, last: bool = True, heirs: bool = False) -> list[str]:
        """Finish what is in flight within `grace_s` (`graceful_timeout` by default), run lifespan shutdown, close the listeners.

        `last` says that the whole server stops: nobody comes after us who could take connections or look at the backlog. `heirs` says
        that another server takes connections from the queue.
        Returns the request lines that had to be cancelled. A second call, while the first waits, cancels them at once.
        """
        if self._stopped:
            self.hurry()
            return []
        self._stopped = True
        grace = self.settings.graceful_timeout if grace_s is None else grace_s
        reserved = drain.reserve(grace)
        left: list[str] = []
        self._place.row.set(layout.PHASE, layout.Phase.DRAINING)
        if self._gate is not None and self._context is not None:
            self._gate.close(last=last)
            self._place.draining()
            await self._gate.wait_connected()
            self._context.handover = None if last else self._maybe_handover(heirs)
            # RFC 6455 section 7.4.1, and its registry: going away for good, or a service restart: connect again at once.
            for serving in self._servings:
                serving.leave_code = 1001 if last else 1012
            left = await drain.finish_requests(self._context, grace - reserved, self._hurry)
        self._close_listeners()
        if self._tls_watch is not None:
            self._tls_watch.stop()
        await self._stop_lifespans(max(reserved, drain.SHUTDOWN_LEAST_S))
        for service in self._services:
            service.stop()
        if self._static is not None:
            self._static.stop()
        if self._sweep is not None and self._heartbeat is not None and self._context is not None:
            self._sweep.stop()
            self._heartbeat.stop()
            if self._threads is not None:
                self._threads.stop()
            if self._context.access is not None:
                self._context.access.finish()
        self._place.row.set(layout.PHASE, layout.Phase.STOPPED)
        return left

    def _maybe_handover(self, heirs: bool) -> HandOver | None:
        """The way to those who take connections, if there are any: siblings, or the `heirs`, who are on no board of ours."""
        place = self._place
        if place.tls is not None:
            return None  # the keys of a session stay in this process
        if heirs and place.give is not None:
            return HandOver(asyncio.get_running_loop(), place.give, None)
        if place.siblings is None or place.give is None or not place.siblings.ready():
            return None
        return HandOver(asyncio.get_running_loop(), place.give, place.siblings)

    @property
    def serving(self) -> Serving | None:
        """What its requests share; None before `boot()` is done."""
        return self._context.serving if self._context is not None else None

    def announce_stop(self, *, off: bool = False) -> None:
        """Serve on, but let every response from now on say `Connection: close`: clients move on before they have to. `off` takes it
        back."""
        if self._context is not None:
            self._context.closes = not off

    def shorten(self, grace_s: float) -> None:
        """While `stop()` runs with a longer grace: be through within this one."""
        asyncio.get_running_loop().call_later(max(0.0, grace_s - drain.reserve(grace_s)), self._hurry.set)

    def hurry(self) -> None:
        """Cancel what is still in flight instead of waiting for it."""
        self._hurry.set()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                close(listener)
        self._listeners = []


def _new_lifespan(loaded: LoadedApp, settings: Settings, path: str = "", name: str = "the app") -> Lifespan:
    """The app's lifespan, and the app as it is called below `path` of the mount path."""
    app = cast(ASGIApp, loaded.app)
    prefix = settings.mount_path + path
    if prefix:
        app = AsgiMount(app, prefix)
    return Lifespan(app, settings.lifespan if loaded.interface == "asgi" else "off", whole_traces=settings.traceback, name=name)


def new_serving(settings: Settings, lifespans: Sequence[Lifespan], ledger: Ledger, *, websockets: bool) -> Serving:
    """What the requests of this worker share, in the running loop. Of several apps it holds the first."""
    lifespan = lifespans[0]
    serving = Serving(lifespan.app, asyncio.get_running_loop(), lifespan.context)
    serving.ledger = ledger
    serving.state = lifespan.state
    serving.extensions = asgi_scope.extensions(serving, debug=settings.log_level == "debug")
    serving.cancel_on_disconnect = settings.cancel_on_disconnect
    serving.root_path = settings.root_path
    serving.raw_root_path = quote(settings.root_path).encode("ascii")
    if settings.ws == "auto" and websockets:
        serving.websocket_rules = WebSocketRules(
            message_bytes=settings.ws_max_size,
            queue=settings.ws_max_queue,
            deflate=settings.ws_per_message_deflate,
            ping_s=settings.ws_ping_interval,
            pong_s=settings.ws_ping_timeout,
            accept_s=settings.ws_accept_timeout,
        )
    return serving


def new_context(settings: Settings, serving: Serving, place: Place) -> ConnectionContext:
    """What the connections of this worker share."""
    named = settings.request_id != "off"
    rules = Rules(
        request_line=settings.limit_request_line,
        header_fields=settings.limit_request_fields,
        head_bytes=settings.limit_request_head,
        body_bytes=settings.limit_request_body,
        server=b"cavalcade" if settings.server_header else b"",
    )
    access = new_access_log(settings) if settings.access_log else None
    watched = is_detailed(settings)
    context = ConnectionContext(serving, settings, rules, access, place.row)
    context.forwarding.advise = place.advise
    context.http2 = http2.maybe_connection(named=named, watched=watched) if settings.http2 else None
    if settings.request_id == "off":
        context.connection_class = ObservedConnection if watched else Connection
    else:
        context.connection_class = ObservedNamedConnection if watched else NamedConnection
        context.request_ids = RequestIds(settings.request_id)
    return context


def new_asgi_call(serving: Serving) -> NewCall:
    """What a connection does by itself where nothing but an ASGI app is served."""

    def new_call(stream: Stream, head: Head, template: dict[str, Any]) -> Call:
        return Exchange(serving, stream, asgi_scope.build(serving, template, head), head.length != 0)

    return new_call
