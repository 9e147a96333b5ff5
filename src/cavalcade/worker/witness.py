"""What a blocked worker can say for itself, once it can say anything: which request it was, how many waited, and whether it was the
app's doing at all.

While the loop is blocked the supervisor sends two signals. `faulthandler` answers one in C at once, with the line. The other is answered
here, in Python, by a handler that runs inside the blocked code as soon as the interpreter gets to it: it looks at the frames under
it for the request. So nothing is remembered for a request that does not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from cavalcade import limits
from cavalcade.apps import steps
from cavalcade.apps.asgi import waits
from cavalcade.apps.asgi.lifespan import Lifespan
from cavalcade.apps.stream import Call, Serving
from cavalcade.board.ledger_words import GC_NS, GC_PAUSES, REQUESTS
from cavalcade.config import addresses
from cavalcade.observe import blackbox
from cavalcade.observe.blackbox import BlackBox, Frame, Notes
from cavalcade.worker import channel

_FRAMES_MAX = 200
_RUN = waits.run.__code__
_REST = steps.rest.__code__
_LIFESPAN = Lifespan._run.__code__


def answer_dumps(box: BlackBox) -> None:
    """Let `faulthandler` write into the box: in a crash, and when it is told to. As early as possible after the fork, because the
    signal ends a process that does not expect it."""
    faulthandler.enable(box.fd)
    if blackbox.DUMP_SIGNAL is not None and blackbox.ASK_SIGNAL is not None:
        faulthandler.register(blackbox.DUMP_SIGNAL, box.fd, all_threads=False, chain=False)
        signal.signal(blackbox.ASK_SIGNAL, lambda signum, frame: _note_boot(box))
        signal.siginterrupt(blackbox.ASK_SIGNAL, False)


class Witness:
    """Watches one loop from inside. The heartbeat tells it of every beat."""

    def __init__(self, serving: Serving, warn_s: float, box: BlackBox | None, tell: Callable[[channel.Stalled], None]) -> None:
        self._serving = serving
        self._warn_s = warn_s if warn_s > 0 else float("inf")
        self._box = box
        self._tell = tell
        self._begun = 0  # requests begun up to the last beat ...
        self._running = 0  # ... and those of them that ran then
        self._request = ""  # the one that was caught in the act
        self._asked = False
        self._late: channel.Stalled | None = None  # to be told at the next beat, when those who waited have been read
        self._continued_at = 0.0
        self._gc_began = 0.0
        self._gc_s = 0.0
        self._gc_worst = (0.0, 0, 0)
        self._delays = _open_schedstat()
        self._delay_s = self._read_delay()

    def start(self) -> None:
        """Listen for the supervisor's question and for the garbage collector. In the main thread."""
        gc.callbacks.append(self._on_gc)
        if blackbox.ASK_SIGNAL is not None:
            with contextlib.suppress(ValueError):  # a loop that is not in the main thread
                signal.signal(blackbox.ASK_SIGNAL, self._on_asked)
                signal.signal(signal.SIGCONT, self._on_continued)
                for signum in (blackbox.ASK_SIGNAL, signal.SIGCONT):
                    signal.siginterrupt(signum, False)  # what the app waits for is not to fail for being looked at

    def stop(self) -> None:
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._on_gc)
        self._tell_late(self._serving.ledger.get(REQUESTS) + len(self._serving.running))

    def beat(self, now: float, last: float, due: float) -> bool:
        """The loop turns: `now`, after `last`, where it ought to have turned at `due`. Whether it was blocked: the next beat, at which
        that is told, should come soon, for it counts who came until then."""
        serving = self._serving
        running = len(serving.running)
        begun = serving.ledger.get(REQUESTS) + running
        if self._late is not None:
            self._tell_late(begun)
        if now - due > self._warn_s:
            # The blocking began at some time between the last beat and this due one; it is not longer than this by more than a beat.
            blocked_s = now - max(last, due - limits.HEARTBEAT_S)
            _, generation, freed = self._gc_worst
            self._late = channel.Stalled(
                ms=round(blocked_s * 1000),
                ended=now,
                request=self._request,
                waited=self._running - (1 if self._request else 0),
                gc_ms=round(self._gc_s * 1000),
                gc_generation=generation,
                gc_freed=freed,
                starved_ms=round((self._read_delay() - self._delay_s) * 1000),
            )
        else:
            self._begun = begun
            self._running = running
        self._request = ""
        if self._gc_s:
            self._gc_s = 0.0
            self._gc_worst = (0.0, 0, 0)
        return self._late is not None

    def look(self) -> None:
        """A few times a second: how long this thread has waited for a CPU so far, and what it would take along if it died."""
        self._delay_s = self._read_delay()
        if self._box is not None and (self._serving.running or self._asked):
            self._asked = bool(self._serving.running)
            self._note(self._box, "")

    def _tell_late(self, begun: int) -> None:
        late = self._late
        if late is not None:
            came = begun - self._begun
            late.delay_ms = round(late.ms * max(0.0, late.waited + came / 2))
            late.waited = max(0, late.waited + came)
            late.continued = self._continued_at >= late.ended - late.ms / 1000
            self._late = None
            self._begun = begun
            self._running = len(self._serving.running)
            self._tell(late)

    def _note(self, box: BlackBox, current: str) -> None:
        running = list(self._serving.running)
        noted = running[: blackbox.NOTED_REQUESTS]
        lines = [call.request_line() for call in noted]
        clients, ages_s = [client_of(call) for call in noted], [age_of(call) for call in noted]
        box.note(Notes(current, len(running), lines, time.monotonic_ns(), clients, ages_s))

    # -- asked while blocked ---------------------------------------------------------------------------------------------

    def _on_continued(self, signum: int, frame: FrameType | None) -> None:
        """Somebody has stopped the process, and lets it go on."""
        self._continued_at = time.monotonic()

    def _on_asked(self, signum: int, frame: FrameType | None) -> None:
        """Runs in the middle of whatever blocks. It must not fail there."""
        try:
            self._request = request_of(frame)
            # Those that were answered between the last beat and the blocking have not waited.
            self._running = len(self._serving.running)
            self._begun = self._serving.ledger.get(REQUESTS) + self._running
            if self._box is not None:
                self._asked = True
                self._note(self._box, self._request)
        except Exception:  # noqa: BLE001  the border to the app: this is raised into its code
            pass

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._gc_began = now
        else:
            took_s = now - self._gc_began
            self._gc_s += took_s
            ledger = self._serving.ledger
            ledger.add(GC_PAUSES + info["generation"], 1)
            ledger.add(GC_NS + info["generation"], int(took_s * 1e9))
            if took_s > self._gc_worst[0]:
                self._gc_worst = (took_s, info["generation"], info["collected"])

    def _read_delay(self) -> float:
        """Seconds that this thread was ready to run and no CPU was free; 0 where the kernel does not count them."""
        if self._delays < 0:
            return 0.0
        try:
            return int(os.pread(self._delays, 128, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0


def request_of(frame: FrameType | None) -> str:
    """The request line of the request that these frames are busy with; "" where it is none of a request's."""
    scope = None
    for _ in range(_FRAMES_MAX):
        if frame is None:
            break
        if frame.f_code is _RUN:
            return str(frame.f_locals["exchange"].request_line())
        if scope is None:
            scope = maybe_scope(frame)
        frame = frame.f_back
    try:
        return f"{scope['method']} {scope['path']}"[:512] if scope is not None else ""
    except (TypeError, KeyError):
        return ""


def maybe_scope(frame: FrameType) -> Any:
    """The scope of the request that this frame, of ours or of the app's, works for; None where it shows none.

    A middleware may work for a request in a task of its own, in which no frame is ours; but everything written for ASGI calls it so.
    """
    if frame.f_code is _RUN:
        return frame.f_locals["exchange"].scope
    return frame.f_locals.get("scope") if "scope" in frame.f_code.co_varnames else None


def _note_boot(box: BlackBox) -> None:
    """Asked while it boots. What blocks is in the stack that faulthandler writes; what the lifespan awaits is in no stack."""
    try:
        for task in asyncio.all_tasks():
            chain = list(awaits(task.get_coro()))
            if any(frame.f_code is _LIFESPAN for frame in chain):
                lines = [f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}' for frame in chain]
                box.note(Notes(awaiting="\n".join(["Stack (most recent call first):", *reversed(lines)]), at_ns=time.monotonic_ns()))
    except Exception:  # noqa: BLE001  the border to the app: this is raised into its code. RuntimeError where no loop runs
        pass


def awaits(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, each of which awaits the next, the outermost first."""
    for _ in range(_FRAMES_MAX):
        if awaitable is None:
            return
        if type(awaitable).__name__ in ("async_generator_asend", "async_generator_athrow"):
            # They do not tell whose they are: `@asynccontextmanager` puts one between a framework and the user's lifespan.
            awaitable = next((one for one in gc.get_referents(awaitable) if inspect.isasyncgen(one)), None)
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
                if awaitable is None and frame.f_code is _REST:
                    awaitable = frame.f_locals["coroutine"]  # it stands where its first step has ended
                break
        else:
            return


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a thread, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def describe(frame: FrameType) -> Frame:
    """A frame as it stands in a stack."""
    return Frame(frame.f_code.co_filename, str(frame.f_lineno), frame.f_code.co_name)


def _open_schedstat() -> int:
    try:
        return os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not Linux, or built without
        return -1


def client_of(call: Call) -> str:
    """Its address and port, as far as they are known."""
    scope: Any = getattr(call, "scope", None) or {}
    environ: Any = getattr(call, "environ", None) or {}
    client = scope.get("client") or (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))
    try:
        host, port = client
    except (TypeError, ValueError):  # an app may put anything there
        return ""
    return addresses.join(str(host), port) if host and port else str(host or "")


def age_of(call: Call) -> float | None:
    """Seconds since its head was read; None where nobody has looked at the clock then."""
    started = getattr(getattr(call, "stream", None), "started", 0.0)
    return round(time.perf_counter() - started, 3) if started else None
