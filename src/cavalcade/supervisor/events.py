"""What the supervisor learns: every event that `policy.step` takes. What workers say is in `worker/channel.py`."""

from __future__ import annotations

from dataclasses import dataclass
from signal import Signals

from cavalcade.observe.deaths import Facts
from cavalcade.worker import channel

NO_FACTS = Facts()


@dataclass(frozen=True)
class Start:
    """The sockets are bound; the server is to come up. The first event, once."""


@dataclass(frozen=True)
class Tick:
    """Time has passed: a deadline that `policy.next_wake` named may be due."""


@dataclass(frozen=True)
class Signalled:
    """A signal came to the supervisor."""

    signum: Signals


@dataclass(frozen=True)
class Reload:
    """Somebody wishes for a reload. The `Answer` to `request` comes when every worker is of the new code, or when it is refused."""

    request: int


@dataclass(frozen=True)
class Scale:
    """Somebody wishes for so many workers, or with `relative` for so many more or fewer. Answered when all of them serve."""

    request: int
    workers: int
    relative: bool = False


@dataclass(frozen=True)
class Recycle:
    """Somebody wishes for a worker to be replaced, or all of them. Answered when the successors serve."""

    request: int
    worker_id: int | None = None


@dataclass(frozen=True)
class Drain:
    """Somebody wishes for the server to be out of rotation, or with `off` back in it."""

    request: int
    off: bool = False


@dataclass(frozen=True)
class Stop:
    """Somebody wishes for the end, as by SIGTERM; but asked for again it is the same wish, not an order to hurry."""


@dataclass(frozen=True)
class UpgradeReady:
    """The new supervisor has all its workers ready."""

    pid: int


@dataclass(frozen=True)
class UpgradeFailed:
    """The new supervisor says why it does not come up."""

    cause: str
    fix: str = ""
    trace: str = ""


@dataclass(frozen=True)
class UpgradeExited:
    """The new supervisor's process is gone. `status` as in `NurseryExited`."""

    status: int | None


@dataclass(frozen=True)
class TakeOver:
    """This is the new supervisor: from now on it is the server."""

    old_pid: int


@dataclass(frozen=True)
class CalledOff:
    """This is the new supervisor: the old one stops, or is dead, and nothing comes of the upgrade."""

    old_pid: int


@dataclass(frozen=True)
class NurseryReady:
    """The nursery of a generation can fork; with `preload` it has imported the app in `import_s` seconds."""

    generation: int
    pid: int
    import_s: float = 0.0


@dataclass(frozen=True)
class NurseryFailed:
    """The nursery could not import the app. It exits after this."""

    generation: int
    cause: str
    fix: str = ""
    trace: str = ""


@dataclass(frozen=True)
class NurseryExited:
    """The nursery's process is gone. `status` is its exit code, or minus the signal that killed it; None where nobody knows.

    `trace` holds the innermost frames of a crash in C code.
    """

    generation: int
    status: int | None
    trace: str = ""


@dataclass(frozen=True)
class WorkerForked:
    worker_id: int
    pid: int


@dataclass(frozen=True)
class ForkFailed:
    """The kernel refused to fork; there is no such worker."""

    worker_id: int
    reason: str


@dataclass(frozen=True)
class WorkerReported:
    worker_id: int
    report: channel.Report


@dataclass(frozen=True)
class LoopBlocked:
    """A worker's loop has not turned for `stall_kill`. `text` says where, `trace` is its stack."""

    worker_id: int
    seconds: float
    text: str
    trace: str = ""


@dataclass(frozen=True)
class BootStack:
    """A worker whose time to boot is nearly over has said where it is: `where` in a few words, `trace` its stack."""

    worker_id: int
    where: str
    trace: str


@dataclass(frozen=True)
class ChannelClosed:
    """A worker's end of its channel is closed. Its process is gone or will be told so at any moment, unless it is ill."""

    worker_id: int


@dataclass(frozen=True)
class WorkerExited:
    """A worker's process is gone. `status` as in `NurseryExited`."""

    worker_id: int
    status: int | None
    facts: Facts = NO_FACTS


Event = (
    Start
    | Tick
    | Signalled
    | Reload
    | Scale
    | Recycle
    | Drain
    | Stop
    | UpgradeReady
    | UpgradeFailed
    | UpgradeExited
    | TakeOver
    | CalledOff
    | NurseryReady
    | NurseryFailed
    | NurseryExited
    | WorkerForked
    | ForkFailed
    | WorkerReported
    | LoopBlocked
    | BootStack
    | ChannelClosed
    | WorkerExited
)
