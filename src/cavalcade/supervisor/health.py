"""Keeps a service manager informed: what stage the server is in, one line about it, and that it lives, as long as it really does."""

from __future__ import annotations

import asyncio
import time

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.board.view import Board
from cavalcade.supervisor.moves import count_workers
from cavalcade.supervisor.state import Life, Stage, State
from cavalcade.supervisor.systemd import Notifier

SILENT_NS = int(limits.WATCHDOG_SILENCE_S * 1e9)


class Health:
    """`tell` after every turn of the policy; only what has changed is sent."""

    def __init__(self, notifier: Notifier, state: State, board: Board, loop: asyncio.AbstractEventLoop) -> None:
        self._notifier = notifier
        self._state = state
        self._board = board
        self._loop = loop
        self._told: tuple[str, str] = ("", "")
        self._watched = False

    def tell(self) -> None:
        """Say what is new: the first READY=1 comes when every worker has been ready."""
        if self._state.shared:
            return  # another server is the service, still or already
        stage, line = self._stage(), self._line()
        before, self._told = self._told, (stage, line)
        if stage != before[0]:
            match stage:
                case "ready":
                    self._notifier.ready(line)
                case "reloading":
                    self._notifier.reloading(line)
                case "stopping":
                    self._notifier.stopping(line)
                case _:
                    self._notifier.status(line)
        elif line != before[1]:
            self._notifier.status(line)
        if not self._watched and self._notifier.watchdog_s:
            self._watched = True
            self._watch()

    def _stage(self) -> str:
        state = self._state
        if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING, Stage.GONE):
            return "stopping"
        if state.stage is not Stage.SERVING:
            return "starting"
        upgrading = state.upgrade is not None and not state.upgrade.failed
        return "reloading" if state.roll is not None or upgrading else "ready"

    def _line(self) -> str:
        """ "serving: 4 of 4 workers, generation 2"."""
        state = self._state
        ready = len(state.in_life(Life.READY))
        match self._stage():
            case "stopping":
                return f"stopping: {count_workers(len(state.workers))} left"
            case "starting":
                return f"starting: {ready} of {state.target} workers ready"
            case "reloading" if state.roll is None:
                return f"upgrading: {ready} of {state.target} workers serve"
            case "reloading":
                return f"reloading as generation {state.wanted_generation}: {ready} of {state.target} workers serve"
            case _:
                degraded = "degraded" if state.degraded else "serving"
                return f"{degraded}: {ready} of {state.target} workers, generation {state.generation}"

    def _watch(self) -> None:
        """Twice in the time that would be too long: say so if it is well. A server whose every loop is stuck is best started anew."""
        interval_s = self._notifier.watchdog_s
        if not interval_s:
            return
        if self.is_well():
            self._notifier.alive()
        self._loop.call_later(interval_s, self._watch)

    def is_well(self) -> bool:
        """While it serves: at least one ready worker whose loop turns. Starting and stopping have deadlines of their own."""
        if self._state.stage is not Stage.SERVING:
            return True
        now_ns = time.monotonic_ns()
        return any(now_ns - self._board.row(worker.slot).get(layout.HEARTBEAT_NS) < SILENT_NS for worker in self._state.in_life(Life.READY))
