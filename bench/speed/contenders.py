"""The servers: ours in its builds, the peers, and the limits that nobody can pass. Each with the settings that are best for it.

For all: one worker unless a case wants two, no access log, uvloop and httptools where there is the choice, keep-alive long enough that no
connection is closed while it is measured, and as many connections as a case opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from speed.process import HOST

KEEP_ALIVE_S = "75"
MOST_CONNECTIONS = "20000"


@dataclass(frozen=True)
class Start:
    """What a server is started for."""

    python: str
    app: str
    port: int
    workers: int = 1
    tls: tuple[str, str] | None = None  # certificate, key (PKCS#8)
    websocket: bool = False
    http2: bool = False
    folder: Path = Path()  # for files of a server's own

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def pair(self, certificate: str, key: str) -> list[str]:
        """The options for TLS, under a server's names for them."""
        return [certificate, self.tls[0], key, self.tls[1]] if self.tls else []


Command = Callable[[Start], list[str]]


@dataclass(frozen=True)
class Contender:
    """One server. `where` is the environment it is installed in; `cannot` says why it has no part in a case (by the case's name)."""

    name: str
    where: str
    packages: tuple[str, ...]
    command: Command
    role: str = "peer"  # or "ours", "limit"
    cannot: Mapping[str, str] = field(default_factory=dict)
    spins: bool = False  # it takes a whole core while nobody asks: it is stopped while others are measured


# -- ours ----------------------------------------------------------------------------------------------------------------


def cavalcade(*options: str) -> Command:
    def command(start: Start) -> list[str]:
        return [
            *(start.python, "-m", "cavalcade", start.app, "--bind", start.address, "--workers", str(start.workers)),
            *("--no-access-log", "--keep-alive", KEEP_ALIVE_S, *options),
            *start.pair("--ssl-certfile", "--ssl-keyfile"),
        ]

    return command


# -- peers ---------------------------------------------------------------------------------------------------------------


def uvicorn(start: Start) -> list[str]:
    return [
        *(start.python, "-m", "uvicorn", start.app, "--host", HOST, "--port", str(start.port), "--workers", str(start.workers)),
        *("--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio" if start.websocket else "none"),
        *("--no-access-log", "--log-level", "warning", "--timeout-keep-alive", KEEP_ALIVE_S),
        *start.pair("--ssl-certfile", "--ssl-keyfile"),
    ]


def gunicorn(worker: str, *options: str) -> Command:
    def command(start: Start) -> list[str]:
        return [
            *(start.python, "-m", "gunicorn", start.app, "-k", worker, "-w", str(start.workers), "-b", start.address),
            *("--log-level", "warning", "--keep-alive", KEEP_ALIVE_S, "--worker-connections", MOST_CONNECTIONS, *options),
            *(("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge") if start.http2 else ()),
            *start.pair("--certfile", "--keyfile"),
        ]

    return command


def granian(interface: str, *options: str) -> Command:
    def command(start: Start) -> list[str]:
        return [
            *(start.python, "-m", "granian", start.app, "--interface", interface, "--host", HOST, "--port", str(start.port)),
            *("--workers", str(start.workers), "--loop", "uvloop", "--runtime-mode", "st", "--http", "2" if start.http2 else "1"),
            *("--ws" if start.websocket else "--no-ws", "--no-access-log", "--log-level", "warning"),
            *("--backpressure", MOST_CONNECTIONS, *options),
            *start.pair("--ssl-certificate", "--ssl-keyfile"),
        ]

    return command


def hypercorn(start: Start) -> list[str]:
    return [
        *(start.python, "-m", "hypercorn", start.app, "-w", str(start.workers), "-k", "uvloop", "-b", start.address),
        *("--log-level", "warning", "--keep-alive", KEEP_ALIVE_S),
        *start.pair("--certfile", "--keyfile"),
    ]


FASTPYSGI = """
import importlib, sys
from fastpysgi import server
module, _, name = sys.argv[1].partition(":")
port, workers, tls = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
sys.path.insert(0, "")
server.tcp_nodelay = 1
if tls:
    server.tls_list = [tuple(tls)]
server.init(getattr(importlib.import_module(module), name), "127.0.0.1", port, workers=workers)
server.run()
"""


def fastpysgi(start: Start) -> list[str]:
    return [start.python, "-c", FASTPYSGI, start.app, str(start.port), str(start.workers), *(start.tls or ())]


# It warns of a queue whenever more ask at once than it has threads.
WAITRESS = "import logging; logging.getLogger('waitress').setLevel('ERROR'); from waitress.runner import run; run()"


def waitress(start: Start) -> list[str]:
    return [
        *(start.python, "-c", WAITRESS, f"--listen={start.address}", "--threads=1"),
        *(f"--connection-limit={MOST_CONNECTIONS}", f"--channel-timeout={KEEP_ALIVE_S}", start.app),
    ]


def uwsgi(start: Start) -> list[str]:
    return [
        *(str(Path(start.python).with_name("uwsgi")), "--http11-socket", start.address, "--module", start.app),
        *("--processes", str(start.workers), "--disable-logging", "--die-on-term"),
    ]


# -- limits --------------------------------------------------------------------------------------------------------------

NGINX = """
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout {keep_alive}s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}{flags};
        {tls}
        location / {{ default_type text/plain; return 200 "Hello, World!"; }}
    }}
}}
"""


def nginx(start: Start) -> list[str]:
    text = NGINX.format(
        workers=start.workers,
        folder=start.folder,
        connections=MOST_CONNECTIONS,
        keep_alive=KEEP_ALIVE_S,
        address=start.address,
        flags=(" ssl" if start.tls else "") + (" http2" if start.http2 else ""),
        tls=f"ssl_certificate {start.tls[0]}; ssl_certificate_key {start.tls[1]};" if start.tls else "",
    )
    path = start.folder / f"nginx-{start.port}.conf"
    path.write_text(text)
    return ["nginx", "-e", "stderr", "-c", str(path)]


def bare(start: Start) -> list[str]:
    return [start.python, str(Path(__file__).with_name("bare.py")), str(start.port), *(start.tls or ())]


NO_WEBSOCKET = {"websocket": "it has no WebSocket", "websocket-16": "it has no WebSocket"}
NO_HTTP2 = {"http2": "no HTTP/2 in the clear", "http2-varied": "no HTTP/2 in the clear"}
OURS = ("cavalcade", "uvloop", "fastapi")

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("cavalcade", "compiled", OURS, cavalcade("--loop", "uvloop"), "ours"),
        Contender("cavalcade, pure", "pure", OURS, cavalcade("--loop", "uvloop"), "ours"),
        Contender("cavalcade, asyncio", "compiled", OURS, cavalcade("--loop", "asyncio"), "ours"),
        Contender("cavalcade, pure, asyncio", "pure", OURS, cavalcade("--loop", "asyncio"), "ours"),
        Contender("cavalcade, threads=0", "compiled", OURS, cavalcade("--loop", "uvloop", "--threads", "0"), "ours"),
        Contender("cavalcade, threads=1", "compiled", OURS, cavalcade("--loop", "uvloop", "--threads", "1"), "ours"),
        Contender("uvicorn", "peers", ("uvicorn", "httptools", "uvloop", "websockets"), uvicorn, cannot=NO_HTTP2),
        Contender(
            "gunicorn + uvicorn",
            "peers",
            ("gunicorn", "uvicorn-worker", "uvicorn"),
            gunicorn("uvicorn_worker.UvicornWorker"),
            cannot=NO_HTTP2,
        ),
        Contender(
            "gunicorn asgi", "peers", ("gunicorn", "gunicorn-h1c"), gunicorn("asgi", "--asgi-loop", "uvloop", "--http-parser", "fast")
        ),
        Contender("granian", "peers", ("granian",), granian("asgi")),
        Contender("hypercorn", "peers", ("hypercorn", "h11", "h2", "wsproto"), hypercorn),
        Contender("fastpysgi", "peers", ("fastpysgi",), fastpysgi, cannot=NO_WEBSOCKET | NO_HTTP2, spins=True),
        Contender("gunicorn gthread", "peers", ("gunicorn",), gunicorn("gthread", "--threads", "1")),
        Contender("granian wsgi", "peers", ("granian",), granian("wsgi", "--blocking-threads", "1")),
        Contender("waitress", "peers", ("waitress",), waitress),
        Contender("uwsgi", "peers", ("pyuwsgi",), uwsgi),
        Contender("fastpysgi wsgi", "peers", ("fastpysgi",), fastpysgi),
        Contender("nginx", "system", (), nginx, "limit"),
        Contender("bare uvloop", "peers", ("uvloop",), bare, "limit"),
    )
}
"""By name, in the order of the tables."""
PEERS = ("uvicorn", "gunicorn + uvicorn", "gunicorn asgi", "granian", "hypercorn", "fastpysgi")
