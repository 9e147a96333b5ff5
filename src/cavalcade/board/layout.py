"""What the board holds of a worker's present: the words of one row, declared here and nowhere else. What a worker has counted is in its
ledger, `board/ledger_words.py`.

The board is one shared memory map with a row of 64-bit words, and a ledger of more of them, for every worker slot. Each has a single
writer, the worker that owns the slot (the supervisor clears them between owners), so no word needs a lock: an aligned 64-bit store is
whole or not there at all. Everybody else only reads.
"""

from __future__ import annotations

import enum
from typing import Final

HEARTBEAT_NS: Final = 0  # time.monotonic_ns() when the worker's loop last turned; the clock is the machine's, the same for all
PHASE: Final = 1  # one of `Phase`
PID: Final = 2
WORKER_ID: Final = 3  # the number in "worker 3", so that a reader can tell a new owner of the slot from the old
GENERATION: Final = 4  # of the code
STARTED_NS: Final = 5  # time.monotonic_ns() when the process was forked
CONNECTIONS: Final = 6  # open now, idle ones and those without a transport included
IN_FLIGHT: Final = 7  # requests being answered now
# Threads that the app's sync code runs in, all pools together that the worker knows of (worker/threads.py)
THREADS_BUSY: Final = 8
THREADS_TOTAL: Final = 9
THREADS_WAITING: Final = 10  # calls that wait for a thread to become free
# Open now by what is spoken; those over TLS are also in CONNECTIONS_TLS, where a handshake that is not over counts too
CONNECTIONS_HTTP1: Final = 11
CONNECTIONS_HTTP2: Final = 12
CONNECTIONS_WEBSOCKET: Final = 13
CONNECTIONS_TLS: Final = 14
LOOP_LAG_NS: Final = 15  # how late the loop was at worst, in the last whole second
BUSY_PPM: Final = 16  # how much of the last whole second it worked or was blocked, in millionths

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
