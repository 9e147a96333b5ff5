"""What is known of the machine, the settings and the app before anything is judged. Gathered once; the checks only read it."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cavalcade import build
from cavalcade.config import cgroups, cpus
from cavalcade.config.addresses import parse
from cavalcade.config.checks import installed
from cavalcade.config.cpus import Cpus
from cavalcade.config.options import Settings
from cavalcade.doctor.outline import Outline
from cavalcade.doctor.subject import Subject
from cavalcade.net.tls import Tls

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a check may look at."""

    settings: Settings
    build_kind: str = "compiled"
    has_uvloop: bool = True
    has_h2: bool = True
    descriptors: tuple[int, int] = (65536, 65536)  # RLIMIT_NOFILE, soft and hard; -1 for no limit
    somaxconn: int | None = None
    cpus: Cpus
    memory_limit: int | None = None  # of the cgroup
    memory_total: int = 0  # of the machine
    rss: int = 0  # of the worker, after the probes
    public: bool = False  # it listens on more than the loopback interface and unix sockets
    tls_warnings: Sequence[str] = ()
    forked_threads: str = ""
    complaints: Sequence[tuple[str, str]] = ()
    starved: int = 0
    import_s: float = 0.0
    debug: bool = False
    asyncio_debug: bool = False
    first_process: Sequence[str] = ()  # the command line of process 1


def gather(settings: Settings, subject: Subject, outline: Outline) -> Facts:
    """Look at everything once; the probes are over by now. Raises `TlsError`."""
    said = subject.said
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Facts(
        settings=settings,
        build_kind=build.kind(),
        has_uvloop=installed("uvloop"),
        has_h2=installed("h2"),
        descriptors=(soft, hard),
        somaxconn=_number(SOMAXCONN),
        cpus=cpus.count(),
        memory_limit=cgroups.memory_limit(),
        memory_total=psutil.virtual_memory().total,
        rss=subject.rss_bytes(),
        public=any(_public(bind) for bind in settings.bind),
        tls_warnings=Tls(settings).warnings() if settings.ssl_certfile else (),
        forked_threads=said.forked_threads,
        complaints=list(dict.fromkeys(said.complaints)),
        starved=said.starved,
        import_s=subject.import_s,
        debug=outline.debug,
        asyncio_debug=bool(os.environ.get("PYTHONASYNCIODEBUG") or os.environ.get("PYTHONDEVMODE")),
        first_process=_command_line(Path("/proc/1/cmdline")),
    )


def _public(bind: str) -> bool:
    address = parse(bind)
    return address.kind == "tcp" and not address.host.startswith(("127.", "localhost", "::1"))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _command_line(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []
