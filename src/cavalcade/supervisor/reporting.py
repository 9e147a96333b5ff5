"""What is told of the server's numbers: noted every second, rendered for `/metrics`, pushed to StatsD."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from cavalcade import limits
from cavalcade.board import layout
from cavalcade.board.ledger_words import Sums
from cavalcade.config.options import Settings
from cavalcade.net.tls import Tls
from cavalcade.observe import metrics
from cavalcade.observe.app_metrics import AppMetrics
from cavalcade.observe.metrics import Values
from cavalcade.observe.statsd import StatsD
from cavalcade.supervisor import measures
from cavalcade.supervisor.app_directory import AppDirectory
from cavalcade.supervisor.heritage import Counts
from cavalcade.supervisor.journal import Journal
from cavalcade.supervisor.status import Sources, Status
from cavalcade.supervisor.upgrade import Holdings

log = logging.getLogger("cavalcade")


class Reporting:
    """Works from `start` to `stop`. `take_status` is the supervisor's."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        tls: Tls | None,
        take_status: Callable[[], Status],
        environ: Mapping[str, str],
        holdings: Holdings,
    ) -> None:
        self._sources = sources
        self._loop = loop
        self._journal = journal
        self._logged_to = journal.last
        self._tls = tls
        self._take_status = take_status
        self._sweep_at = 0.0
        self.app_directory = AppDirectory.maybe_make(environ, holdings.app_metrics) if settings.app_metrics else None
        holdings.app_metrics = self.app_directory.handed if self.app_directory is not None else ""
        self._app_metrics = AppMetrics(self.app_directory.path) if self.app_directory is not None else None
        self._statsd = StatsD(settings.statsd_host, settings.statsd_prefix, settings.dogstatsd_tags, loop) if settings.statsd_host else None

    def start(self) -> None:
        """Note the counts, and go on until the loop is closed."""
        self._loop.call_later(limits.RATE_S, self.start)
        now = self._loop.time()
        try:
            self._note(now)
            if self._statsd is not None:
                self._push(self._statsd)
            if self._app_metrics is not None and now >= self._sweep_at:
                self._sweep_at = now + limits.APP_SWEEP_S
                self._app_metrics.sweep()
        except Exception:
            log.exception("metrics: failed")

    def stop(self, *, owned: bool) -> None:
        """The last push. What the server owns is removed; else another goes on with it."""
        if self._statsd is not None:
            if self._statsd.connected:
                self._push(self._statsd)
            self._statsd.close()
        if self.app_directory is not None:
            (self.app_directory.remove if owned else self.app_directory.close)()

    def inherit(self, counts: Counts) -> None:
        """Another server tells what it has counted."""
        self._sources.heritage.take(counts)
        self._sources.recent.forget_all()
        if self._statsd is not None:
            self._statsd.rebase()

    def render(self, accept: str) -> tuple[bytes, str]:
        """For `/metrics`: what this `Accept` header asks for, with its content type."""
        return metrics.render(self._measure(self._sources.board.sums()), accept, self._app_metrics)

    def _measure(self, sums: Sums) -> Values:
        identities = self._tls.identities if self._tls is not None else []
        expiries = {each.certfile: each.certificate.not_after for each in identities if each.certificate is not None}
        return measures.measure(self._take_status(), sums, self._sources.listeners, expiries)

    def _note(self, now: float) -> None:
        board = self._sources.board
        workers = {
            worker.id: Sums(board.ledger(worker.slot).words())
            for worker in self._sources.state.workers.values()
            if board.row(worker.slot).get(layout.WORKER_ID) == worker.id
        }
        self._sources.recent.note(workers, board.sums(), now)

    def _push(self, statsd: StatsD) -> None:
        entries = self._journal.since(self._logged_to)
        self._logged_to = self._journal.last
        sums = self._sources.board.sums()
        statsd.push(sums, self._measure(sums), Counter(entry.level for entry in entries))
