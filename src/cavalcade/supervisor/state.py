"""What the supervisor's policy remembers. Plain data: only `policy.step` changes it, and nothing in it is a process or a socket."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from cavalcade import limits


class Stage(enum.Enum):
    """Where the whole server stands. It only ever moves down this list."""

    NEW = "new"
    STARTING = "starting"  # until every worker has been ready once: a failure in it is fatal
    SERVING = "serving"
    DRAIN_DELAY = "draining"  # told to stop: not ready any more for whoever asks, serving as before until `State.stop_at`
    STOPPING = "stopping"
    GONE = "gone"


class Life(enum.Enum):
    """Where a worker stands, as its supervisor sees it."""

    BOOTING = "booting"
    READY = "ready"
    LEAVING = "leaving"  # told to go, or on its way out; `deadline` is when it is killed


class NurseryLife(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"  # it is of no use and on its way out; `deadline` is when it is killed
    DOWN = "down"  # its process is gone; another is started at `not_before`
    LEAVING = "leaving"


@dataclass(frozen=True)
class Rules:
    """What the policy must know of the settings. `app` is for the lines it writes."""

    workers: int
    app: str = "app"
    preload: bool = False
    boot_timeout_s: float = limits.BOOT_TIMEOUT_S
    graceful_timeout_s: float = limits.GRACEFUL_TIMEOUT_S
    drain_delay_s: float = 0.0
    max_surge: int = 1  # how many may be replaced at a time
    is_init: bool = False  # it is pid 1: when it ends, the container does
    slots: int = limits.BOARD_ROWS
    workers_max: int = limits.WORKERS_MAX


@dataclass
class Seat:
    """A place for one serving worker; there are as many as workers are wanted. In a replacement two workers share it."""

    number: int
    deaths: int = 0  # in a row, each within HEALTHY_AFTER_S of its fork
    not_before: float = -math.inf  # the back-off: no fork for this seat earlier
    restarts: int = 0  # how often a worker of it was replaced ...
    last_restart: str = ""  # ... and why the last time: a key of `State.restarts`
    last_cause: str = ""  # of the last failed boot, so that the same traceback is not shown again and again

    @property
    def backoff_s(self) -> float:
        """0 after the first death: it is replaced at once."""
        return backoff_s(self.deaths)


@dataclass
class Worker:
    """One process, from the order to fork it until it is reaped. Its number is never used again."""

    id: int
    seat: Seat
    slot: int
    generation: int
    forked_at: float
    deadline: float  # BOOTING: ready by then; LEAVING: gone by then; READY: none, unless its channel broke
    life: Life = Life.BOOTING
    pid: int = 0
    retiring: str = ""  # it asked to be replaced, and why
    mute: bool = False  # its channel is closed
    served: bool = False  # it has been READY
    accepts: bool = False  # it may accept connections
    killed: bool = False  # by us
    boot_stack: tuple[str, str] = ("", "")  # where it was shortly before its time to boot was over, and the stack
    blocked_s: float = 0.0  # its loop was blocked for so long that it had to go (stall_kill)
    left_at: float = 0.0  # since when it is LEAVING

    @property
    def name(self) -> str:
        return f"worker {self.id} (pid {self.pid})" if self.pid else f"worker {self.id}"


@dataclass
class Nursery:
    generation: int
    deadline: float
    life: NurseryLife = NurseryLife.STARTING
    pid: int = 0
    ready_at: float = math.inf
    deaths: int = 0  # in a row, each within HEALTHY_AFTER_S of being ready
    not_before: float = -math.inf


@dataclass
class Roll:
    """A reload on its way: worker by worker to a new generation, all or nothing."""

    generation: int
    began_at: float
    proven: bool = False  # a worker of it has been ready


@dataclass(frozen=True)
class Reloaded:
    """How the last reload ended. `text` is the line about it, or the cause where it was refused."""

    ok: bool
    generation: int
    text: str
    at: float


@dataclass
class ReloadWish:
    """Somebody waits for a reload. `generation` is 0 while it has not begun."""

    request: int
    began_at: float
    generation: int = 0


@dataclass
class ScaleWish:
    """Somebody waits until so many workers serve. `added` is how many seats were added for it."""

    request: int
    began_at: float
    workers: int
    added: int = 0


@dataclass
class RecycleWish:
    """Somebody waits for the successors of these workers."""

    request: int
    began_at: float
    worker_ids: frozenset[int]


@dataclass
class DrainWish:
    """Somebody has the server leave or come back. Answered at once."""

    request: int
    began_at: float


Wish = ReloadWish | ScaleWish | RecycleWish | DrainWish


@dataclass
class Upgrade:
    """A new supervisor that is to take over from this one."""

    deadline: float  # ready by then; when it has `failed`, gone by then
    failed: bool = False


@dataclass
class State:
    rules: Rules
    stage: Stage = Stage.NEW
    began_at: float = 0.0
    generation: int = 1  # the one that serves; while a reload runs, the one it comes from
    last_generation: int = 1
    last_worker: int = 0
    last_seat: int = 0
    seats: list[Seat] = field(default_factory=list)
    workers: dict[int, Worker] = field(default_factory=dict)
    nurseries: dict[int, Nursery] = field(default_factory=dict)
    free_slots: set[int] = field(default_factory=set)
    roll: Roll | None = None
    reload_again: bool = False  # another HUP came while it could not be followed
    wishes: list[Wish] = field(default_factory=list)  # not answered yet
    last_reload: Reloaded | None = None
    degraded: bool = False
    withdrawn: bool = False  # out of rotation: not ready for whoever asks, serving as before
    restarts: dict[str, int] = field(default_factory=dict)  # workers replaced, by reason: a fixed few (`Moves.count_restart`)
    upgrade: Upgrade | None = None
    heir_pid: int = 0  # the new server, while it is not yet the only one that accepts
    shared: bool = False  # the sockets are another server's too, which goes on when this one ends
    stop_at: float = math.inf  # DRAIN_DELAY: when it ends
    exit_code: int = 0
    stop_signals: int = 0
    last_stop: tuple[int, float] = (0, -math.inf)  # the last signal to stop, and when

    def __post_init__(self) -> None:
        self.free_slots = set(range(self.rules.slots))

    # -- questions -------------------------------------------------------------------------------------------------------

    @property
    def target(self) -> int:
        return len(self.seats)

    @property
    def wanted_generation(self) -> int:
        """What every worker is to be of, in the end."""
        return self.roll.generation if self.roll else self.generation

    def in_life(self, life: Life) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.life is life]

    def holder(self, seat: Seat, life: Life) -> Worker | None:
        """The worker of a seat that is READY, or BOOTING: there is at most one of each."""
        for worker in self.workers.values():
            if worker.seat is seat and worker.life is life:
                return worker
        return None

    def all_serve(self) -> bool:
        """Whether every seat has a serving worker."""
        return all(self.holder(seat, Life.READY) for seat in self.seats)

    def replacing(self) -> int:
        """How many workers boot to take over from others that still serve."""
        return sum(self.holder(worker.seat, Life.READY) is not None for worker in self.in_life(Life.BOOTING))


def backoff_s(deaths: int) -> float:
    """How long to wait after so many deaths in a row: 0, then 1, 2, 4 ... up to BACKOFF_MAX_S."""
    if deaths <= 1:
        return 0.0
    return float(min(limits.BACKOFF_MAX_S, limits.BACKOFF_FIRST_S * 2 ** min(deaths - 2, 16)))
