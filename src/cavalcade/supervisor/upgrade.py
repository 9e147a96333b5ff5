"""Replacing the server itself while it serves: another version of Cavalcade or of Python takes the sockets over.

The old supervisor starts the new one with its own command line, as its child, and lets it inherit the listening sockets, the queue
through which connections are handed over, and one end of a socketpair. The new one binds nothing; it starts its nursery and workers
on the same sockets, so for a moment both serve. Then they talk, one JSON object a line:

    old -> new   Offer       what the inherited descriptors are; the first line
    new -> old   Ready       every worker of mine is ready
    old -> new   TakeOver    the pid file, socket files and a control path are yours, and so is what I have counted; I drain
    old -> new   Counted     what I have counted in the end; the last line
    new -> old   Failed      why I am not; I leave

Until `TakeOver` the new one owns nothing: when it fails, what it has accepted goes back through the queue, and the old one serves on.
When the socketpair closes before that, the old one stops or is dead, and the new one leaves as well.

Versions differ, so these messages, and `net.handover.Passport`, may only ever get more fields, with defaults.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import msgspec

from cavalcade.errors import StartupError
from cavalcade.net import listener
from cavalcade.net.listener import Inherited, Listener
from cavalcade.supervisor.children import Link
from cavalcade.supervisor.heritage import Counts
from cavalcade.supervisor.pidfile import PidFile
from cavalcade.worker.channel import Lines

log = logging.getLogger("cavalcade")

VARIABLE = "CAVALCADE_UPGRADE_FD"
OFFER_WAIT_S = 10.0


class Offer(msgspec.Struct, tag="offer"):
    pid: int
    bind: list[str]
    listeners: list[Inherited]
    give: int
    take: int
    app_metrics: str = ""  # the directory of the app's own


class TakeOver(Counts, tag="take_over"):
    pass


class Counted(Counts, tag="counted"):
    pass


class Ready(msgspec.Struct, tag="ready"):
    pass


class Failed(msgspec.Struct, tag="failed"):
    cause: str
    fix: str = ""
    trace: str = ""


_encode = msgspec.json.Encoder().encode
_decode_report: msgspec.json.Decoder[Ready | Failed] = msgspec.json.Decoder(Ready | Failed)
_decode_order: msgspec.json.Decoder[Offer | TakeOver | Counted] = msgspec.json.Decoder(Offer | TakeOver | Counted)


def decode_report(line: bytes) -> Ready | Failed:
    """What the new supervisor said. Raises `msgspec.DecodeError` on anything else."""
    return _decode_report.decode(line)


@dataclasses.dataclass
class Holdings:
    """What outlives a supervisor when another takes over. While it is `owned`, the end of this process is the end of it."""

    listeners: list[Listener]
    queue: tuple[socket.socket, socket.socket]
    pid_file: PidFile | None = None
    app_metrics: str = ""  # the directory of the app's own
    owned: bool = True

    def own(self, backlog: int) -> None:
        """They are this process's from now on."""
        self.owned = True
        for each in self.listeners:
            if each.sock.family == socket.AF_UNIX:
                each.sock.listen(backlog)  # the kernel tells those who ask whose it is: who has said this last

    def release(self) -> None:
        """This process ends."""
        if self.owned and self.pid_file is not None:
            self.pid_file.remove()
        for each in self.listeners:
            listener.close(each if self.owned else dataclasses.replace(each, file=None))
        for end in self.queue:
            end.close()


class Successor:
    """The new supervisor, as the old one sees it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        holdings: Holdings,
        bind: Sequence[str],
        environ: Mapping[str, str],
        cwd: str,
        on_line: Callable[[int, bytes], object],
    ) -> None:
        """Start it. Raises `OSError` where the kernel refuses. `environ` is laid over the environment; `on_line` gets its pid and what
        it says."""
        ours, theirs = socket.socketpair()
        give, take = (end.fileno() for end in holdings.queue)
        offered = [listener.describe(each) for each in holdings.listeners]
        try:
            self.process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                cwd=cwd,
                env={**os.environ, **environ, VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno(), give, take, *(each.fd for each in offered)],
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self.process.pid
        self.link = Link(loop, ours, lambda line: on_line(self.pid, line), lambda: None)
        self.link.send(_encode(Offer(os.getpid(), list(bind), offered, give, take, holdings.app_metrics)) + b"\n")

    def take_over(self, counts: Counts) -> None:
        """It is the server from here on, and goes on counting where we are."""
        self.link.send(_encode(TakeOver(counts.totals, counts.restarts, counts.stalls)) + b"\n")

    def counted(self, counts: Counts) -> None:
        """These are ours, those of the workers that have drained meanwhile included."""
        self.link.send(_encode(Counted(counts.totals, counts.restarts, counts.stalls)) + b"\n")

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        if self.process.returncode is None:
            os.kill(self.pid, signum)

    def gone(self, status: int) -> None:
        """It has been reaped. `Popen` must know, or it would wait for a pid that is somebody else's by now."""
        self.process.returncode = status
        self.link.close()

    def close(self) -> None:
        """Let go of the link: a successor that has not taken over leaves. The process outlives us."""
        self.link.close()
        self.process.returncode = self.process.returncode or 0


class Predecessor:
    """The old supervisor, as the new one sees it."""

    def __init__(self, sock: socket.socket, offer: Offer) -> None:
        self._sock = sock
        self._link: Link | None = None
        self.offer = offer
        listeners = [listener.restore(each) for each in offer.listeners]
        queue = socket.socket(fileno=offer.give), socket.socket(fileno=offer.take)
        for end in queue:
            os.set_inheritable(end.fileno(), False)
            end.setblocking(False)
        self.holdings = Holdings(listeners, queue, app_metrics=offer.app_metrics, owned=False)

    @classmethod
    def maybe_take(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """The one that has started this process to be its successor; None where this is an ordinary start.

        Raises `StartupError` where it is gone already.
        """
        fd = environ.pop(VARIABLE, "")
        if not fd.isdigit():
            return None
        sock = socket.socket(fileno=int(fd))
        sock.set_inheritable(False)
        sock.settimeout(OFFER_WAIT_S)
        lines = Lines()
        whole: list[bytes] = []
        try:
            while not whole:
                data = sock.recv(65536)
                if not data:
                    break
                whole = lines.feed(data)
            offer = _decode_order.decode(whole[0]) if whole else None
        except (OSError, msgspec.DecodeError) as error:
            raise StartupError(f"The server that is to be upgraded cannot be understood: {error}.") from error
        if not isinstance(offer, Offer):
            raise StartupError("The server that was to be upgraded is gone.")
        return cls(sock, offer)

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_take_over: Callable[[], object],
        on_counts: Callable[[Counts], object],
        on_end: Callable[[], object],
    ) -> None:
        """From now on hear what it says. `on_counts` gets all that it has counted, each time that it tells."""

        def on_line(line: bytes) -> None:
            try:
                order = _decode_order.decode(line)
            except msgspec.DecodeError as error:  # of a later version, to which we go back
                log.debug("the server that is to be upgraded is not understood (%s): %r", error, line[:200])
                return
            if not isinstance(order, Offer):
                on_counts(order)
            if isinstance(order, TakeOver):
                on_take_over()

        self._link = Link(loop, self._sock.dup(), on_line, on_end)

    def detach(self) -> None:
        """Hear no more. The loop is about to be closed."""
        if self._link is not None:
            self._link.close()

    def ready(self) -> None:
        """Every worker is ready."""
        self._say(Ready())

    def failed(self, cause: str, fix: str, trace: str) -> None:
        """This server does not come up. Only the first reason is heard."""
        self._say(Failed(cause, fix, trace))

    def close(self) -> None:
        self._sock.close()

    def _say(self, report: Ready | Failed) -> None:
        try:
            self._sock.sendall(_encode(report) + b"\n")
        except OSError:
            log.debug("the server that is to be upgraded does not listen")


def tell_predecessor(environ: MutableMapping[str, str], cause: str, fix: str = "", trace: str = "") -> None:
    """This process ends before it has so much as looked at whose successor it was to be, if anybody's: say why."""
    fd = environ.pop(VARIABLE, "")
    if not fd.isdigit():
        return
    try:
        with socket.socket(fileno=int(fd)) as sock:
            sock.sendall(_encode(Failed(cause, fix, trace)) + b"\n")
    except OSError:
        log.debug("the server that was to be upgraded does not listen")


def start_directory(environ: Mapping[str, str]) -> str:
    """Where a successor is to be started: the directory we were started in, by the name that was used. Where that leads through a symbolic
    link, as releases are often switched, it is the new release by then."""
    here = Path.cwd()
    named = environ.get("PWD", "")
    try:
        return named if named and os.path.samefile(named, here) else str(here)
    except OSError:
        return str(here)
