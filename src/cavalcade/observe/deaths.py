"""How a process ended, in words: by what, by whom, and what it had and took along.

A crash in C code leaves its stack to `faulthandler`, which writes it from inside the dying process into a file that the supervisor
holds too (`observe/blackbox.py`), not to the terminal: so a crash that four workers share is told once, in the words of the log, with the
app's own frames.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from cavalcade.limits import MIB
from cavalcade.observe import blackbox

CRASH_BYTES = 65536  # of what faulthandler has written are read; it stops at 100 frames for each thread
FRAMES = 12  # innermost frames of a crash that are shown
CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP")
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
_PF_EXITING = 0x4  # linux/sched.h


@dataclass(frozen=True)
class Facts:
    """What is known of a worker at its death. `oom` is whether the kernel has counted a kill for memory; None where it does not say."""

    rss: int = 0  # bytes, sampled about once a second; 0 where it was never sampled
    requests: int = 0
    in_flight: int = 0  # when it last told; a request that ended it at once is not among them
    paths: tuple[str, ...] = ()  # of those in flight, some
    oom: bool | None = None
    trace: str = ""


def describe_exit(status: int | None) -> str:
    """ "was killed by SIGKILL", "exited with status 1"; `status` as `os.waitstatus_to_exitcode` gives it, None for unknown."""
    if status is None:
        return "ended (its exit status is not known)"
    if status >= 0:
        return f"exited with status {status}"
    return f"was killed by {_signal_name(-status)}"


def describe_death(status: int | None, facts: Facts, *, killed: str = "") -> str:
    """As `describe_exit`, with who did it where that is known. `killed` says that it was us, and why."""
    if killed:
        return f"was killed by us: {killed}"
    if status is None:
        return describe_exit(status)
    if status >= 0:
        return f"exited with status {status} by itself: something in it called os._exit() or ended the process"
    name = _signal_name(-status)
    if name == "SIGKILL" and facts.oom:
        return "was killed by SIGKILL, by the kernel: out of memory"
    if name == "SIGKILL":
        memory = "" if facts.oom is None else ", and not by the kernel for memory"
        return f"was killed by SIGKILL, not by us{memory}: somebody has sent it"
    if name in CRASHES:
        return f"was killed by {name}: it crashed in C code"
    return f"was killed by {name}: somebody has sent it"


def describe_loss(facts: Facts) -> str:
    """ "84 MiB, 1234 requests served, 2 in flight lost (GET /a, GET /b)"."""
    parts = [f"{facts.rss / MIB:.0f} MiB"] if facts.rss else []
    parts.append("1 request served" if facts.requests == 1 else f"{facts.requests} requests served")
    if facts.in_flight:
        more = ", ..." if len(facts.paths) < facts.in_flight else ""
        named = f" ({', '.join(facts.paths[: facts.in_flight])}{more})" if facts.paths else ""
        parts.append(f"{facts.in_flight} in flight lost{named}")
    else:
        parts.append("none in flight at its last beat")
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        return f"signal {number}"


# -- crashes ---------------------------------------------------------------------------------------------------------------


def read_crash(fd: int) -> str:
    """As `crash_frames`, from the file that faulthandler has written to."""
    try:
        return crash_frames(os.pread(fd, CRASH_BYTES, 0).decode("utf-8", "replace"))
    except OSError:
        return ""


def crash_frames(text: str) -> str:
    """The innermost frames of a crash, the app's and those of the libraries it called; "" where there was none."""
    _, fatal, crash = text.partition("Fatal Python error")
    _, _, frames = crash.partition("(most recent call first):\n")
    return blackbox.show_stack(blackbox.frames("(most recent call first):\n" + frames.partition("\n\n")[0]), FRAMES) if fatal else ""


# -- memory ----------------------------------------------------------------------------------------------------------------


def rss_of(pid: int) -> int:
    """Resident memory in bytes; 0 where it cannot be told."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def pss_of(pid: int) -> int:
    """Resident memory in bytes, of which pages that others have too are counted in part; 0 where it cannot be told."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


@dataclass
class OomCounters:
    """How many processes the kernel has killed for memory, in the cgroups of the workers; version 1 and version 2.

    A counter is read while the workers live, so that one that has grown since tells of the one that has died. Each kill explains
    one death.
    """

    cgroups: Path = CGROUPS
    proc: Path = PROC
    _counted: dict[Path, int] = field(default_factory=dict)
    _of: dict[int, Path] = field(default_factory=dict)

    def watch(self, pid: int) -> None:
        """Remember where this process is counted, and how far that counter is before it dies."""
        found = self._find(pid)
        # In version 1 one that is dying is shown in the root, whatever has killed it; so this is asked after the other.
        if found is not None and not self._is_dying(pid):
            self._of[pid] = found
            if found not in self._counted:
                self._counted[found] = read_oom_kills(found) or 0

    def take(self, pid: int) -> bool | None:
        """Whether there is a kill that nobody's death has been explained by. None where nobody counts."""
        path = self._of.pop(pid, None)
        now = read_oom_kills(path) if path is not None else None
        if path is None or now is None:
            return None
        if now <= self._counted[path]:
            return False
        self._counted[path] += 1
        return True

    def _is_dying(self, pid: int) -> bool:
        try:
            flags = (self.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[6]
            return bool(int(flags) & _PF_EXITING)
        except (OSError, IndexError):  # dead and reaped
            return True

    def _find(self, pid: int) -> Path | None:
        """The file that counts for this process: of its cgroup where that is mounted here, else of the nearest above, else the
        machine's."""
        try:
            lines = (self.proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return self._of.get(pid)
        candidates: list[Path] = []
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            relative = path.lstrip("/")
            if "memory" in controllers.split(","):
                top = self.cgroups / "memory"
                candidates[:0] = [top / relative / "memory.oom_control", top / "memory.oom_control"]
            elif not controllers:
                candidates += [self.cgroups / relative / "memory.events", self.cgroups / "memory.events"]
        candidates.append(self.proc / "vmstat")
        return next((path for path in candidates if read_oom_kills(path) is not None), None)


def read_oom_kills(path: Path) -> int | None:
    """The line `oom_kill N` of memory.oom_control (version 1), memory.events (version 2) or vmstat; None where there is none."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
