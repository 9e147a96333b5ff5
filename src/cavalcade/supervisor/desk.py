"""Where the supervisor and whoever asks it meet: what can be asked of a running server, and what answers for it to the outside.

The supervisor knows nothing of HTTP. `cavalcade.admin` does, and is given to it as a `Front` when the server starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cavalcade.config.options import Settings
from cavalcade.supervisor import events as on
from cavalcade.supervisor.commands import Answer
from cavalcade.supervisor.inspector import Inspection
from cavalcade.supervisor.journal import Journal
from cavalcade.supervisor.status import Status


@dataclass(frozen=True)
class Desk:
    """What can be asked of a running server. All of it is quick, but for what says that it waits."""

    settings: Callable[[], Settings]  # as they are now: the log level can be changed
    origins: Mapping[str, str]  # where each of them came from
    environ: Mapping[str, str]
    journal: Journal
    post: Callable[[on.Event], object]  # hands an event to the policy, and has had it handled when it returns
    status: Callable[[], Status]
    metrics: Callable[[str], tuple[bytes, str]]  # in the format that this Accept header asks for, with its content type
    # waits; (worker, most requests to describe). None where there is no such worker
    inspect: Callable[[int, int], Awaitable[Inspection | None]]
    set_log_level: Callable[[str], None]  # in every process, and those to come. Raises `ValueError`
    renew_certificates: Callable[[], bool] | None  # False where nothing was new. Raises `TlsError`. None without TLS


class Front(Protocol):
    """What answers for the server to whoever steers it and looks at it."""

    async def start(self, *, alone: bool) -> None:
        """Begin to answer. Unless this server is `alone` on its addresses, what only one can have is left out, until `take_over`. Raises
        `StartupError`."""

    async def hand_over(self) -> None:
        """Give up what only one server can have: another takes this one's place."""

    async def take_over(self) -> None:
        """The other server has given it up: take it. Raises `StartupError`."""

    def answer(self, answer: Answer) -> None:
        """What has become of a wish."""

    async def stop(self, code: int) -> None:
        """Every worker is gone, and `code` is how it ends: answer whoever still waits."""


NewFront = Callable[[Desk], Front]


@dataclass(frozen=True)
class Facing:
    """How a server is seen from outside. Without `new_front` nobody can ask it anything."""

    origins: Mapping[str, str] = field(default_factory=dict)
    new_front: NewFront | None = None
    journal: Journal = field(default_factory=Journal)
