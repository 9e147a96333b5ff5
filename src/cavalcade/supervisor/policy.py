"""The rules of supervision, without a process in sight: `step` takes an event and the time, and says what to do.

How it works. An event changes the state in one small way (a worker is ready, a nursery is gone, a reload is wanted). After
every event, whatever it was, the same two passes run: `_expire` acts on deadlines that are over, and `_settle` compares what is
with what ought to be and takes the next step towards it: a seat without a worker gets one forked, a worker of an old
generation gets a successor, a nursery that nobody needs is let go. So there is no script of a reload that a signal could
interrupt in the middle: a SIGTERM during a reload during a crash is one more event, and the passes do the rest.

The rules that are never broken, and that a test throws random events at:

- A worker that serves is told to leave only when its successor is ready, when fewer are wanted, or when the server stops.
- A slot of the board has one owner.
- After an order to stop nothing is forked, and the end comes, if need be by SIGKILL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from signal import Signals
from typing import Any

from cavalcade import limits
from cavalcade.observe.deaths import describe_death, describe_exit, describe_loss
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor.commands import Level
from cavalcade.supervisor.endings import Endings
from cavalcade.supervisor.moves import Failure, serving_workers
from cavalcade.supervisor.spans import span
from cavalcade.supervisor.state import Life, Nursery, NurseryLife, Seat, Stage, State, Worker, backoff_s
from cavalcade.supervisor.wishes import ASKED
from cavalcade.worker import channel

SEE_ALONE = "Run `cavalcade check` in the same directory to see it alone."


def step(state: State, event: on.Event, now: float) -> list[do.Command]:
    """What to do about `event`. `now` is a monotonic clock in seconds. Changes `state`, does nothing else."""
    turn = _Turn(state, now)
    if state.stage is not Stage.GONE:
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(turn, event)
        turn.expire()
        turn.settle()
    return turn.out


def next_wake(state: State, now: float) -> float | None:
    """When to send a `Tick` if nothing else happens: the earliest deadline or end of a back-off. None where there is none."""
    times = [worker.deadline for worker in state.workers.values()]
    times += [nursery.not_before if nursery.life is NurseryLife.DOWN else nursery.deadline for nursery in state.nurseries.values()]
    times.append(state.stop_at)
    if state.upgrade is not None:
        times.append(state.upgrade.deadline)
    if state.stage in (Stage.STARTING, Stage.SERVING, Stage.DRAIN_DELAY):
        times.extend(seat.not_before for seat in state.seats if seat.not_before > now)
    return min((time for time in times if math.isfinite(time)), default=None)


class _Turn(Endings):
    """One call of `step`."""

    # == events ==========================================================================================================

    def start(self, _: on.Start) -> None:
        state = self.state
        if state.stage is not Stage.NEW:
            return
        state.stage = Stage.STARTING
        state.began_at = self.now
        for _number in range(state.rules.workers):
            self.add_seat()
        self.start_nursery(state.generation)

    # -- workers ---------------------------------------------------------------------------------------------------------

    def worker_forked(self, event: on.WorkerForked) -> None:
        worker = self.state.workers.get(event.worker_id)
        if worker is not None:
            worker.pid = event.pid

    def fork_failed(self, event: on.ForkFailed) -> None:
        worker = self.state.workers.get(event.worker_id)
        if worker is None:
            return
        cause = f"{worker.name} could not be forked: {event.reason}."
        self.forget(worker)
        if worker.life is Life.BOOTING:
            self.boot_failed(worker, Failure(cause, "Look at the limits on processes (ulimit -u, pids.max) and on memory."))

    def worker_reported(self, event: on.WorkerReported) -> None:
        worker = self.state.workers.get(event.worker_id)
        if worker is None:
            return
        match event.report, worker.life:
            case channel.Ready() as ready, Life.BOOTING:
                self.worker_ready(worker, ready)
            case channel.BootFailed() as failed, Life.BOOTING:
                self.boot_failed(worker, Failure(f"{worker.name}: {failed.cause}", failed.fix, failed.trace))
            case channel.Retire() as retire, Life.BOOTING | Life.READY:
                if not worker.retiring or worker.retiring == ASKED:  # its own reason stays, even if what was asked for fails
                    worker.retiring = retire.reason or "asked to be replaced"
                    self.log(f"{worker.name} retires ({worker.retiring}): it serves on until its successor is ready", event="recycle")
            case channel.Draining(), _:
                worker.accepts = False
            case channel.Drained() as drained, _:
                if drained.left:
                    self.warn(f"{worker.name}: {len(drained.left)} cancelled at the end of its grace: {', '.join(drained.left)}")
            case _:  # said too late to matter: it has been told to leave meanwhile
                pass

    def worker_ready(self, worker: Worker, ready: channel.Ready) -> None:
        state = self.state
        worker.deadline = math.inf
        took = f"{self.now - worker.forked_at:.1f} s (import {ready.import_s:.2f} s, startup {ready.startup_s:.2f} s)"
        predecessor = state.holder(worker.seat, Life.READY)
        worker.life = Life.READY
        worker.served = worker.accepts = True
        if state.roll is not None and worker.generation == state.roll.generation:
            state.roll.proven = True
        line = f"{worker.name} ready after {took}, generation {worker.generation}"
        if predecessor is None:
            self.log(line)
        else:
            self.log(f"{line}; {predecessor.name} drains")
            self.count_restart(worker.seat, predecessor.retiring if predecessor.generation == worker.generation else "reload")
            self.drain(predecessor, state.rules.graceful_timeout_s, predecessor.retiring or "replaced")
        if state.stage is Stage.DRAIN_DELAY or state.withdrawn:
            self.out.append(do.Order(worker.id, channel.AnnounceStop()))

    def loop_blocked(self, event: on.LoopBlocked) -> None:
        """One that drains has a deadline of its own; one that boots may block for as long as boot_timeout allows."""
        worker = self.state.workers.get(event.worker_id)
        if worker is None or worker.life is not Life.READY or worker.blocked_s:
            return
        worker.blocked_s = event.seconds
        worker.killed = True
        worker.deadline = self.now + limits.KILL_AFTER_S  # for SIGKILL, if SIGABRT is not enough
        self.out.append(do.Explain(event.text, trace=event.trace, event="stall"))
        self.out.append(do.Kill(worker.id, abort=True))

    def boot_stack(self, event: on.BootStack) -> None:
        worker = self.state.workers.get(event.worker_id)
        if worker is not None:
            worker.boot_stack = (event.where, event.trace)

    def channel_closed(self, event: on.ChannelClosed) -> None:
        worker = self.state.workers.get(event.worker_id)
        # The process goes with its channel. One that has lost only the channel cannot be steered any more, so it may not stay.
        if worker is not None and worker.life is not Life.LEAVING:
            worker.mute = True
            worker.deadline = min(worker.deadline, self.now + limits.KILL_AFTER_S)

    def worker_exited(self, event: on.WorkerExited) -> None:
        state = self.state
        worker = state.workers.get(event.worker_id)
        if worker is None:
            return
        self.forget(worker)
        how = describe_exit(event.status)
        lived_s = self.now - worker.forked_at
        if worker.life is Life.BOOTING:
            self.boot_failed(worker, self.silent_failure(worker, how, event))
        elif worker.life is Life.LEAVING:
            self.leaver_exited(worker, how, event.status)
        elif worker.retiring and event.status == 0:
            self.count_restart(worker.seat, worker.retiring)
            self.log(f"{worker.name} has left before its successor was ready ({worker.retiring})")
        else:
            self.seat_failed(worker.seat, lived_s)
            self.count_restart(worker.seat, "blocked" if worker.blocked_s else "died")
            killed = f"its loop was blocked for {worker.blocked_s:.1f} s (stall_kill)" if worker.blocked_s else ""
            died = describe_death(event.status, event.facts, killed=killed)
            had = f"after {span(lived_s)}, {describe_loss(event.facts)}, generation {worker.generation}"
            line = f"{worker.name} {died}; {had}; {self.plan(worker.seat)}"
            trace = "" if killed else event.facts.trace  # told when it was given up
            self.out.append(do.Explain(line, trace=trace, event="death") if trace else do.Log(Level.WARNING, line, "death"))

    def leaver_exited(self, worker: Worker, how: str, status: int | None) -> None:
        state = self.state
        crashed = worker.served and status is not None and status < 0
        if crashed and state.stage is Stage.STOPPING:  # it had requests to finish, or a lifespan: that is no clean stop
            state.exit_code = state.exit_code or 1
        took_s = self.now - worker.left_at
        if crashed and not worker.killed:
            self.warn(f"{worker.name} {how} while it drained", event="death")
        elif worker.served and status == 0:
            self.log(f"{worker.name} has left, drained in {took_s:.1f} s")
        else:
            self.log(f"{worker.name} {how}, {took_s:.1f} s after it was told to leave", Level.INFO if worker.served else Level.DEBUG)

    # -- nurseries -------------------------------------------------------------------------------------------------------

    def nursery_ready(self, event: on.NurseryReady) -> None:
        nursery = self.state.nurseries.get(event.generation)
        if nursery is None or nursery.life is not NurseryLife.STARTING:
            return
        nursery.life = NurseryLife.READY
        nursery.pid = event.pid
        nursery.ready_at = self.now
        nursery.deadline = math.inf
        if self.state.rules.preload:
            self.log(
                f"nursery of generation {event.generation} (pid {event.pid}) has imported {self.state.rules.app} in {event.import_s:.2f} s"
            )

    def nursery_failed(self, event: on.NurseryFailed) -> None:
        nursery = self.state.nurseries.get(event.generation)
        if nursery is not None and nursery.life is NurseryLife.STARTING:
            self.generation_failed(nursery, Failure(event.cause, event.fix, event.trace))

    def nursery_exited(self, event: on.NurseryExited) -> None:
        state = self.state
        nursery = state.nurseries.get(event.generation)
        if nursery is None:
            return
        how = describe_exit(event.status)
        nursery.deadline = math.inf
        if nursery.life is NurseryLife.LEAVING:
            del state.nurseries[event.generation]
        elif nursery.life is NurseryLife.FAILED:
            nursery.life = NurseryLife.DOWN
        elif nursery.life is NurseryLife.STARTING:
            nursery.life = NurseryLife.DOWN
            doing = f"while it imported {state.rules.app}" if state.rules.preload else "before it could fork"
            self.generation_failed(nursery, Failure(f"The nursery of generation {event.generation} {how} {doing}.", SEE_ALONE, event.trace))
        elif nursery.life is NurseryLife.READY:
            nursery.life = NurseryLife.DOWN
            if state.roll is not None and state.roll.generation == event.generation:
                self.generation_failed(nursery, Failure(f"The nursery of generation {event.generation} (pid {nursery.pid}) {how}."))
            else:
                self.nursery_failed_again(nursery)
                line = f"nursery of generation {event.generation} (pid {nursery.pid}) {how}"
                self.warn(f"{line}; its workers serve on, another nursery is started {_when(nursery.not_before - self.now)}", event="death")

    def generation_failed(self, nursery: Nursery, failure: Failure) -> None:
        """A nursery did not come up, or was lost under a reload."""
        state = self.state
        if nursery.life is not NurseryLife.DOWN:  # it still has to leave
            nursery.life = NurseryLife.FAILED
            nursery.deadline = self.now + limits.BOOT_STOP_S
        if state.stage is Stage.STARTING:
            self.start_failed(failure)
        elif state.roll is not None and state.roll.generation == nursery.generation:
            self.refuse(failure)
        elif state.stage in (Stage.SERVING, Stage.DRAIN_DELAY):
            self.nursery_failed_again(nursery)
            self.out.append(do.Explain(failure.cause, failure.fix, failure.trace))
            when = _when(nursery.not_before - self.now)
            self.warn(f"generation {nursery.generation} cannot fork workers, those it has serve on; next try {when}")
            self.forks_failed(failure)

    def nursery_failed_again(self, nursery: Nursery) -> None:
        healthy = self.now - nursery.ready_at >= limits.HEALTHY_AFTER_S
        nursery.deaths = 1 if healthy else nursery.deaths + 1
        nursery.not_before = self.now + backoff_s(nursery.deaths)

    # -- signals ---------------------------------------------------------------------------------------------------------

    def signalled(self, event: on.Signalled) -> None:
        match event.signum:
            case Signals.SIGTERM:
                self.stop_signal(event.signum, self.state.rules.graceful_timeout_s)
            case Signals.SIGINT | Signals.SIGQUIT:
                self.stop_signal(event.signum, min(self.state.rules.graceful_timeout_s, limits.INTERRUPT_GRACE_S))
            case Signals.SIGHUP:
                self.reload("SIGHUP")
            case Signals.SIGTTIN:
                self.scale("SIGTTIN", self.state.target + 1)
            case Signals.SIGTTOU:
                self.scale("SIGTTOU", self.state.target - 1)
            case Signals.SIGUSR2:
                self.upgrade("SIGUSR2")
            case Signals.SIGUSR1:
                self.out.append(do.ReopenLogs())
                self.out.extend(do.Order(worker_id, channel.ReopenLogs()) for worker_id in self.state.workers)
                self.log("SIGUSR1: log files that have been moved away are opened anew")
            case _:
                self.log(f"{event.signum.name}: nothing is done on it")

    # == failures ========================================================================================================

    def silent_failure(self, worker: Worker, how: str, event: on.WorkerExited) -> Failure:
        """A worker that was gone before it was ready, without a word."""
        app = self.state.rules.app
        cause = f"{worker.name} {how} before it was ready."
        if event.status is None or event.status >= 0:
            return Failure(cause, f"Look for os._exit() or exec in what {app} imports or does at startup. {SEE_ALONE}")
        if event.status == -Signals.SIGKILL:
            return Failure(cause, "The kernel kills so when memory runs out; else it was sent by somebody.")
        return Failure(cause, f"A C extension that {app} uses has crashed, or somebody has sent the signal.", event.facts.trace)

    def boot_failed(self, worker: Worker, failure: Failure) -> None:
        """A worker did not become ready. It is on its way out, or gone."""
        state = self.state
        if worker.id in state.workers:
            worker.life = Life.LEAVING
            worker.left_at = self.now
            worker.deadline = self.now + limits.BOOT_STOP_S
        if state.stage is Stage.STOPPING:
            return
        if state.stage is Stage.STARTING:
            self.start_failed(failure)
        elif state.roll is not None and worker.generation == state.roll.generation:
            self.refuse(failure)
        else:
            self.seat_failed(worker.seat, 0.0)
            self.count_restart(worker.seat, "boot_failed")
            self.boot_failed_for(worker.seat, failure)
            cause = failure.cause.removeprefix(worker.name)
            again = cause == worker.seat.last_cause
            worker.seat.last_cause = cause
            if not again:
                self.out.append(do.Explain(failure.cause, failure.fix, failure.trace))
            reason = ", for the same reason as before" if again else ""
            self.warn(f"{worker.name} did not become ready{reason}; {self.plan(worker.seat)}")

    def start_failed(self, failure: Failure) -> None:
        self.out.append(do.Explain(failure.cause, failure.fix, failure.trace))
        # Some may serve already. All must have gone within the 2 s that a failed start may take.
        self.begin_stop(3, limits.BOOT_STOP_S / 2, limits.BOOT_STOP_S / 2)

    def seat_failed(self, seat: Seat, lived_s: float) -> None:
        seat.deaths = 1 if lived_s >= limits.HEALTHY_AFTER_S else seat.deaths + 1
        seat.not_before = self.now + seat.backoff_s

    def plan(self, seat: Seat) -> str:
        """What follows a death, for the end of its line."""
        state = self.state
        serving = f"{len(state.in_life(Life.READY))} of {state.target} workers serve"
        if seat not in state.seats:
            return serving
        nursery = state.nurseries.get(state.generation)
        if nursery is None or nursery.life is not NurseryLife.READY:
            return f"replaced as soon as there is a nursery, {serving}"
        if self.now >= seat.not_before:
            return f"replaced at once, {serving}"
        return f"{seat.deaths} times in a row, next try in {seat.not_before - self.now:g} s, {serving}"

    # == deadlines =======================================================================================================

    def expire(self) -> None:
        if self.now >= self.state.stop_at:
            grace_s = self.state.rules.graceful_timeout_s
            self.log(f"drain delay over: stopping, workers may finish within {grace_s:g} s; once more to force it")
            self.begin_stop(0, grace_s)
        if self.state.upgrade is not None and self.now >= self.state.upgrade.deadline:
            self.upgrade_expired(self.state.upgrade)
        for worker in list(self.state.workers.values()):
            if self.now >= worker.deadline:
                self.worker_expired(worker)
        for nursery in list(self.state.nurseries.values()):
            if self.now >= nursery.deadline:
                self.out.append(do.StopNursery(nursery.generation, force=True))
                if nursery.life is NurseryLife.STARTING:
                    limit = f"{self.state.rules.boot_timeout_s:g} s"
                    self.generation_failed(nursery, Failure(f"The nursery was not ready within {limit} (boot_timeout).", SEE_ALONE))
                nursery.deadline = math.inf

    def worker_expired(self, worker: Worker) -> None:
        rules = self.state.rules
        self.kill(worker)
        if worker.life is Life.BOOTING and not worker.mute:
            where, trace = worker.boot_stack
            cause = f"{worker.name} was not ready within {rules.boot_timeout_s:g} s (boot_timeout){where}."
            fix = f"Look for what {rules.app} waits for at import or startup, or raise --boot-timeout."
            self.boot_failed(worker, Failure(cause, fix, trace))
        elif worker.life is Life.BOOTING:
            self.boot_failed(worker, Failure(f"{worker.name} has lost its channel before it was ready."))
        elif worker.blocked_s:
            pass  # it did not die of SIGABRT; why it has to has been said
        elif worker.life is Life.READY:
            self.warn(f"{worker.name} has lost its channel and cannot be steered: killed")
        else:
            self.warn(f"{worker.name} has not left {self.now - worker.left_at:.1f} s after it was told to: killed")
        worker.deadline = math.inf  # there is nothing stronger that could follow SIGKILL

    # == towards what ought to be ========================================================================================

    def settle(self) -> None:
        if self.state.stage is Stage.STOPPING:
            self.settle_stop()
        elif self.state.stage in (Stage.STARTING, Stage.SERVING, Stage.DRAIN_DELAY):
            self.settle_nurseries()
            for seat in self.state.seats:
                self.settle_seat(seat)
            self.settle_start()
            self.settle_roll()
            self.settle_wishes()
            self.settle_health()

    def settle_nurseries(self) -> None:
        state = self.state
        for nursery in list(state.nurseries.values()):
            needed = nursery.generation in (state.generation, state.wanted_generation)
            if not needed:
                self.let_go(nursery)
            elif nursery.life is NurseryLife.DOWN and self.now >= nursery.not_before:
                self.start_nursery(nursery.generation, nursery.deaths)

    def let_go(self, nursery: Nursery) -> None:
        """Have a nursery leave after its last worker."""
        state = self.state
        if nursery.life is NurseryLife.DOWN:
            del state.nurseries[nursery.generation]
            return
        if nursery.life is not NurseryLife.LEAVING:
            # One that imports the app hears nothing until that is done, and has no workers yet: it is killed.
            self.out.append(do.StopNursery(nursery.generation, force=nursery.life is not NurseryLife.READY))
            nursery.life = NurseryLife.LEAVING
            nursery.deadline = math.inf
        if nursery.deadline == math.inf and not any(worker.generation == nursery.generation for worker in state.workers.values()):
            nursery.deadline = self.now + limits.KILL_AFTER_S

    def settle_seat(self, seat: Seat) -> None:
        state = self.state
        if state.holder(seat, Life.BOOTING) or self.now < seat.not_before:
            return
        serving = state.holder(seat, Life.READY)
        if serving is None:
            proven = state.roll is not None and state.roll.proven
            self.fork(seat, state.wanted_generation if proven else state.generation)
        elif state.stage is Stage.DRAIN_DELAY:
            return  # whoever dies is replaced, nobody else
        elif (serving.generation != state.wanted_generation or serving.retiring) and state.replacing() < state.rules.max_surge:
            self.fork(seat, state.wanted_generation)

    def settle_start(self) -> None:
        state = self.state
        if state.stage is Stage.STARTING and state.all_serve():
            state.stage = Stage.SERVING
            self.out.append(do.Serving(state.target, self.now - state.began_at))

    def settle_roll(self) -> None:
        state = self.state
        if state.roll is not None:
            serving = [state.holder(seat, Life.READY) for seat in state.seats]
            new = all(worker is not None and worker.generation == state.roll.generation for worker in serving)
            # "Reloaded" is a promise: from here on nobody who connects meets the old code.
            if new and not any(worker.accepts and worker.generation != state.roll.generation for worker in state.workers.values()):
                self.reload_done()
                self.settle_nurseries()
        if state.roll is None and state.reload_again and state.stage is Stage.SERVING:
            state.reload_again = False
            self.begin_roll("reload asked for before")

    def settle_health(self) -> None:
        """Say once that workers are missing for longer than a fork takes, and once that they are all there again."""
        state = self.state
        if state.stage is not Stage.SERVING:
            return
        serving = len([seat for seat in state.seats if state.holder(seat, Life.READY)])
        waiting = any(seat.not_before > self.now and state.holder(seat, Life.READY) is None for seat in state.seats)
        if waiting and not state.degraded:
            state.degraded = True
            self.warn(f"degraded: {serving} of {state.target} workers serve", event="degraded")
        elif state.degraded and serving == state.target:
            state.degraded = False
            self.log(f"no longer degraded: {serving_workers(state.target)}", event="degraded")

    # -- stopping --------------------------------------------------------------------------------------------------------

    def settle_stop(self) -> None:
        state = self.state
        for nursery in list(state.nurseries.values()):
            self.let_go(nursery)
        # A promise, as with a reload: only now does nobody who connects meet this server any more.
        if state.heir_pid and not any(worker.accepts for worker in state.workers.values()):
            self.log(f"upgraded: whoever connects from now on is served by pid {state.heir_pid}")
            state.heir_pid = 0
        if not state.workers and not state.nurseries and state.upgrade is None:
            state.stage = Stage.GONE
            self.log(f"stopped after {span(self.now - state.began_at)}, exit code {state.exit_code}", event="stop")
            self.out.append(do.Exit(state.exit_code))


def _when(delay_s: float) -> str:
    return "at once" if delay_s <= 0 else f"in {delay_s:g} s"


_HANDLERS: dict[type[on.Event], Callable[[_Turn, Any], None]] = {
    on.Start: _Turn.start,
    on.Signalled: _Turn.signalled,
    on.Reload: _Turn.reload_wished,
    on.Scale: _Turn.scale_wished,
    on.Recycle: _Turn.recycle_wished,
    on.Drain: _Turn.drain_wished,
    on.Stop: _Turn.stop_wished,
    on.UpgradeReady: _Turn.upgrade_ready,
    on.UpgradeFailed: _Turn.upgrade_failed,
    on.UpgradeExited: _Turn.upgrade_exited,
    on.TakeOver: _Turn.take_over,
    on.CalledOff: _Turn.called_off,
    on.NurseryReady: _Turn.nursery_ready,
    on.NurseryFailed: _Turn.nursery_failed,
    on.NurseryExited: _Turn.nursery_exited,
    on.WorkerForked: _Turn.worker_forked,
    on.ForkFailed: _Turn.fork_failed,
    on.WorkerReported: _Turn.worker_reported,
    on.LoopBlocked: _Turn.loop_blocked,
    on.BootStack: _Turn.boot_stack,
    on.ChannelClosed: _Turn.channel_closed,
    on.WorkerExited: _Turn.worker_exited,
}
