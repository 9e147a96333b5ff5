"""What the board holds: the words of one row, declared here and nowhere else.

The board is one shared memory map with a row of 64-bit words for every worker slot. A row has a single writer, the worker
that owns the slot (the supervisor clears it between owners), so no word needs a lock: an aligned 64-bit store is whole or
not there at all. Everybody else only reads.
"""

from __future__ import annotations

import enum
from typing import Final

# -- what the worker is and how it does ----------------------------------------------------------------------------------
HEARTBEAT_NS: Final = 0  # time.monotonic_ns() when the worker's loop last turned; the clock is the machine's, the same for all
PHASE: Final = 1  # one of `Phase`
PID: Final = 2
WORKER_ID: Final = 3  # the number in "worker 3", so that a reader can tell a new owner of the slot from the old
GENERATION: Final = 4  # of the code
STARTED_NS: Final = 5  # time.monotonic_ns() when the process was forked
CONNECTIONS: Final = 6  # open now, idle ones included
IN_FLIGHT: Final = 7  # requests being answered now
# Threads that the app's sync code runs in, all pools together that the worker knows of (worker/threads.py)
THREADS_BUSY: Final = 16
THREADS_TOTAL: Final = 17
THREADS_WAITING: Final = 18  # calls that wait for a thread to become free

# -- what it has done: counters, which only grow and outlive the worker (`Board.fold`) -----------------------------------
REQUESTS: Final = 8
STATUS_1XX: Final = 9
STATUS_2XX: Final = 10
STATUS_3XX: Final = 11
STATUS_4XX: Final = 12
STATUS_5XX: Final = 13
BYTES_SENT: Final = 14
SHED: Final = 15  # requests answered 503 without the app, because too many were in flight

COUNTERS: Final[dict[str, int]] = {
    "requests": REQUESTS,
    "status_1xx": STATUS_1XX,
    "status_2xx": STATUS_2XX,
    "status_3xx": STATUS_3XX,
    "status_4xx": STATUS_4XX,
    "status_5xx": STATUS_5XX,
    "bytes_sent": BYTES_SENT,
    "shed": SHED,
}

WORD_BYTES: Final = 8
ROW_WORDS: Final = 24  # three cache lines of 64 bytes: no two workers ever write to the same line
ROW_BYTES: Final = ROW_WORDS * WORD_BYTES


class Phase(enum.IntEnum):
    """The life of a worker, as it stands in the word `PHASE`."""

    EMPTY = 0  # nobody owns the slot
    BOOTING = 1
    READY = 2
    DRAINING = 3
    STOPPED = 4
