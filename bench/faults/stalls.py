"""The drills in which a loop is blocked, by each thing that blocks one, and the boots that are slow or never end. The log has one line
that says so, or none where nobody is to blame, and no request fails: those on the blocked worker wait.
"""

from __future__ import annotations

import functools
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from drill import RELOAD_S, Drill
from subjects import Running

from cavalcade.testing.traffic import deploy

MISDEEDS = Path(__file__).with_name("misdeeds.py")
STALL_S = 10.0  # any of them is over by then
STOPPED_S = 1.0
IMPORT_S = 20.0  # of the boot that holds the GIL
IMPORTED_S = 60.0
WAITED = r"\d+ requests? waited"


def release(folder: Path, version: str = "v1", boot: str = "") -> None:
    """Put the app with the misdeeds there, on top of a version of the traffic's. `boot` is "", "import" or "lifespan"."""
    deploy(folder, version, name="traffic")
    source = MISDEEDS.read_text("utf-8").replace('BOOT = ""', f'BOOT = "{boot}"', 1)
    (folder / ".main.new").write_text(source, "utf-8")
    (folder / ".main.new").replace(folder / "main.py")


def place(text: str, name: str) -> str:
    """A pattern for the place of this text in that function. "main.py:81 spinning()"."""
    (line,) = (number for number, line in enumerate(MISDEEDS.read_text("utf-8").splitlines(), 1) if text in line)
    return rf"main\.py:{line} {name}\(\)"


def blocked(drill: Drill, name: str, text: str, by: str = "") -> None:
    """The app blocks one worker's loop. `text` is the line that does it, `by` what else is to blame."""
    with drill.server(release=release) as server:
        with drill.traffic(server):
            time.sleep(drill.options.seconds / 10)
            pid = int(server.get(f"/do/{name}", STALL_S))
            settle(drill, server, pid)
        where = place(text, name)
        drill.require_lines(
            server.said_of(pid), rf"worker \d+ \(pid {pid}\) was blocked for \d+ ms{by} in {where}, GET /do/{name}; {WAITED}"
        )
        others(drill, server, pid)


def stopped(drill: Drill) -> None:
    """SIGSTOP, and SIGCONT a second later."""
    with drill.server(release=release) as server:
        pid = server.worker_pids[0]
        with drill.traffic(server):
            time.sleep(drill.options.seconds / 10)
            server.signal(signal.SIGSTOP, pid)
            time.sleep(STOPPED_S)
            server.signal(signal.SIGCONT, pid)
            settle(drill, server, pid)
        drill.require_lines(server.said_of(pid), rf"worker \d+ \(pid {pid}\) was stopped \(SIGSTOP\) for \d+ ms; {WAITED}")
        others(drill, server, pid)


def settle(drill: Drill, server: Running, pid: int) -> None:
    """The line comes, and there is time for another to follow."""
    server.wait_line(rf"\(pid {pid}\) was .*waited", STALL_S)
    time.sleep(drill.options.seconds / 10)


def others(drill: Drill, server: Running, pid: int) -> None:
    """Nobody else is blamed."""
    blamed = [line for line in server.lines if re.search("blocked|stopped \\(", line) and f"(pid {pid})" not in line]
    drill.require(not blamed, f"others were blamed: {blamed}")


# == boots ===============================================================================================================


def boot_import(drill: Drill) -> None:
    """A release whose import holds the GIL for 20 s: no line, no kill, however short stall_kill is."""
    with drill.server("--stall-kill", "1", workers=1, release=release) as server:
        with drill.traffic(server):
            time.sleep(drill.options.seconds / 10)
            release(server.folder, "v2", "import")
            server.signal(signal.SIGHUP)
            ready = server.wait_line(r"worker 2 \(pid (\d+)\) ready after .* \(import ([\d.]+) s, ", IMPORT_S + IMPORTED_S)
            server.wait_line("reloaded in", RELOAD_S)
            drill.require(float(ready[2]) >= IMPORT_S, f"the import took only {ready[2]} s")
            drill.require(server.wait_version("v2", 2.0), "the new release is not served")
        drill.require_lines(server.said_of(int(ready[1])))
        others(drill, server, 0)
        drill.outcome.facts.append(f"import {ready[2]} s, no line")


def boot_lifespan(drill: Drill) -> None:
    """A release whose lifespan never returns: refused at boot_timeout, with the line that it waits at."""
    with drill.server("--boot-timeout", "5", release=release) as server:
        with drill.traffic(server):
            time.sleep(drill.options.seconds / 10)
            release(server.folder, "v2", "lifespan")
            server.signal(signal.SIGHUP)
            pid = int(server.wait_line(r"Reload refused: worker \d+ \(pid (\d+)\)", RELOAD_S)[1])
            server.wait_line(r'  File ".*main\.py", line \d+ in startup', RELOAD_S)
            drill.require(server.wait_version("v1", 2.0), "the old release does not serve any more")
        where = place("await asyncio.Event().wait()", "startup")
        refused = rf"Reload refused: worker \d+ \(pid {pid}\) was not ready within 5 s \(boot_timeout\): it is in {where}\."
        drill.require_lines(server.said_of(pid), refused)


COLLECTED = r" by garbage collection \(\d+ ms, generation 2, \d+ objects freed\)"

DRILLS: dict[str, Callable[[Drill], None]] = {
    "stall-sleep": functools.partial(blocked, name="sleeping", text="time.sleep(BLOCKED_S)"),
    "stall-cpu": functools.partial(blocked, name="spinning", text="while time.thread_time() < end:"),
    "stall-regex": functools.partial(blocked, name="matching", text='re.match("(a+)+$"'),
    "stall-read": functools.partial(blocked, name="reading", text="here.recv(1)"),
    "stall-gc": functools.partial(blocked, name="collecting", text="gc.collect()  # all of it", by=COLLECTED),
    "stall-stop": stopped,
    "boot-import": boot_import,
    "boot-lifespan": boot_lifespan,
}
