"""The server that is examined: `python -m cavalcade.doctor.child`, its settings as one line of JSON on stdin. It stops when stdin ends, so
that it never outlives who examines it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import msgspec

from cavalcade.config.options import Settings
from cavalcade.errors import CavalcadeError
from cavalcade.observe import logs
from cavalcade.supervisor import start as supervisor

log = logging.getLogger("cavalcade")


def main() -> int:
    """Serve until stdin ends."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        return supervisor.run(settings)
    except CavalcadeError as error:
        logs.configure(settings)
        log.error("%s", error.cause, extra={"fix": error.fix, "trace": error.trace})
        return error.exit_code


def _follow() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
