"""What the supervisor does: every command that `policy.step` gives and `loop.py` executes."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from cavalcade.worker import channel


class Level(enum.IntEnum):
    """How important a line is: `logging`'s numbers."""

    DEBUG = logging.DEBUG
    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR


EVENTS = ("start", "reload", "upgrade", "death", "degraded", "stall", "threads", "scale", "recycle", "rotation", "certificate", "stop")


@dataclass(frozen=True)
class StartNursery:
    """Start a fresh interpreter for a generation of the code."""

    generation: int


@dataclass(frozen=True)
class StopNursery:
    """Let a nursery go. It leaves when its last worker has left; with `force` it is killed, which no worker notices."""

    generation: int
    force: bool = False


@dataclass(frozen=True)
class Fork:
    """Have the generation's nursery fork a worker onto a free slot of the board."""

    worker_id: int
    slot: int
    generation: int


@dataclass(frozen=True)
class Order:
    """Tell a worker something. One that is gone does not hear it."""

    worker_id: int
    order: channel.Order


@dataclass(frozen=True)
class Kill:
    """End a worker's process by SIGKILL; where its pid is not known yet, as soon as it is. With `abort` by SIGABRT, which leaves its
    last stack behind."""

    worker_id: int
    abort: bool = False


@dataclass(frozen=True)
class Forget:
    """A worker is gone: close its channel and keep its totals; its slot is free."""

    worker_id: int
    slot: int


@dataclass(frozen=True)
class Log:
    """One line. `event` says what kind of thing it tells of, for who follows such: `EVENTS`; "" for none."""

    level: Level
    text: str
    event: str = ""


@dataclass(frozen=True)
class ReopenLogs:
    """Log files may have been moved away: open them anew, here and in the nurseries."""


@dataclass(frozen=True)
class Explain:
    """An error for a person: cause, fix, and the app's own frames."""

    cause: str
    fix: str = ""
    trace: str = ""
    event: str = ""  # as of `Log`


@dataclass(frozen=True)
class Serving:
    """Every worker is ready, for the first time: the place to tell whoever started us."""

    workers: int
    seconds: float


@dataclass(frozen=True)
class StartUpgrade:
    """Start a new supervisor, which is to take over."""


@dataclass(frozen=True)
class HandOver:
    """The new supervisor is the server from here on: sockets, pid file and whatever else outlives us are its own."""


@dataclass(frozen=True)
class StopUpgrade:
    """Have the new supervisor leave; with `together`, because we leave too; with `force`, at once."""

    together: bool = False
    force: bool = False


class Verdict(enum.Enum):
    """How a wish ended."""

    DONE = "done"
    REJECTED = "rejected"  # it could not be begun, and nothing has changed
    FAILED = "failed"  # it was tried and taken back: the server goes on as it was
    STOPPING = "stopping"  # the server stops


@dataclass(frozen=True)
class Answer:
    """What has become of a wish, for whoever waits for it. Each wish is answered once.

    `text` is what happened, or the cause where it is not DONE; `fix` and `trace` belong to the cause.
    """

    request: int
    verdict: Verdict
    text: str
    generation: int
    workers: int
    seconds: float
    fix: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Exit:
    """All processes are gone. The last command."""

    code: int


Command = (
    StartNursery
    | StopNursery
    | Fork
    | Order
    | Kill
    | Forget
    | Log
    | ReopenLogs
    | Explain
    | Serving
    | StartUpgrade
    | HandOver
    | StopUpgrade
    | Answer
    | Exit
)
