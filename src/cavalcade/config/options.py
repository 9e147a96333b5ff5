"""Every option, declared once: type, default, help, group. The command line, the environment, the TOML keys, `--help`,
`cavalcade config show` and the docs table are all made from `Settings`; nothing else lists options.

`Settings` holds the values a server runs with, already checked. It is plain data: it goes to the nursery and the workers as
JSON and comes back the same.
"""

# ruff: noqa: RUF009  (option() is dataclasses.field() by another name; its defaults are immutable)

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cavalcade import limits


@dataclass(frozen=True)
class Unit:
    """How the text of a value is read: "s" takes `30s`, `5m`, `250ms`; "bytes" takes `64KiB`, `1M`."""

    name: Literal["s", "bytes"]


Seconds = Annotated[float, Unit("s")]
Bytes = Annotated[int, Unit("bytes")]


@dataclass(frozen=True)
class OptionInfo:
    """What is known of an option beside its name, type and default."""

    help: str
    group: str
    short: str = ""  # "-w"
    aliases: tuple[str, ...] = ()  # other long names that hands know, without dashes: "log_file"
    minimum: float | None = None
    maximum: float | None = None
    env: tuple[str, ...] = ()  # platform variables below every file: "WEB_CONCURRENCY"
    metavar: str = ""
    words: tuple[tuple[str, str], ...] = ()  # other words for the choices that hands know: ("2", "required")
    secret: bool = False  # never shown


def option(default: Any, help: str, group: str, **more: Any) -> Any:
    """Declare one option. Lists and tuples have () as default, so every default may be shared."""
    about = OptionInfo(help, group, **more)
    return dataclasses.field(default=default, repr=not about.secret, metadata={"option": about})


LogLevel = Literal["debug", "info", "warning", "error", "critical"]


# As numbers and names of Python's ssl module.
_CERT_REQS = tuple((word, plain) for n, plain in enumerate(("none", "optional", "required")) for word in (str(n), f"cert_{plain}"))


@dataclass(frozen=True, kw_only=True)
class AppTable:
    """One `[[app]]` table: an app among several. None stands for what the server's own option of that name says."""

    app: str
    host: tuple[str, ...] = ()  # in lower case, "*.example.org" for all below it; () for every host
    path: str = ""  # without a slash at its end
    app_dir: str | None = None
    factory: bool | None = None
    interface: Literal["auto", "asgi", "wsgi"] | None = None
    lifespan: Literal["auto", "on", "off"] | None = None
    threads: int | None = None

    def __str__(self) -> str:
        path = self.path or "/"
        return f"{self.app} at {', '.join(host + path for host in self.host or ('',))}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective configuration of one server. Field order is the order of `--help`."""

    # -- app
    app: str = option("", "What to serve: module:attribute.", "app")
    app_dir: str = option(".", "Directory that the app is imported from.", "app", metavar="DIR")
    factory: bool = option(False, "The attribute is a function that makes the app.", "app")
    interface: Literal["auto", "asgi", "wsgi"] = option("auto", "What the app is called as; auto tells by its signature.", "app")
    lifespan: Literal["auto", "on", "off"] = option("auto", "Run the app's lifespan events.", "app")
    root_path: str = option("", "Path prefix that a proxy in front strips; the app is told of it.", "app", metavar="PATH")
    mount_path: str = option("", "Path prefix that a proxy in front keeps; all outside of it is answered 404.", "app", metavar="PATH")

    # Of files only, and no option: the [[app]] tables. Where there are any, `app` is their names, for people.
    apps: tuple[AppTable, ...] = ()

    # -- proxies
    trusted_proxies: tuple[str, ...] = option(
        ("loopback", "unix"),
        "Peers that are believed when they say who the client is: addresses, networks, loopback, private, unix, * or none.",
        "proxies",
        aliases=("forwarded_allow_ips",),
        env=("FORWARDED_ALLOW_IPS",),
    )
    forwarded_headers: tuple[str, ...] = option(
        ("x-forwarded-for", "x-forwarded-proto"),
        "What they say it with: x-forwarded-for, -proto, -host, -port, -prefix, forwarded. Only what they set themselves.",
        "proxies",
        metavar="NAME",
    )

    # -- files
    static: tuple[str, ...] = option(
        (),
        "Serve the files of a directory below a path prefix, without the app: /static=./public (see docs/static.md). Repeatable.",
        "files",
        metavar="/PREFIX=DIR",
    )
    static_max_age: Seconds = option(
        limits.STATIC_MAX_AGE_S, "How long clients may use a file of static without asking again; 0 for not at all.", "files", minimum=0
    )

    # -- where to listen
    bind: tuple[str, ...] = option(
        (), "Address to listen on: host:port, [v6]:port, unix:/path or fd://N (see docs/binds.md). Repeatable.", "listen", short="-b"
    )
    host: str = option("127.0.0.1", "Host to listen on, where no --bind is given.", "listen")
    port: int = option(
        8000, "Port to listen on, where no --bind is given; 0 takes a free one.", "listen", minimum=0, maximum=65535, env=("PORT",)
    )
    backlog: int = option(limits.BACKLOG, "Connections the kernel holds until a worker accepts them.", "listen", minimum=1)

    # -- TLS
    ssl_certfile: str = option(
        "",
        "Serve HTTPS with this certificate, PEM, its chain behind it; a renewed file is taken up while serving.",
        "tls",
        aliases=("certfile", "ssl_certificate"),
        metavar="FILE",
    )
    ssl_keyfile: str = option(
        "", "The certificate's private key, PEM, where it is not in the same file.", "tls", aliases=("keyfile",), metavar="FILE"
    )
    ssl_keyfile_password: str = option(
        "",
        "What the private key is encrypted with; in a variable or a file it is safer than here.",
        "tls",
        aliases=("keyfile_password",),
        secret=True,
    )
    ssl_sni: tuple[str, ...] = option(
        (),
        "Another certificate for clients that ask for this host, or *.domain: HOST=CERTFILE:KEYFILE. Repeatable.",
        "tls",
        metavar="HOST=CERT:KEY",
    )
    ssl_cert_reqs: Literal["none", "optional", "required"] = option(
        "none",
        "Ask clients for a certificate, which must be of ssl_ca_certs.",
        "tls",
        aliases=("cert_reqs", "verify_mode"),
        words=_CERT_REQS,
    )
    ssl_ca_certs: str = option(
        "", "Whose client certificates are good: certificates of authorities, PEM.", "tls", aliases=("ca_certs", "ssl_ca"), metavar="FILE"
    )
    ssl_crl: str = option("", "Client certificates that are revoked: the authorities' lists, PEM.", "tls", metavar="FILE")
    ssl_minimum_version: Literal["1.2", "1.3"] = option(
        "1.2",
        "Oldest version of TLS that is spoken.",
        "tls",
        aliases=("ssl_protocol_min",),
        words=(("tls1.2", "1.2"), ("tlsv1.2", "1.2"), ("tls1.3", "1.3"), ("tlsv1.3", "1.3")),
    )
    ssl_ciphers: str = option(
        "", "Ciphers for TLS 1.2, in OpenSSL's notation; Python's choice by default.", "tls", aliases=("ciphers",), metavar="LIST"
    )

    # -- workers
    workers: int | Literal["auto"] = option(
        1,
        "Worker processes, or auto: as many as the CPUs this process may use.",
        "workers",
        short="-w",
        minimum=1,
        maximum=limits.WORKERS_MAX,
        env=("WEB_CONCURRENCY",),
    )
    loop: Literal["auto", "uvloop", "asyncio"] = option("auto", "Event loop; auto is uvloop where it is installed.", "workers")
    threads: int = option(
        1,
        "Threads of a worker that a WSGI app runs in, beside the event loop; 0 runs it on the loop's own thread.",
        "workers",
        minimum=0,
        maximum=limits.THREADS_MAX,
    )
    preload: bool = option(
        False, "Import the app once, then fork the workers from it: they share its memory.", "workers", aliases=("preload_app",)
    )
    name: str = option("", "Name in process titles; the app's name by default.", "workers", short="-n", aliases=("proc_name",))
    pid: str = option("", "Write the supervisor's process id to this file.", "workers", short="-p", aliases=("pidfile",), metavar="FILE")

    # -- admin
    control: str = option(
        "auto",
        "Unix socket for `cavalcade status`, `reload`, `scale`: a path, off, or auto for one of its own in the runtime directory.",
        "admin",
        metavar="PATH|auto|off",
    )
    admin: str = option(
        "",
        "Also answer over TCP on this address, with a token: the dashboard, status, metrics, health (see docs/admin.md).",
        "admin",
        metavar="HOST:PORT",
    )
    admin_token: str = option(
        "", "The token that it asks for; in a variable or a file it is safer than here.", "admin", secret=True, metavar="TOKEN"
    )
    admin_token_file: str = option(
        "",
        "Read the token from this file. With neither, on a loopback address, one is made and kept beside the control socket.",
        "admin",
        metavar="FILE",
    )
    admin_write: bool = option(False, "Over TCP too, reload, scale, recycle, drain and stop for who has the token.", "admin")
    admin_open: tuple[str, ...] = option(
        (), "What is answered over TCP without the token: health, metrics or both.", "admin", metavar="health|metrics"
    )
    admin_hosts: tuple[str, ...] = option(
        (),
        "Host names, beside addresses and localhost, under which the admin address is asked; others are refused. Repeatable.",
        "admin",
        metavar="NAME",
    )

    # -- protocols
    http2: bool = option(True, "Speak HTTP/2 with clients that do, where h2 is installed (the extra http2).", "protocols")

    # -- timeouts
    keep_alive: Seconds = option(
        limits.KEEP_ALIVE_S, "Close an idle connection after this long.", "timeouts", aliases=("timeout_keep_alive",), minimum=0
    )
    head_timeout: Seconds = option(
        limits.HEAD_TIMEOUT_S, "A request's head must arrive within this; 408 after it.", "timeouts", minimum=0.1
    )
    body_timeout: Seconds = option(
        limits.BODY_TIMEOUT_S, "Close a connection whose request body stands still this long.", "timeouts", minimum=0.1
    )
    request_timeout: Seconds = option(
        0.0,
        "Give a request up whose app sends nothing for this long while it could: 504, and the app is cancelled; 0 for never.",
        "timeouts",
        minimum=0,
    )
    cancel_on_disconnect: bool = option(False, "Cancel an ASGI app whose client is gone before the response is complete.", "timeouts")
    write_timeout: Seconds = option(
        limits.WRITE_TIMEOUT_S, "Close a connection whose client takes nothing for this long.", "timeouts", minimum=0.1
    )
    boot_timeout: Seconds = option(
        limits.BOOT_TIMEOUT_S, "A worker must be ready within this: import plus lifespan startup.", "timeouts", minimum=0.1
    )
    graceful_timeout: Seconds = option(
        limits.GRACEFUL_TIMEOUT_S,
        "How long a stopping worker may finish its requests, lifespan shutdown included.",
        "timeouts",
        aliases=("timeout_graceful_shutdown",),
        minimum=0,
    )
    stall_warn: Seconds = option(
        limits.STALL_WARN_S,
        "Say which line it was when a worker's event loop was blocked, or a thread pool full, for longer than this; 0 for never.",
        "timeouts",
        minimum=0,
    )
    stall_kill: Seconds = option(
        limits.STALL_KILL_S,
        "Replace a worker whose event loop is blocked for this long; 0 for never. What merely awaits is never meant.",
        "timeouts",
        minimum=0,
    )
    drain_delay: Seconds = option(
        0.0,
        "After SIGTERM, go on serving this long, not ready any more, before the stop: time for load balancers to notice.",
        "timeouts",
        minimum=0,
    )

    # -- recycling
    max_requests: int = option(
        0, "Replace a worker after this many requests; 0 for never.", "recycling", aliases=("limit_max_requests",), minimum=0
    )
    max_requests_jitter: int = option(
        0, "Add up to this many requests to max_requests, at random, so that workers do not all go at once.", "recycling", minimum=0
    )
    max_age: Seconds = option(
        0.0, "Replace a worker after this long, and up to a tenth more at random; 0 for never.", "recycling", minimum=0
    )
    max_memory: Bytes = option(0, "Replace a worker whose resident memory stays above this; 0 for never.", "recycling", minimum=0)
    max_surge: int = option(1, "How many workers may be replaced at the same time, in a reload too.", "recycling", minimum=1)

    # -- limits
    limit_request_line: Bytes = option(limits.REQUEST_LINE_BYTES, "Longest request line; 414 beyond it.", "limits", minimum=64)
    limit_request_fields: int = option(limits.HEADER_FIELDS, "Most header fields; 431 beyond it.", "limits", minimum=1)
    limit_request_head: Bytes = option(limits.HEAD_BYTES, "Most bytes of a request head; 431 beyond it.", "limits", minimum=256)
    limit_request_body: Bytes = option(0, "Longest request body; 413 beyond it; 0 for no limit.", "limits", minimum=0)

    limit_concurrency: int = option(
        0, "Most requests in flight in one worker, idle connections not counted; 503 beyond it; 0 for no limit.", "limits", minimum=0
    )

    # -- websocket
    ws: Literal["auto", "none"] = option("auto", "WebSocket; with none a request for one is treated as a plain request.", "websocket")
    ws_max_size: Bytes = option(
        limits.WS_MESSAGE_BYTES,
        "Longest message of a client, uncompressed; close code 1009 beyond it.",
        "websocket",
        aliases=("websocket_max_message_size",),
        minimum=1,
    )
    ws_max_queue: int = option(
        limits.WS_QUEUE, "Messages read ahead for an app that is behind; then the client has to wait.", "websocket", minimum=1
    )
    ws_ping_interval: Seconds = option(
        limits.WS_PING_INTERVAL_S,
        "Ping a client that has sent nothing for this long; 0 for never.",
        "websocket",
        aliases=("websocket_ping_interval",),
        minimum=0,
    )
    ws_ping_timeout: Seconds = option(
        limits.WS_PING_TIMEOUT_S, "Close, with 1011, when nothing comes for this long after a ping; 0 for never.", "websocket", minimum=0
    )
    ws_accept_timeout: Seconds = option(
        limits.WS_ACCEPT_TIMEOUT_S, "An app must accept or deny within this; 504 after it; 0 for no limit.", "websocket", minimum=0
    )
    ws_per_message_deflate: bool = option(True, "Compress messages with clients that can (permessage-deflate).", "websocket")

    # -- responses
    server_header: bool = option(True, "Send the Server header.", "responses")
    date_header: bool = option(True, "Send the Date header.", "responses")

    # -- metrics
    app_metrics: bool = option(
        True, "Merge what the app counts with prometheus-client, in all workers, into /metrics (see docs/metrics.md).", "metrics"
    )
    statsd_host: str = option(
        "", "Push metrics to StatsD, once a second: host:port (8125 if no port), or unix:/path.", "metrics", metavar="ADDRESS"
    )
    statsd_prefix: str = option("", "What the names of these metrics begin with; a dot is put behind it.", "metrics", metavar="PREFIX")
    dogstatsd_tags: str = option(
        "", "Tags for every metric, as DogStatsD takes them: env:prod,team:web. With some, labels are sent as tags too.", "metrics"
    )

    # -- logs
    request_id: Literal["off", "make", "trusted", "accept"] = option(
        "off",
        "Name every request, in X-Request-ID and all logs: make a name; or take that of the client, from trusted_proxies only or from "
        "anybody, its traceparent's where it gives no other.",
        "logs",
    )
    log_level: LogLevel = option("info", "Least important level that is logged.", "logs")
    log_format: Literal["auto", "text", "plain", "json"] = option(
        "auto", "text has colours, plain has none, json is one object a line; auto is text on a terminal, else plain.", "logs"
    )
    log_config: str = option("", "Logging configuration for logging.config: .json, .toml or .ini.", "logs", metavar="FILE")
    access_log: bool = option(True, "Log every request.", "logs")
    access_log_format: str = option(
        "",
        "What an access line says: common, combined, gunicorn's atoms as in '%(h)s \"%(r)s\" %(s)s', or a template as in "
        "'{client} {method} {target} {status} {duration_ms}' (see docs/logs.md).",
        "logs",
        aliases=("access_logformat", "access_log_fmt"),
        metavar="FORMAT",
    )
    access_logfile: str = option(
        "-",
        "Write access lines to this file, which USR1 opens anew; - is stdout.",
        "logs",
        aliases=("accesslog", "access_log_file"),
        metavar="FILE",
    )
    access_log_sample: int = option(
        1,
        "Log one in so many of the requests that went well; those answered 400 and up, or left by their client, are all logged.",
        "logs",
        minimum=1,
    )
    traceback: bool = option(False, "Show whole tracebacks, not only the app's own frames.", "logs")

    @property
    def packages(self) -> frozenset[str]:
        """The apps' own packages: their code is the user's wherever it is installed."""
        names = [table.app for table in self.apps] or [self.app]
        return frozenset(filter(None, (name.partition(":")[0].partition(".")[0] for name in names)))


def info(field: dataclasses.Field[Any]) -> OptionInfo:
    """What `option()` was told about this field of `Settings`."""
    value = field.metadata["option"]
    assert isinstance(value, OptionInfo)
    return value
