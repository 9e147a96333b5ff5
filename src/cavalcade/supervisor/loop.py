"""The supervisor: binds, then carries out what the policy commands until it commands the exit.

Everything that happens (a signal, a line from a nursery or a worker, a closed socket, a dead child, a deadline) becomes an event in
one queue. The queue is emptied by one function, `_pump`, that never waits: it hands each event to the policy and executes the
commands. The app is never imported here, so nothing the app does can stop the supervision.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections import deque
from collections.abc import Coroutine
from signal import SIGABRT, SIGKILL, SIGTERM, Signals
from typing import Any

import msgspec

from cavalcade import limits
from cavalcade.board.view import Board
from cavalcade.config.options import Settings
from cavalcade.errors import StartupError
from cavalcade.net import listener
from cavalcade.net.tls import Tls
from cavalcade.net.tls_watch import TlsWatch
from cavalcade.observe import blackbox, deaths, logs
from cavalcade.observe.blackbox import BlackBox
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor import policy, signals, status, upgrade
from cavalcade.supervisor.children import Link, NurseryChild, WorkerChild, fork_line, order_line, spawn_nursery
from cavalcade.supervisor.desk import Desk, Facing
from cavalcade.supervisor.guard import Guard
from cavalcade.supervisor.health import Health
from cavalcade.supervisor.heritage import Heritage
from cavalcade.supervisor.inspector import Inspector
from cavalcade.supervisor.recent import Recent
from cavalcade.supervisor.reporting import Reporting
from cavalcade.supervisor.state import State
from cavalcade.supervisor.status import Status
from cavalcade.supervisor.systemd import Notifier
from cavalcade.supervisor.upgrade import Holdings, Predecessor, Successor, start_directory
from cavalcade.worker import channel
from cavalcade.worker import nursery_channel as say

log = logging.getLogger("cavalcade")


class Supervisor:
    """The executing half. All decisions are in `policy.step`."""

    def __init__(
        self,
        settings: Settings,
        holdings: Holdings,
        board: Board,
        state: State,
        loop: asyncio.AbstractEventLoop,
        notifier: Notifier,
        predecessor: Predecessor | None,
        tls: Tls | None,
        facing: Facing,
    ) -> None:
        self._tls = tls
        self._tls_watch = TlsWatch(tls, loop, self._renew_certificates) if tls is not None else None
        self._settings = settings
        self._holdings = holdings
        self._notifier = notifier
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._directory = start_directory(os.environ)
        self._later: set[asyncio.Task[None]] = set()
        self._health = Health(notifier, state, board, loop)
        self._listeners = holdings.listeners
        self._advice: set[str] = set()  # what the operator has been told already
        self._board = board
        self._queue = holdings.queue  # held here too, so that a connection in it outlives every worker
        self._state = state
        self._loop = loop
        self._events: deque[on.Event] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._nurseries: dict[int, NurseryChild] = {}
        self._workers: dict[int, WorkerChild] = {}
        self._guard = Guard(settings, loop, self._workers, self._post)
        self._heritage = Heritage(board, self._guard.stalls)
        self._sources = status.Sources(self._listeners, state, board, Recent(), self._guard, self._heritage)
        self._reporting = Reporting(settings, self._sources, loop, facing.journal, tls, self._take_status, os.environ, holdings)
        self._inspector = Inspector(loop, self._workers, self._guard, settings.packages)
        self._journal = facing.journal
        self._boxless = False
        self._done: asyncio.Future[int] = loop.create_future()
        self._origins = dict(facing.origins)
        self._front = facing.new_front(self._new_desk()) if facing.new_front is not None else None

    def _new_desk(self) -> Desk:
        return Desk(
            settings=lambda: self._settings,
            origins=self._origins,
            environ=os.environ,
            journal=self._journal,
            post=self._post,
            status=self._take_status,
            metrics=self._reporting.render,
            inspect=self._inspector.inspect,
            set_log_level=self._set_log_level,
            renew_certificates=self._tls_watch.take_up if self._tls_watch is not None else None,
        )

    def run(self) -> int:
        """Supervise until the end. Returns the exit code."""
        signals.adopt_orphans(True)
        signals.listen(self._loop, self._on_signal, self._on_child)
        try:
            return self._loop.run_until_complete(self._live())
        finally:
            # Where it ends otherwise than by the policy's own exit, closing our ends is what makes every child leave.
            for worker in self._workers.values():
                worker.close()
            for nursery in self._nurseries.values():
                nursery.close()
            if self._successor is not None:
                self._successor.close()
            if self._predecessor is not None:
                self._predecessor.detach()
            self._reporting.stop(owned=self._holdings.owned)
            signals.silence(self._loop)
            signals.adopt_orphans(False)

    async def _live(self) -> int:
        if self._predecessor is not None:
            self._predecessor.attach(self._loop, self._on_take_over, self._reporting.inherit, self._on_called_off)
        if self._front is not None:
            await self._front.start(alone=self._predecessor is None)
        code = 1
        try:
            self._post(on.Start())
            self._guard.start()
            self._reporting.start()
            if self._tls_watch is not None:
                self._tls_watch.start()
            code = await self._done
            return code
        finally:
            self._guard.stop()
            if self._tls_watch is not None:
                self._tls_watch.stop()
            if self._successor is not None and not self._holdings.owned:
                self._successor.counted(self._heritage.tell(self._state.restarts))
            if self._front is not None:
                await self._front.stop(code)

    def _take_status(self) -> Status:
        return status.take(self._settings, self._sources, self._loop.time())

    # -- the queue -------------------------------------------------------------------------------------------------------

    def _post(self, event: on.Event) -> None:
        self._events.append(event)
        if not self._pumping:
            self._pump()

    def _pump(self) -> None:
        """Empty the queue. Commands may bring new events; they wait their turn."""
        self._pumping = True
        try:
            while self._events:
                for command in policy.step(self._state, self._events.popleft(), self._loop.time()):
                    self._execute(command)
            self._set_timer()
            self._health.tell()
        except Exception:
            log.exception("the supervisor has failed; every worker drains and exits")
            if not self._done.done():
                self._done.set_result(1)
        finally:
            self._pumping = False

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = policy.next_wake(self._state, self._loop.time())
        if wake is not None and not self._done.done():
            self._timer = self._loop.call_at(wake, self._post, on.Tick())

    # -- commands --------------------------------------------------------------------------------------------------------

    def _execute(self, command: do.Command) -> None:
        match command:
            case do.Log():
                log.log(command.level, "%s", command.text, extra={"event": command.event} if command.event else None)
            case do.Explain():
                log.error("%s", command.cause, extra=_extras(command))
                if self._predecessor is not None and self._state.shared:
                    self._predecessor.failed(command.cause, command.fix, command.trace)
            case do.ReopenLogs():
                logs.reopen()
                for nursery in self._nurseries.values():
                    nursery.link.send(say.encode(say.ReopenLogs()))
            case do.StartNursery():
                self._start_nursery(command.generation)
            case do.StopNursery():
                self._stop_nursery(command)
            case do.Fork():
                self._fork(command)
            case do.Order():
                worker = self._workers.get(command.worker_id)
                if worker is not None:
                    worker.link.send(order_line(command.order))
            case do.Kill():
                self._kill(command)
            case do.Forget():
                self._forget(command)
            case do.Serving():
                self._serving(command)
            case do.StartUpgrade():
                self._start_upgrade()
            case do.HandOver():
                self._hand_over()
            case do.StopUpgrade():
                self._stop_upgrade(command)
            case do.Answer():
                if self._front is not None:
                    self._front.answer(command)
            case do.Exit():
                if not self._done.done():
                    self._done.set_result(command.code)

    def _renew_certificates(self) -> None:
        for nursery in self._nurseries.values():  # first: a worker that it forks after this has them already
            nursery.link.send(say.encode(say.RenewCertificates()))
        for worker in self._workers.values():
            worker.link.send(order_line(channel.RenewCertificates()))

    def _set_log_level(self, name: str) -> None:
        """In every process there is, and those to come. Raises `ValueError`."""
        level = logs.level(name)
        self._settings = dataclasses.replace(self._settings, log_level=level)
        self._origins["log_level"] = "changed while it runs"
        for nursery in self._nurseries.values():
            nursery.link.send(say.encode(say.SetLogLevel(level)))
        for worker in self._workers.values():
            worker.link.send(order_line(channel.SetLogLevel(level)))
        logs.set_level(level)
        log.log(logging.getLevelNamesMapping()[level.upper()], "the log level is %s from now on", level)

    def _forget(self, command: do.Forget) -> None:
        worker = self._workers.pop(command.worker_id, None)
        if worker is not None:
            worker.close()
        self._guard.forget(command.worker_id)
        self._board.fold(command.slot)

    def _serving(self, command: do.Serving) -> None:
        urls = ", ".join(each.url for each in self._listeners)
        workers = "1 worker" if command.workers == 1 else f"{command.workers} workers"
        log.info("ready in %.1f s: %s (%s, pid %d)", command.seconds, urls, workers, os.getpid(), extra={"event": "start"})
        if self._predecessor is not None:
            self._predecessor.ready()

    def _start_nursery(self, generation: int) -> None:
        ours, theirs = socket.socketpair()
        listening = [listener.describe(each) for each in self._listeners]
        give, take = (end.fileno() for end in self._queue)
        crash = -1
        try:
            crash = blackbox.new_file()
            directory = self._reporting.app_directory
            environ = directory.nursery_environ if directory is not None else {}
            process = spawn_nursery(theirs, [*(each.fd for each in listening), self._board.fd, give, take, crash], environ)
        except OSError as error:
            ours.close()
            if crash >= 0:
                os.close(crash)
            self._post(
                on.NurseryFailed(
                    generation, f"A new process cannot be started: {error.strerror}.", "Look at the limits (ulimit -u, pids.max)."
                )
            )
            self._post(on.NurseryExited(generation, None))
            return
        finally:
            theirs.close()
        link = Link(self._loop, ours, lambda line: self._on_nursery_line(generation, line), lambda: None)
        self._nurseries[generation] = NurseryChild(generation, process, link, crash)
        setup = say.Setup(generation, os.getpid(), self._settings, listening, self._board.fd, self._board.slots, give, take, crash)
        link.send(say.encode(setup))

    def _stop_nursery(self, command: do.StopNursery) -> None:
        nursery = self._nurseries.get(command.generation)
        if nursery is None:
            return
        if command.force:
            nursery.kill()
        else:
            nursery.link.send(say.encode(say.Quit()))

    def _fork(self, command: do.Fork) -> None:
        worker_id = command.worker_id
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # out of descriptors, most likely
            self._post(on.ForkFailed(worker_id, error.strerror or str(error)))
            return
        nursery = self._nurseries[command.generation]
        link = Link(self._loop, ours, lambda line: self._on_worker_line(worker_id, line), lambda: self._on_worker_end(worker_id))
        box = self._make_box()
        self._workers[worker_id] = WorkerChild(
            worker_id, nursery, self._board.row(command.slot), self._board.ledger(command.slot), link, box
        )
        descriptors = [theirs.detach()] + ([os.dup(box.fd)] if box is not None else [])
        nursery.link.send(fork_line(worker_id, command.slot, boxed=box is not None, shared=self._state.shared), *descriptors)

    def _make_box(self) -> BlackBox | None:
        """A worker is served without its black box as well; only stalls and crashes have no stack then."""
        try:
            return BlackBox.create()
        except OSError as error:
            if not self._boxless:
                self._boxless = True
                log.warning("no file for the stacks of blocked and crashed workers can be made (%s): they are reported without", error)
            return None

    def _kill(self, command: do.Kill) -> None:
        worker = self._workers.get(command.worker_id)
        if worker is None:
            return
        pid = worker.find_pid()
        if pid:
            _send(pid, SIGABRT if command.abort else SIGKILL)
        else:
            worker.doomed = True

    # -- upgrade: the old server's side ------------------------------------------------------------------------------------

    def _start_upgrade(self) -> None:
        try:
            environ = self._notifier.successor_environ
            self._successor = Successor(self._loop, self._holdings, self._settings.bind, environ, self._directory, self._on_successor_line)
        except OSError as error:
            self._post(on.UpgradeFailed(f"a new process cannot be started: {error.strerror}.", "Look at the limits (ulimit -u, pids.max)."))
            self._post(on.UpgradeExited(None))

    def _on_successor_line(self, pid: int, line: bytes) -> None:
        try:
            report = upgrade.decode_report(line)
        except msgspec.DecodeError as error:
            self._post(on.UpgradeFailed(f"the new server is not understood: {error}."))
            return
        if isinstance(report, upgrade.Ready):
            self._post(on.UpgradeReady(pid))
        else:
            self._post(on.UpgradeFailed(report.cause, report.fix, report.trace))

    def _hand_over(self) -> None:
        successor = self._successor
        if successor is None:
            return
        self._holdings.owned = False
        self._notifier.succeed(successor.pid)
        front = self._front

        async def hand_over() -> None:
            if front is not None:
                await front.hand_over()  # its own addresses first: the new one is about to bind them
            successor.take_over(self._heritage.tell(self._state.restarts))

        self._do_later(hand_over())

    def _stop_upgrade(self, command: do.StopUpgrade) -> None:
        successor = self._successor
        if successor is None:
            return
        if command.together:
            successor.link.close()  # it takes that as the end of us all
        else:
            successor.signal(SIGKILL if command.force else SIGTERM)

    # -- upgrade: the new server's side ------------------------------------------------------------------------------------

    def _on_take_over(self) -> None:
        if self._predecessor is None:
            return
        old_pid = self._predecessor.offer.pid
        self._holdings.own(self._settings.backlog)
        self._post(on.TakeOver(old_pid))
        try:
            if self._holdings.pid_file is not None:
                self._holdings.pid_file.write(successor_of=old_pid)
        except StartupError as error:  # too late to go back
            log.error("%s", error.cause, extra={"fix": error.fix})
        if self._front is not None:
            self._do_later(self._front.take_over())

    def _on_called_off(self) -> None:
        if self._predecessor is not None and self._state.shared:
            self._post(on.CalledOff(self._predecessor.offer.pid))

    def _do_later(self, what: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(what)
        self._later.add(task)
        task.add_done_callback(self._later_done)

    def _later_done(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s", error)

    # -- what nurseries say ----------------------------------------------------------------------------------------------

    def _on_nursery_line(self, generation: int, line: bytes) -> None:
        try:
            report = say.decode_report(line)
        except msgspec.DecodeError as error:
            log.error("nursery of generation %d: a report that makes no sense (%s): %r", generation, error, line[:200])
            return
        match report:
            case say.CanFork():
                self._post(on.NurseryReady(generation, self._nurseries[generation].pid, report.import_s))
            case say.CannotImport():
                self._post(on.NurseryFailed(generation, report.cause, report.fix, report.trace))
            case say.Forked():
                self._on_forked(report)
            case say.ForkRefused():
                self._post(on.ForkFailed(report.worker_id, report.reason))
            case say.Exited():
                worker = self._workers.get(report.worker_id)
                if worker is not None:
                    worker.link.read()  # its last words, before its end
                    self._post_exit(worker, report.status)

    def _on_forked(self, report: say.Forked) -> None:
        worker = self._workers.get(report.worker_id)
        if worker is None:
            return
        worker.pid = report.pid
        if worker.doomed:
            _send(worker.pid, SIGKILL)
        self._post(on.WorkerForked(report.worker_id, report.pid))

    # -- what workers say ------------------------------------------------------------------------------------------------

    def _on_worker_line(self, worker_id: int, line: bytes) -> None:
        try:
            report = channel.decode_report(line)
        except msgspec.DecodeError as error:
            log.error("worker %d: a report that makes no sense (%s): %r", worker_id, error, line[:200])
            return
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.pid and worker.find_pid():
            self._post(on.WorkerForked(worker_id, worker.pid))
        if isinstance(report, channel.Ready) and worker is not None:
            self._guard.sample(worker)
        if isinstance(report, channel.Stalled):
            if worker is not None:
                self._guard.on_stalled(worker, report)
        elif isinstance(report, channel.Logged):
            self._journal.relayed(worker_id, worker.pid if worker is not None else 0, report)
        elif isinstance(report, channel.Inspected):
            self._inspector.on_inspected(report)
        elif isinstance(report, channel.Advice):
            if report.key not in self._advice and len(self._advice) < limits.ADVICE_KEPT:
                self._advice.add(report.key)
                log.warning("%s", report.text)
        else:
            self._post(on.WorkerReported(worker_id, report))

    def _on_worker_end(self, worker_id: int) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        if worker.nursery.alive:
            self._post(on.ChannelClosed(worker_id))  # its nursery tells when and how it ended
        else:
            self._settle_orphan(worker)

    def _settle_orphan(self, worker: WorkerChild) -> None:
        """A worker whose nursery is dead, and whose channel is closed: find out how it ended, if it has."""
        pid = worker.find_pid()
        try:
            found, status = os.waitpid(pid, os.WNOHANG) if pid else (0, 0)
        except ChildProcessError:  # it was never given to us: not Linux, or forked and dead before anybody knew it
            pid = 0
            found = 0
        if found:
            self._post_exit(worker, os.waitstatus_to_exitcode(status))
        elif pid:
            self._post(on.ChannelClosed(worker.worker_id))
        else:
            self._post_exit(worker, None)

    def _post_exit(self, worker: WorkerChild, status: int | None) -> None:
        self._post(on.WorkerExited(worker.worker_id, status, self._guard.facts(worker)))

    # -- signals and deaths ----------------------------------------------------------------------------------------------

    def _on_signal(self, signum: Signals) -> None:
        self._post(on.Signalled(signum))

    def _on_child(self) -> None:
        """Reap all there is: nurseries, workers whose nursery has died, and strangers, which are nobody's business but must not stay."""
        reaped: dict[int, int] = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            reaped[pid] = os.waitstatus_to_exitcode(status)
        if self._successor is not None and self._successor.pid in reaped:
            self._successor.link.read()  # its last words, before its end
            status = reaped.pop(self._successor.pid)
            self._successor.gone(status)
            self._successor = None
            self._post(on.UpgradeExited(status))
        # Nurseries first: their last words may name the workers among the others.
        for nursery in [nursery for nursery in self._nurseries.values() if nursery.pid in reaped]:
            self._nursery_gone(nursery, reaped.pop(nursery.pid), reaped)
        for worker in [worker for worker in self._workers.values() if worker.find_pid() in reaped]:
            worker.link.read()  # its last words, before its end
            self._post_exit(worker, reaped.pop(worker.pid))

    def _nursery_gone(self, nursery: NurseryChild, status: int, reaped: dict[int, int]) -> None:
        nursery.link.read()
        trace = deaths.read_crash(nursery.crash)
        nursery.gone(status)
        del self._nurseries[nursery.generation]
        self._post(on.NurseryExited(nursery.generation, status, trace))
        for worker in [worker for worker in self._workers.values() if worker.nursery is nursery]:
            if worker.link.ended and worker.find_pid() not in reaped:
                self._settle_orphan(worker)


def _extras(command: do.Explain) -> dict[str, str]:
    extras = {"fix": command.fix, "trace": command.trace}
    return extras | {"event": command.event} if command.event else extras


def _send(pid: int, signum: Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass
