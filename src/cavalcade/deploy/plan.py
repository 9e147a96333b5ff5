"""The numbers that a server and the tools around it must agree on, computed once from the effective settings.

Three races lose requests where these disagree:

- A proxy writes to an idle connection that the server is just closing. So the proxy gives up an idle connection first: its
  patience is shorter than `keep_alive`. It is also shorter than `drain_delay`: in that time a connection that is used is told
  `Connection: close`, and one that is not used is given up by the proxy, so that none is left when the server closes them.
- An orchestrator stops a server and takes it out of the rotation at the same time. So there is a `drain_delay`.
- A manager kills what has not stopped in time. So it grants `drain_delay` and `graceful_timeout`, and some seconds.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cavalcade.config.addresses import Bind, parse
from cavalcade.config.sources import ENV_PREFIX, Resolved, flag_of
from cavalcade.config.values import OPTIONS, Option, show
from cavalcade.errors import UsageError

DRAIN_DELAY_S = 10.0  # where nobody has said: kube-proxy and load balancers need some seconds to take a server out
STOP_MARGIN_S = 5.0  # beyond drain_delay and graceful_timeout: 2 s before the last worker is killed, and the way out
UPSTREAM_IDLE_MAX_S = 60.0
UPSTREAM_IDLE_SHARE = 0.8  # of keep_alive and of drain_delay
BOOT_MARGIN_S = 15.0  # beyond boot_timeout, until a manager gives a start up

# Said on the command line of the service, not in a file that it reads by itself, though not because somebody has said them here.
_PLACED = frozenset(
    {"app", "app_dir", "bind", "host", "port", "workers", "control", "pid", "drain_delay", "graceful_timeout", "keep_alive"}
)
_SAID_HERE = ("-", "CAVALCADE_", "PORT", "WEB_CONCURRENCY")  # how the origin of a value begins that no file holds
_YAML_WORDS = frozenset({"on", "off", "yes", "no", "y", "n", "true", "false", "null"})
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def reachable(bind: Bind) -> Bind:
    """What is listened on, as a client on the same machine reaches it."""
    return dataclasses.replace(bind, host=_WILDCARDS.get(bind.host, bind.host), mode=-1, user="", group="")


@dataclass(frozen=True)
class Plan:
    """One server as its surroundings see it. Times are in seconds."""

    resolved: Resolved
    name: str  # of units, upstreams, Kubernetes objects: lower case, digits and dashes
    directory: Path  # the app's
    binds: tuple[Bind, ...]
    config: str  # the file of --config, or ""
    drain_delay: float
    graceful_timeout: float
    keep_alive: float

    @property
    def stop(self) -> float:
        """How long whoever stops the server must wait before it kills."""
        return math.ceil(self.drain_delay + self.graceful_timeout + STOP_MARGIN_S)

    @property
    def boot(self) -> float:
        """How long a start may take."""
        return math.ceil(self.resolved.settings.boot_timeout + BOOT_MARGIN_S)

    @property
    def upstream_idle(self) -> float:
        """After how long without use a proxy gives a connection to the server up."""
        bounds = [self.keep_alive, *([self.drain_delay] if self.drain_delay else [])]
        share = min(UPSTREAM_IDLE_MAX_S, UPSTREAM_IDLE_SHARE * min(bounds))
        return math.floor(share) if share >= 2 else round(share, 3)

    @property
    def workers(self) -> int:
        workers = self.resolved.settings.workers
        assert isinstance(workers, int), "resolve() makes a number of auto"
        return workers

    @property
    def workers_auto(self) -> bool:
        """As many as the CPUs there, which are not those here."""
        return self.resolved.origins["workers"].endswith("(auto)")

    def arguments(self, binds: Iterable[Bind], *more: str, app_dir: bool = True) -> list[str]:
        """The command line of the service, after `cavalcade`: what its files here do not say, and what other tools rely on."""
        settings, origins = self.resolved.settings, self.resolved.origins
        words = [] if settings.apps else [settings.app]  # tables are in a file, and stay there
        if app_dir and settings.app_dir != ".":
            words += ["--app-dir", settings.app_dir]
        if self.config:
            words += ["--config", self.config]
        for bind in binds:
            words += ["--bind", str(bind)]
        if self.workers_auto or origins["workers"].startswith(_SAID_HERE):
            words += ["--workers", "auto" if self.workers_auto else str(self.workers)]
        for name in ("drain_delay", "graceful_timeout", "keep_alive"):
            words += [flag_of(name), seconds(getattr(self, name))]
        for name, option in OPTIONS.items():
            if name not in _PLACED and origins[name].startswith(_SAID_HERE) and not option.info.secret:
                words += _written(option, getattr(settings, name))
        return [*words, *more]

    def numbers(self) -> list[str]:
        """The numbers and how they hang together, for the head of every file."""
        rows = [
            ("drain_delay", self.drain_delay, "after SIGTERM the server still serves so long, while the others learn of it"),
            ("graceful_timeout", self.graceful_timeout, "then it finishes what is in flight"),
            ("stop", self.stop, f"so long a manager waits before it kills: both, and {STOP_MARGIN_S:g}s"),
            ("keep_alive", self.keep_alive, "after so long without use the server closes a connection"),
            ("upstream idle", self.upstream_idle, "a proxy does sooner, and sooner than drain_delay: neither closes on the other"),
        ]
        return [f"  {name:<16}  {seconds(value):>5}  {text}" for name, value, text in rows]


def make(resolved: Resolved, *, cwd: Path, config: str = "") -> tuple[Plan, list[str]]:
    """The plan, and what ought to be said about it. Raises `UsageError` for settings that nothing can stand in front of."""
    settings = resolved.settings
    notes: list[str] = []
    drain_delay = settings.drain_delay
    if resolved.origins["drain_delay"] == "default":
        drain_delay = DRAIN_DELAY_S
        notes.append(f"--drain-delay {seconds(drain_delay)} is written, for nobody has said; --drain-delay 0 for none")
    elif not drain_delay:
        notes.append("drain_delay is 0: a server that stops takes no new connections while others may still send some")
    if not settings.keep_alive:
        raise UsageError("keep_alive is 0, so a proxy can keep no connection to the server.", fix="Say --keep-alive 75s, or leave it out")
    secrets = [name for name, option in OPTIONS.items() if option.info.secret and resolved.origins[name].startswith(_SAID_HERE)]
    notes += [f"{name} is a secret and is not written: give the service {ENV_PREFIX}{name.upper()}" for name in secrets]
    binds = tuple(parse(bind) for bind in settings.bind)
    if any(bind.kind == "fd" for bind in binds):
        raise UsageError("A descriptor (fd://) is no address that others can be told of.", fix="Say --bind host:port or unix:/path")
    if any(bind.kind == "tcp" and not bind.port for bind in binds):
        raise UsageError("Port 0 is another port at every start, which nobody can be told of.", fix="Say --bind host:port")
    directory = (cwd / settings.app_dir).resolve()
    if any(char < " " for text in (settings.app, config, str(directory), *settings.bind) for char in text):
        raise UsageError("A line break or another control character cannot be written into these files.")
    name = _plain(settings.name) or _plain(directory.name) or "app"
    return Plan(resolved, name, directory, binds, config, drain_delay, settings.graceful_timeout, settings.keep_alive), notes


def seconds(value: float) -> str:
    """A duration that all of the tools read, and Cavalcade: whole seconds, else milliseconds."""
    return f"{value:.0f}s" if float(value).is_integer() else f"{value * 1000:.0f}ms"


def shell(words: Iterable[str]) -> str:
    """A command line for a shell."""
    return shlex.join(words)


def _plain(text: str) -> str:
    """What Kubernetes takes as a name of anything (RFC 1035 label), and every other tool too; "" where nothing is left of it."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    # A label begins with a letter, and YAML takes some words for true, false and null.
    return f"app-{plain}" if plain[:1].isdigit() or plain in _YAML_WORDS else plain


def _written(option: Option, value: object) -> list[str]:
    flag = flag_of(option.name)
    if option.kind == "flag":
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, tuple):
        return [word for item in value for word in (flag, str(item))]
    return [flag, show(option, value)]
