"""A worker's black box: a nameless file that the worker and the supervisor both hold, and that outlives the worker.

The front half is `faulthandler`'s, which writes stacks there from inside a signal handler: on request while the loop is blocked, even
by C code that holds the GIL, and in a crash. At a fixed offset behind it stand notes: what the worker was answering when it last
looked. Nothing is written for a request; a note is made a few times a second at most.
"""

from __future__ import annotations

import os
import re
import signal
import sysconfig
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cavalcade.board import memory

STACK_BYTES = 256 * 1024  # faulthandler stops at 100 frames for each thread
NOTE_BYTES = 16 * 1024
NOTED_REQUESTS = 8  # more than a line in the log can name

# Real-time signals, because apps have meanings of their own for USR1 and USR2. Where there are none the stack is not asked for.
_LAST = getattr(signal, "SIGRTMAX", None)
DUMP_SIGNAL: int | None = int(_LAST) - 3 if _LAST is not None else None  # answered in C, whatever the worker does
ASK_SIGNAL: int | None = int(_LAST) - 4 if _LAST is not None else None  # answered in Python, as soon as it can: which request is this?

_FRAME = re.compile(r'  File (?:"(?P<file>.*)"|\?\?\?), line (?P<line>\d+|\?\?\?) in (?P<name>.*)')
_OURS = str(Path(__file__).parent.parent) + os.sep
_STDLIB = tuple({str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib")})
_LIBRARY_DIRECTORIES = frozenset({"site-packages", "dist-packages"})
_LOOP_PARTS = ("/asyncio/", "/uvloop/", "/selectors.py", "/threading.py")
_DEBUGGERS = frozenset({"bdb.py", "pdb.py", "pydevd.py", "pydevd_frame.py", "_pydevd_bundle"})
_MACHINERY = ("<frozen importlib", "<frozen runpy")


class Notes(msgspec.Struct):
    """What the worker was at. `current` is the request whose code ran when it was asked, "" for none; `in_flight` is how many requests
    there were, `requests` names some of them; `at_ns` is when, on the machine's monotonic clock."""

    current: str = ""
    in_flight: int = 0
    requests: list[str] = []
    at_ns: int = 0
    clients: list[str] = []  # of those in `requests`, as is the next
    ages_s: list[float | None] = []  # then
    awaiting: str = ""  # a stack in faulthandler's form: what the lifespan awaits, while the worker boots


@dataclass(frozen=True)
class Frame:
    """One line of a stack that faulthandler wrote."""

    file: str
    line: str
    name: str

    @property
    def ours(self) -> bool:
        """Of Cavalcade, or of the import machinery."""
        return self.file.startswith((_OURS, *_MACHINERY))

    def library(self, packages: Set[str] = frozenset()) -> bool:
        """Of the standard library or an installed package; `packages`, the apps' own, are neither."""
        parts = Path(self.file).parts
        installed = [place for place, part in enumerate(parts) if part in _LIBRARY_DIRECTORIES]
        if installed:
            return parts[installed[-1] + 1].removesuffix(".py") not in packages
        return self.file.startswith((*_STDLIB, "<frozen "))

    def show(self) -> str:
        """ "app/views.py:88 resize()", the file as seen from the current directory."""
        here = os.getcwd() + os.sep
        return f"{self.file.removeprefix(here)}:{self.line} {self.name}()"

    def short(self) -> str:
        """The same, and files of libraries as they are imported: "starlette/routing.py:683 __call__()"."""
        parts = Path(self.file).parts
        installed = [place for place, part in enumerate(parts) if part in _LIBRARY_DIRECTORIES]
        if installed:
            return f"{os.sep.join(parts[installed[-1] + 1 :])}:{self.line} {self.name}()"
        home = next((home for home in _STDLIB if self.file.startswith(home)), "")
        return f"{self.file.removeprefix(home)}:{self.line} {self.name}()" if home else self.show()


class BlackBox:
    """The file. `fd` goes to the worker, which makes its own of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> BlackBox:
        """A new, empty one. Raises `OSError` where neither anonymous memory nor a temporary file can be had."""
        return cls(new_file())

    # -- the worker's side -----------------------------------------------------------------------------------------------

    def note(self, notes: Notes) -> None:
        """Leave a note in the place of the last one. A box that takes none is no reason to fail."""
        data = msgspec.json.encode(notes)
        if len(data) <= NOTE_BYTES:
            try:
                os.pwrite(self.fd, len(data).to_bytes(4, "little") + data, STACK_BYTES)
            except OSError:
                pass

    # -- the supervisor's side -------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Forget the stack, so that the next is the only one. The offset is shared with the worker."""
        try:
            used = os.lseek(self.fd, 0, os.SEEK_CUR)
            os.pwrite(self.fd, bytes(min(used, STACK_BYTES)), 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
        except OSError:
            pass

    def stack(self) -> list[Frame]:
        """The last stack that was written on request or in a crash, innermost frame first."""
        return frames(self.text())

    def text(self) -> str:
        """All that faulthandler has written since `rewind`."""
        try:
            return os.pread(self.fd, STACK_BYTES, 0).partition(b"\0")[0].decode("utf-8", "replace")
        except OSError:
            return ""

    def notes(self) -> Notes:
        """The last note; an empty one where there is none."""
        try:
            size = int.from_bytes(os.pread(self.fd, 4, STACK_BYTES), "little")
            return msgspec.json.decode(os.pread(self.fd, min(size, NOTE_BYTES), STACK_BYTES + 4), type=Notes)
        except (OSError, msgspec.DecodeError):
            return Notes()

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def new_file() -> int:
    """A descriptor of an empty file without a name. Raises `OSError`."""
    return memory.new_file("cavalcade-box", 0)


def frames(text: str) -> list[Frame]:
    """The frames of the last stack in what faulthandler wrote."""
    found: list[Frame] = []
    _, _, last = text.rpartition("(most recent call first):\n")
    for line in last.splitlines():
        match = _FRAME.fullmatch(line)
        if match is not None:
            found.append(Frame(match["file"] or "???", match["line"], match["name"]))
        elif found:
            break
    return found


def culprit(stack: Iterable[Frame], packages: Set[str] = frozenset()) -> Frame | None:
    """The innermost frame of the user's, whose `packages` may be installed; where there is none, the innermost of a library's that is
    not the event loop itself."""
    fallback: Frame | None = None
    for frame in stack:
        if frame.ours:
            continue
        if not frame.library(packages):
            return frame
        if fallback is None and not any(part in frame.file for part in _LOOP_PARTS):
            fallback = frame
    return fallback


def debugged(stack: Iterable[Frame]) -> bool:
    """Whether a debugger of Python's holds the worker: somebody looks at it, and it is neither ill nor late."""
    return any(not _DEBUGGERS.isdisjoint(Path(frame.file).parts) for frame in stack)


def show_stack(stack: Iterable[Frame], limit: int) -> str:
    """The innermost frames for the log, the app's and those of the libraries it called."""
    kept = [f'  File "{frame.file}", line {frame.line} in {frame.name}' for frame in stack if not frame.ours]
    return "\n".join(["Most recent call first:", *kept[:limit]]) if kept else ""
