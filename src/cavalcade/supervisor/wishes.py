"""What people wish for, by a signal or over the control socket: a reload, more or fewer workers, a worker replaced.

A wish only changes what ought to be; the passes of the policy then work towards it, so nothing here takes steps one after the
other. Whoever waits for a wish gets one answer: when what is equals what was wished for, when it has failed, or when the server
stops. A wish that fails is taken back whole, so that the server goes on as it was before.

Two of a kind at a time:

- A reload during a reload is another one, after it: the code may have changed since the first was begun. All that are wished for
  meanwhile are one.
- Of two wishes for a number of workers the later holds; the earlier is answered that it was overtaken.
"""

from __future__ import annotations

from cavalcade.supervisor import commands as do
from cavalcade.supervisor import events as on
from cavalcade.supervisor.commands import Verdict
from cavalcade.supervisor.moves import Failure, Moves, count_workers, serving_workers
from cavalcade.supervisor.state import DrainWish, Life, RecycleWish, Reloaded, ReloadWish, ScaleWish, Seat, Stage, Worker
from cavalcade.worker import channel

WHO = "control socket"
ASKED = "asked for over the control socket"  # why a worker retires; taken back where its successor fails
STOPS = "The server stops."


class Wishes(Moves):
    """The part of a turn that begins wishes and answers them."""

    # -- reload ------------------------------------------------------------------------------------------------------------

    def reload_wished(self, event: on.Reload) -> None:
        self.reload(WHO, ReloadWish(event.request, self.now))

    def reload(self, who: str, wish: ReloadWish | None = None) -> None:
        state = self.state
        if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING):
            self.log(f"{who}: no reload, the server stops")
            if wish is not None:
                self.answer(wish, Verdict.STOPPING, STOPS)
            return
        if wish is not None:
            state.wishes.append(wish)
        if state.stage is not Stage.SERVING:
            state.reload_again = True
            self.log(f"{who}: a reload follows when the start is done")
        elif state.roll is not None:
            state.reload_again = True
            self.log(f"{who}: generation {state.roll.generation} is on its way; one more reload follows when it is done")
        else:
            self.begin_roll(who)

    def reload_done(self) -> None:
        """Every worker is of the new generation."""
        state = self.state
        assert state.roll is not None
        roll, state.roll = state.roll, None
        state.generation = roll.generation
        text = f"reloaded in {self.now - roll.began_at:.1f} s: {count_workers(state.target)} of generation {roll.generation}"
        self.log(text, event="reload")
        state.last_reload = Reloaded(True, roll.generation, text, self.now)
        self.answer_reload(roll.generation, Verdict.DONE, text)

    def refuse(self, failure: Failure) -> None:
        """The new code does not work: everything of it goes, the old stays."""
        state = self.state
        assert state.roll is not None
        refused, state.roll = state.roll.generation, None
        cause = f"Reload refused: {failure.cause}"
        self.out.append(do.Explain(cause, failure.fix, failure.trace, "reload"))
        self.warn(f"generation {refused} is removed, generation {state.generation} serves on; correct the app and send SIGHUP again")
        for worker in state.in_life(Life.BOOTING):
            if worker.generation == refused:
                self.send_away(worker, 0.0, "the reload is refused")
        state.last_reload = Reloaded(False, refused, cause, self.now)
        self.answer_reload(refused, Verdict.FAILED, cause, failure)

    def answer_reload(self, generation: int, verdict: Verdict, text: str, failure: Failure | None = None) -> None:
        for wish in list(self.state.wishes):
            if isinstance(wish, ReloadWish) and wish.generation == generation:
                self.answer(wish, verdict, text, failure)

    # -- scale -------------------------------------------------------------------------------------------------------------

    def scale_wished(self, event: on.Scale) -> None:
        workers = self.state.target + event.workers if event.relative else event.workers
        self.scale(WHO, workers, ScaleWish(event.request, self.now, workers))

    def scale(self, who: str, workers: int, wish: ScaleWish | None = None) -> None:
        """Want so many workers from now on."""
        state = self.state
        verdict, refusal = self.why_not_scale(workers)
        if refusal:
            self.warn(f"{who}: refused, {refusal}", event="scale")
            if wish is not None:
                self.answer(wish, verdict, STOPS if verdict is Verdict.STOPPING else f"{workers} workers: {refusal}.")
            return
        for other in [each for each in state.wishes if isinstance(each, ScaleWish)]:
            self.answer(other, Verdict.REJECTED, f"Overtaken: {count_workers(workers)} are wanted now.")
        before = state.target
        for _ in range(workers - before):
            self.add_seat()
        leaving = [self.remove_youngest() for _ in range(before - workers)]
        names = ", ".join(worker.name for worker in leaving if worker is not None)
        self.log(f"{who}: {count_workers(workers)} wanted, {before} before{f'; drains: {names}' if names else ''}", event="scale")
        if wish is not None:
            wish.added = max(0, workers - before)
            state.wishes.append(wish)

    def why_not_scale(self, workers: int) -> tuple[Verdict, str]:
        state = self.state
        if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING):
            return Verdict.STOPPING, "the server stops"
        if state.stage is Stage.NEW:
            return Verdict.REJECTED, "the server has not begun to start"
        if workers < 1:
            return Verdict.REJECTED, "one worker is the least; SIGTERM stops the server"
        if workers > state.rules.workers_max:
            return Verdict.REJECTED, f"{state.rules.workers_max} is the most workers there can be"
        return Verdict.DONE, ""

    def remove_youngest(self) -> Worker | None:
        """Want one fewer. Returns the worker that served in the seat."""
        seat = max(self.state.seats, key=self.youth)
        serving = self.state.holder(seat, Life.READY)
        self.remove_seat(seat)
        return serving

    def youth(self, seat: Seat) -> tuple[bool, float, int]:
        """Greatest for the seat that is missed least: one without a serving worker or with a lost one, else that of the youngest."""
        worker = self.state.holder(seat, Life.READY)
        missed = worker is not None and not worker.mute
        return (not missed, worker.forked_at if worker else 0.0, seat.number)

    def scale_failed(self, wish: ScaleWish, failure: Failure) -> None:
        """Take it back: as many seats as were added for it go, first those in which nobody serves."""
        for _ in range(wish.added):
            self.remove_youngest()
        self.warn(f"{WHO}: {count_workers(wish.workers)} are not to be had, {self.state.target} wanted as before", event="scale")
        self.answer(wish, Verdict.FAILED, f"Scaling refused: {failure.cause}", failure)

    # -- recycle -----------------------------------------------------------------------------------------------------------

    def recycle_wished(self, event: on.Recycle) -> None:
        state = self.state
        wish = RecycleWish(event.request, self.now, frozenset())
        if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING):
            self.answer(wish, Verdict.STOPPING, STOPS)
            return
        workers = state.in_life(Life.READY)
        if event.worker_id is not None:
            workers = [worker for worker in workers if worker.id == event.worker_id]
        if not workers:
            self.answer(wish, Verdict.REJECTED, self.why_not_recycle(event.worker_id))
            return
        for worker in workers:
            worker.retiring = worker.retiring or ASKED
        wish.worker_ids = frozenset(worker.id for worker in workers)
        state.wishes.append(wish)
        names = ", ".join(worker.name for worker in workers)
        self.log(f"{WHO}: replacing {names}; each serves on until its successor is ready", event="recycle")

    def why_not_recycle(self, worker_id: int | None) -> str:
        if worker_id is None:
            return "No worker serves yet."
        worker = self.state.workers.get(worker_id)
        if worker is None:
            return f"There is no worker {worker_id}."
        return (
            f"{worker.name} boots and is as fresh as its successor would be." if worker.life is Life.BOOTING else f"{worker.name} leaves."
        )

    def recycle_failed(self, wish: RecycleWish, failure: Failure) -> None:
        self.answer(wish, Verdict.FAILED, f"Replacement refused: {failure.cause}", failure)
        others = [worker_id for other in self.state.wishes if isinstance(other, RecycleWish) for worker_id in other.worker_ids]
        for worker_id in wish.worker_ids.difference(others):
            worker = self.state.workers.get(worker_id)
            if worker is not None and worker.retiring == ASKED:
                worker.retiring = ""

    # -- out of rotation ---------------------------------------------------------------------------------------------------

    def drain_wished(self, event: on.Drain) -> None:
        """Not ready for whoever asks, so that no new clients are sent here; whoever comes all the same is served."""
        state = self.state
        wish = DrainWish(event.request, self.now)
        if state.stage in (Stage.DRAIN_DELAY, Stage.STOPPING):
            self.answer(wish, Verdict.STOPPING, STOPS)
        elif state.stage is not Stage.SERVING:
            self.answer(wish, Verdict.REJECTED, "The server still starts, and is not ready anyway.")
        elif state.withdrawn is not event.off:
            self.answer(wish, Verdict.DONE, "It is in rotation already." if event.off else "It is out of rotation already.")
        else:
            state.withdrawn = not event.off
            for worker in state.in_life(Life.READY):
                self.out.append(do.Order(worker.id, channel.AnnounceStop(off=event.off)))
            text = "back in rotation: ready" if event.off else "out of rotation: not ready any more, serving on; clients are asked to leave"
            self.log(f"{WHO}: {text}", event="rotation")
            self.answer(wish, Verdict.DONE, text[0].upper() + text[1:] + ".")

    # -- answers -----------------------------------------------------------------------------------------------------------

    def boot_failed_for(self, seat: Seat, failure: Failure) -> None:
        """A worker of the code that serves did not become ready: whoever waits for one is told, and gets what was before."""
        for wish in list(self.state.wishes):
            if isinstance(wish, ScaleWish):
                self.scale_failed(wish, failure)
            elif isinstance(wish, RecycleWish):
                serving = self.state.holder(seat, Life.READY)
                if serving is not None and serving.id in wish.worker_ids:
                    self.recycle_failed(wish, failure)

    def forks_failed(self, failure: Failure) -> None:
        """No worker of the code that serves can be forked."""
        for wish in list(self.state.wishes):
            if isinstance(wish, ScaleWish):
                self.scale_failed(wish, failure)
            elif isinstance(wish, RecycleWish):
                self.recycle_failed(wish, failure)

    def settle_wishes(self) -> None:
        """Answer what has come true. (Reloads are answered where they end.)"""
        state = self.state
        if not state.wishes or not state.all_serve():
            return
        for wish in list(state.wishes):
            if isinstance(wish, ScaleWish):
                self.answer(wish, Verdict.DONE, serving_workers(state.target))
            elif isinstance(wish, RecycleWish):
                old = [state.workers[worker_id] for worker_id in wish.worker_ids if worker_id in state.workers]
                if not any(worker.accepts for worker in old):
                    self.answer(wish, Verdict.DONE, f"{count_workers(len(wish.worker_ids))} replaced")

    def give_up_wishes(self) -> None:
        """The server stops: nothing of what was wished for comes true any more."""
        self.state.roll = None
        self.state.reload_again = False
        for wish in list(self.state.wishes):
            self.answer(wish, Verdict.STOPPING, STOPS)
