"""What a worker and the supervisor say to each other: one JSON object a line over a socketpair of their own.

The worker reports, the supervisor orders. When the channel closes under a worker, the supervisor is gone: it drains and
exits, so there are never orphans. When it closes under the supervisor, the worker is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cavalcade import limits
from cavalcade.observe.blackbox import Frame

# -- the worker reports ------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, tag="ready"):
    """Import and lifespan startup are done; the worker accepts connections."""

    import_s: float = 0.0
    startup_s: float = 0.0


class BootFailed(msgspec.Struct, tag="boot_failed"):
    """The app could not be loaded or started; the worker exits with 3 after this.

    `cause`, `fix` and `trace` are those of the `StartupError`, `kind` its class name.
    """

    kind: str
    cause: str
    fix: str = ""
    trace: str = ""


class Retire(msgspec.Struct, tag="retire"):
    """The worker asks to be replaced: its successor first, then an order to drain."""

    reason: str


class Draining(msgspec.Struct, tag="draining"):
    """The worker accepts nothing more: whoever connects after this is somebody else's client."""


class Drained(msgspec.Struct, tag="drained"):
    """The worker's last words. `left` names the requests that were still open at the deadline and were cancelled."""

    left: list[str] = []


class Stalled(msgspec.Struct, tag="stalled"):
    """The loop was blocked for `ms` and turns again since `ended` (of the monotonic clock, in seconds). Told one beat later, when those
    who `waited` have been read; by then it may be blocked by something else. `delay_ms` is for how long they waited, all of them together:
    those that ran already for all of it, those that came meanwhile for half of it, as if they had come evenly.

    `request` is the one that was caught in the act, "" where it was none. `gc_ms` of the time went to the garbage collector (its longest
    run: `gc_generation`, `gc_freed` objects); for `starved_ms` the worker was ready to run and had no CPU; `continued` says that it was
    stopped in that time, too shortly perhaps for anybody to see it, because it has got a SIGCONT.
    """

    ms: int
    ended: float = 0.0
    request: str = ""
    waited: int = 0
    gc_ms: int = 0
    gc_generation: int = 0
    gc_freed: int = 0
    starved_ms: int = 0
    delay_ms: int = 0
    continued: bool = False


class Advice(msgspec.Struct, tag="advice"):
    """The operator ought to hear this, once, however many workers find it out: those with the same `key` are the same."""

    key: str
    text: str


class Logged(msgspec.Struct, tag="logged", omit_defaults=True):
    """A line of this worker's log, as it has been written. Not every line comes: what cannot be said at once, or comes in a flood, does
    not."""

    time: float
    level: str
    text: str
    event: str = ""
    fix: str = ""
    trace: str = ""


class StackFrame(msgspec.Struct, omit_defaults=True):
    """One frame, "main.py:40 slow()"; `own` says that it is the app's own code, and of no library."""

    at: str
    own: bool = False


def show(stack: Iterable[Frame], packages: frozenset[str]) -> list[StackFrame]:
    """The frames that are not our own, the last of them where there are very many."""
    shown = [StackFrame(frame.short(), not frame.library(packages)) for frame in stack if not frame.ours]
    return shown[-limits.INSPECT_FRAMES :]


class LiveRequest(msgspec.Struct, omit_defaults=True):
    """A request that is being answered. `stack` is where its app stands, the outermost frame first; `where` the frame among them that is
    most likely of interest. `age_s` is None where nobody has looked at the clock for it; `state` says how far its response is."""

    method: str
    target: str
    client: str
    kind: str
    state: str
    age_s: float | None = None
    route: str = ""
    request_id: str = ""
    where: str = ""
    stack: list[StackFrame] = []


class ThreadStack(msgspec.Struct):
    """A thread that runs code of the app's for no request that is known."""

    name: str
    stack: list[StackFrame]


class Inspected(msgspec.Struct, tag="inspected"):
    """The answer to `Inspect`: the oldest of the `total` requests that are being answered."""

    request: int
    total: int
    requests: list[LiveRequest] = []
    threads: list[ThreadStack] = []


# -- the supervisor orders ---------------------------------------------------------------------------------------------


class Drain(msgspec.Struct, tag="drain"):
    """Accept nothing more, finish what is in flight within `grace_s` (lifespan shutdown included), exit 0.

    `last` says that the whole server stops, so that connections cannot go to a sibling and nobody looks at the backlog any more.
    `heirs` says that another server takes connections from the queue, whatever the board says of siblings.
    """

    grace_s: float
    reason: str = ""
    last: bool = False
    heirs: bool = False


class Sole(msgspec.Struct, tag="sole"):
    """The listening sockets are this server's alone from now on: the other one, which shared them in an upgrade, leaves."""


class AnnounceStop(msgspec.Struct, tag="announce_stop"):
    """The server will stop soon (`drain_delay`), or is out of rotation: serve on, but let every response say `Connection: close`, so that
    clients move on before they have to. `off` takes it back."""

    off: bool = False


class ReopenLogs(msgspec.Struct, tag="reopen_logs"):
    """Log files may have been moved away: open those that have anew."""


class RenewCertificates(msgspec.Struct, tag="renew_certificates"):
    """The files of certificates and keys have changed, and are good: read them anew."""


class SetLogLevel(msgspec.Struct, tag="set_log_level"):
    """Log what is at least so important from now on."""

    level: str


class Inspect(msgspec.Struct, tag="inspect"):
    """Say what is being answered, and where each app stands: `limit` requests at most."""

    request: int
    limit: int


class Stop(msgspec.Struct, tag="stop"):
    """Leave at once: cancel what is in flight, run lifespan shutdown in its reserved slice, exit."""


Report = Ready | BootFailed | Retire | Draining | Drained | Stalled | Advice | Logged | Inspected
Order = Drain | Sole | AnnounceStop | ReopenLogs | RenewCertificates | SetLogLevel | Inspect | Stop

_encode = msgspec.json.Encoder().encode
_report_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
_order_decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


def encode(message: Report | Order) -> bytes:
    """One line of the channel."""
    return _encode(message) + b"\n"


def decode_report(line: bytes) -> Report:
    """What a worker said. Raises `msgspec.DecodeError` on anything else."""
    return _report_decoder.decode(line)


def decode_order(line: bytes) -> Order:
    """What the supervisor said. Raises `msgspec.DecodeError` on anything else."""
    return _order_decoder.decode(line)


class Lines:
    """Cuts a byte stream into lines: `feed` returns those that are whole, without their ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole
