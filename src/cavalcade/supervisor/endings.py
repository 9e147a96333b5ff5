"""How a server ends: because it was told to, at once or after its `drain_delay`, or because another takes its place.

An order to stop is an event like any other. The first begins a drain, the second cancels what is in flight, the third kills.
"""

from __future__ import annotations

import math
from signal import Signals

from cavalcade import limits
from cavalcade.observe.deaths import describe_exit
from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor.moves import count_workers
from cavalcade.supervisor.state import Life, Stage, Upgrade
from cavalcade.supervisor.wishes import WHO, Wishes
from cavalcade.worker import channel


class Endings(Wishes):
    """The part of a turn that stops the server, or has another take over."""

    # -- told to stop ----------------------------------------------------------------------------------------------------

    def stop_signal(self, signum: Signals, grace_s: float) -> None:
        state = self.state
        echo = state.last_stop[0] == signum and self.now - state.last_stop[1] < limits.SIGNAL_ECHO_S
        if echo:
            return
        state.last_stop = (signum, self.now)
        state.stop_signals += 1
        if state.stop_signals == 1:
            if state.stage is not Stage.STOPPING:  # a start that failed stops already
                self.first_stop(signum.name, grace_s, signum is Signals.SIGTERM)
        elif state.stage is Stage.DRAIN_DELAY:
            state.stop_signals = 1
            self.log(f"{signum.name}: drain delay cut short, stopping; workers may finish within {grace_s:g} s, once more to force it")
            self.begin_stop(0, grace_s)
        elif state.stop_signals == 2:
            self.warn(f"{signum.name} again: requests in flight are cancelled; once more to kill")
            state.exit_code = state.exit_code or 1
            reserve_s = min(state.rules.graceful_timeout_s * limits.SHUTDOWN_RESERVE, limits.SHUTDOWN_RESERVE_MAX_S)
            for worker in state.workers.values():
                self.out.append(do.Order(worker.id, channel.Stop()))
                worker.deadline = min(worker.deadline, self.now + reserve_s + limits.KILL_AFTER_S)
        else:
            self.warn(f"{signum.name} again: killing {count_workers(len(state.workers))}")
            for worker in state.workers.values():
                worker.deadline = self.now

    def stop_wished(self, _: on.Stop) -> None:
        state = self.state
        if state.stage not in (Stage.DRAIN_DELAY, Stage.STOPPING):
            state.stop_signals += 1  # a signal after this is the second
            self.first_stop(WHO, state.rules.graceful_timeout_s, True)

    def first_stop(self, who: str, grace_s: float, may_delay: bool) -> None:
        state = self.state
        if may_delay and state.rules.drain_delay_s and state.stage is Stage.SERVING:
            self.begin_drain_delay(who)
        else:
            count = len(state.in_life(Life.READY))
            again = "SIGTERM" if who == WHO else "once more"
            self.log(f"{who}: stopping, {count_workers(count)} may finish within {grace_s:g} s; {again} to force it", event="stop")
            self.begin_stop(0, grace_s)

    def begin_drain_delay(self, who: str) -> None:
        """Not ready any more for whoever asks; but those who have not asked yet still send us clients, and are served."""
        state = self.state
        state.stage = Stage.DRAIN_DELAY
        state.stop_at = self.now + state.rules.drain_delay_s
        self.log(f"{who}: draining, still serving for {state.rules.drain_delay_s:g} s (drain_delay); SIGTERM to stop now", event="stop")
        for worker in state.in_life(Life.BOOTING):
            if worker.generation != state.generation:
                self.send_away(worker, 0.0, "the server stops")
        for worker in state.in_life(Life.READY):
            self.out.append(do.Order(worker.id, channel.AnnounceStop()))
        self.give_up_wishes()

    def begin_stop(self, code: int, grace_s: float, kill_after_s: float = limits.KILL_AFTER_S) -> None:
        """Everything goes from here."""
        state = self.state
        state.stage = Stage.STOPPING
        state.stop_at = math.inf
        state.exit_code = code
        self.give_up_wishes()
        if state.upgrade is not None and not state.upgrade.failed:
            state.upgrade.failed = True
            state.upgrade.deadline = self.now + grace_s + kill_after_s
            self.out.append(do.StopUpgrade(together=True))
        for worker in list(state.workers.values()):
            self.send_away(worker, grace_s, "the server stops", kill_after_s)

    # -- upgrade ---------------------------------------------------------------------------------------------------------

    def upgrade(self, who: str) -> None:
        state = self.state
        why = ""
        if state.rules.is_init:
            why = "this is pid 1, and a container ends with it: start a new one, or send SIGHUP for new code of the app"
        elif state.upgrade is not None:
            why = "the new server that failed is still leaving" if state.upgrade.failed else "an upgrade is on its way already"
        elif state.shared or state.stage is not Stage.SERVING:
            why = "the server stops" if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING) else "the server still starts"
        elif state.roll is not None:
            why = "a reload is on its way"
        if why:
            self.warn(f"{who}: refused, {why}", event="upgrade")
            return
        state.upgrade = Upgrade(self.now + 2 * state.rules.boot_timeout_s + limits.UPGRADE_START_S)
        self.log(f"{who}: upgrading, a new server starts on the same sockets; this one serves meanwhile", event="upgrade")
        self.out.append(do.StartUpgrade())

    def upgrade_ready(self, event: on.UpgradeReady) -> None:
        state = self.state
        if state.upgrade is None or state.upgrade.failed:
            return
        state.upgrade = None
        state.shared = True
        state.heir_pid = event.pid
        self.log(f"the new server, pid {event.pid}, is ready and takes over; this one drains", event="upgrade")
        self.out.append(do.HandOver())
        self.begin_stop(0, state.rules.graceful_timeout_s)

    def upgrade_failed(self, event: on.UpgradeFailed) -> None:
        upgrade = self.state.upgrade
        if upgrade is None or upgrade.failed:
            return
        upgrade.failed = True
        upgrade.deadline = self.now + self.state.rules.graceful_timeout_s + limits.KILL_AFTER_S
        self.out.append(do.Explain(f"Upgrade refused: {event.cause}", event.fix, event.trace, "upgrade"))
        self.log("the new server is removed, this one serves on; SIGUSR2 tries again")
        self.out.append(do.StopUpgrade())

    def upgrade_exited(self, event: on.UpgradeExited) -> None:
        upgrade, self.state.upgrade = self.state.upgrade, None
        if upgrade is not None and not upgrade.failed:
            cause = f"Upgrade refused: the new server {describe_exit(event.status)} before it was ready."
            self.out.append(do.Explain(cause, "What it said stands above this line.", event="upgrade"))
            self.log("this server serves on; SIGUSR2 tries again")

    def upgrade_expired(self, upgrade: Upgrade) -> None:
        if upgrade.failed:
            upgrade.deadline = math.inf
            self.out.append(do.StopUpgrade(force=True))
        else:
            limit_s = 2 * self.state.rules.boot_timeout_s + limits.UPGRADE_START_S
            self.upgrade_failed(on.UpgradeFailed(f"the new server was not ready within {limit_s:g} s."))

    def take_over(self, event: on.TakeOver) -> None:
        self.state.shared = False
        self.log(f"upgrade: took over from pid {event.old_pid}", event="upgrade")
        for worker in self.state.workers.values():
            self.out.append(do.Order(worker.id, channel.Sole()))

    def called_off(self, event: on.CalledOff) -> None:
        state = self.state
        state.shared = False
        if state.stage is not Stage.STOPPING:
            self.warn(f"upgrade: the server that was to be upgraded, pid {event.old_pid}, has stopped; this one stops too")
            self.begin_stop(1, state.rules.graceful_timeout_s)
