"""The drills over TLS. Its connections cannot be handed over, so a worker that leaves has to close them: with `Connection: close` on an
answer, or, when one has been idle for a moment, by TLS's own farewell, which a client sees before it uses the connection again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from drill import RELOAD_S, Drill
from subjects import Running

from cavalcade.testing.certificates import Authority
from cavalcade.testing.traffic import Traffic, deploy

RELOADS = 5
RENEWALS = 5


@contextlib.contextmanager
def serving(drill: Drill, *options: str) -> Iterator[tuple[Running, Traffic, Authority]]:
    """A server that speaks HTTPS, with traffic on it."""
    with tempfile.TemporaryDirectory(prefix="faults-tls-") as folder:
        authority = Authority(Path(folder))
        with drill.server(*authority.pair.flags, *options) as server:
            server.trust = authority.client()
            with drill.traffic(server, trust=authority.file) as traffic:
                yield server, traffic, authority


def reload(drill: Drill) -> None:
    """A new release, SIGHUP, until only the new one answers; again and again."""
    with serving(drill) as (server, _, _):
        done = 0
        for number in range(2, RELOADS + 2):
            deploy(server.folder, f"v{number}")
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("reloaded in", RELOAD_S, after=mark)
            done += server.wait_version(f"v{number}", RELOAD_S)
            time.sleep(drill.options.seconds / 10)
        drill.outcome.facts.append(f"{done} reloads")
        drill.require(done == RELOADS, f"only {done} of {RELOADS} reloads were followed")


def recycle(drill: Drill) -> None:
    """Workers are replaced after about 300 requests each, for a while."""
    with serving(drill, *drill.subject.recycle) as (_, traffic, _):
        time.sleep(drill.options.seconds)
    seen = len(traffic.report.pids)
    drill.outcome.facts.append(f"{seen} workers")
    drill.require(seen > 2 * drill.options.workers, f"only {seen} workers were ever seen: nothing was recycled")


def renew(drill: Drill) -> None:
    """The certificate is replaced again and again, once by one that does not fit its key."""
    with serving(drill) as (server, _, authority):
        for number in range(RENEWALS):
            mark = server.mark()
            if number == 2:
                os.replace(authority.issue("other").keyfile, authority.pair.keyfile)
                server.wait_line("TLS: the new files are not taken up", RELOAD_S, after=mark)
            authority.pair.replace_by(authority.issue(f"next{number}"))
            server.wait_line("TLS: new certificate", RELOAD_S, after=mark)
            time.sleep(drill.options.seconds / 10)
    drill.outcome.facts.append(f"{RENEWALS} renewals, and a bad pair that was refused")


DRILLS: dict[str, Callable[[Drill], None]] = {"tls-reload": reload, "tls-recycle": recycle, "tls-renew": renew}
