"""What the supervisor and a nursery say to each other: one JSON object a line over a stream socketpair.

A `ForkWorker` travels with descriptors (SCM_RIGHTS): the worker's end of its channel, and its black box if it has one. Descriptors
arrive in the order of the lines they came with. When the socket closes under the nursery, the supervisor is gone or wants it gone.
"""

from __future__ import annotations

import msgspec

from cavalcade.config.options import Settings
from cavalcade.net.listener import Inherited

# -- the supervisor orders -----------------------------------------------------------------------------------------------


class Setup(msgspec.Struct, tag="setup"):
    """The first line. The numbers are descriptors that the nursery has inherited, as are those of the listeners."""

    generation: int
    supervisor_pid: int
    settings: Settings
    listeners: list[Inherited]
    board: int
    slots: int
    give: int  # the two ends of the queue through which workers hand connections over
    take: int
    crash: int = -1  # where faulthandler writes if the nursery itself crashes


class ForkWorker(msgspec.Struct, tag="fork"):
    worker_id: int
    slot: int
    boxed: bool  # a second descriptor comes along: the black box
    shared: bool = False  # the listening sockets are another server's too: an upgrade is on its way


class Quit(msgspec.Struct, tag="quit"):
    """Exit when the last worker has exited; nothing more is to be forked."""


class ReopenLogs(msgspec.Struct, tag="reopen_logs"):
    """As for a worker."""


class SetLogLevel(msgspec.Struct, tag="set_log_level"):
    """As for a worker, and for those that are forked later."""

    level: str


class RenewCertificates(msgspec.Struct, tag="renew_certificates"):
    """As for a worker: workers that are forked later begin with what is in use."""


# -- the nursery reports -------------------------------------------------------------------------------------------------


class CanFork(msgspec.Struct, tag="can_fork"):
    import_s: float = 0.0


class CannotImport(msgspec.Struct, tag="cannot_import"):
    """The certificates, or with `preload` the app, could not be loaded. The nursery exits after this."""

    cause: str
    fix: str = ""
    trace: str = ""


class Forked(msgspec.Struct, tag="forked"):
    worker_id: int
    pid: int


class ForkRefused(msgspec.Struct, tag="fork_refused"):
    worker_id: int
    reason: str


class Exited(msgspec.Struct, tag="exited"):
    """`status` is the exit code, or minus the signal."""

    worker_id: int
    status: int


Order = Setup | ForkWorker | Quit | ReopenLogs | SetLogLevel | RenewCertificates
Report = CanFork | CannotImport | Forked | ForkRefused | Exited

_encode = msgspec.json.Encoder().encode
_decode_report = msgspec.json.Decoder(Report).decode
_decode_order = msgspec.json.Decoder(Order).decode


def encode(message: Report | Order) -> bytes:
    """One line."""
    return _encode(message) + b"\n"


def decode_report(line: bytes) -> Report:
    """What a nursery said. Raises `msgspec.DecodeError` on anything else."""
    report: Report = _decode_report(line)
    return report


def decode_order(line: bytes) -> Order:
    """What the supervisor said. Raises `msgspec.DecodeError` on anything else."""
    order: Order = _decode_order(line)
    return order
