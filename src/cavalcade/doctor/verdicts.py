"""What the numbers of a path mean. Pure: numbers in, words out.

The overlap is N times the latency of one request alone, over the time that N at once took: N where they were all in progress together, 1
where each waited for the one before. Why it is small is told apart by what the server has seen meanwhile: a loop that did not turn, and
in which line; a pool without a free thread; a CPU that was busy all the time; or none of these, and then it is something in the app
or behind it that lets only so many through.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cavalcade.doctor.findings import Finding, Gravity
from cavalcade.doctor.probe import PATIENCE_S, Measured
from cavalcade.doctor.subject import Stall

TOO_FAST_S = 0.005  # below it the CPU time of N requests is as long as what they wait for: 50 of 1 ms each take 50 ms, async or not
OVERLAPS = 0.5  # the share of N from which on they are said to overlap
OVERLAP_LEAST = (
    2.0  # ... or so many do, where each takes no more than WORK_S beyond that: it is what a request costs, not what it waits for
)
WORK_S = 0.002
BLOCKED = 0.25  # the share of a request's latency for which it stops the loop, from which on it is said to block
CPU_BOUND = 0.75  # the share of the time for which the worker's CPU was busy

_ANY_PATH = "Give the doctor a path that answers: --path, --method, --data and --header 'Name: value' (Authorization, Host) say which"


class Verdict(enum.Enum):
    ASYNC = "async"
    BLOCKS = "blocks the loop"
    THREADS = "limited by threads"
    CPU = "limited by the CPU"
    LIMITED = "limited by something else"
    TOO_FAST = "too fast to tell"
    ENDLESS = "does not end"
    FAILS = "fails"
    REFUSED = "refused"


@dataclass(frozen=True)
class Judged:
    """A path's verdict. `words` say it in full."""

    measured: Measured
    verdict: Verdict
    words: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Kind:
    """What is known of how the app is called. `wsgi_threads` is 0 for an ASGI app, and for WSGI on the loop's own thread."""

    wsgi_threads: int = 0
    threaded: frozenset[str] = frozenset()  # paths whose endpoint is a plain function


def judge(measured: Measured, kind: Kind) -> Judged:
    """The verdict over one path."""
    for rule in (_unanswered, _failed_together, _too_fast, _pool_full, _blocked, _in_threads, _cpu_bound, _overlaps):
        judged = rule(measured, kind)
        if judged is not None:
            return judged
    return _limited(measured)


def _unanswered(measured: Measured, _: Kind) -> Judged | None:
    answer, name = measured.answer, str(measured.request)
    if answer.status >= 500:
        why = f": {measured.failure}" if measured.failure else ""
        words = f"answers {answer.status}{why}"
        return Judged(
            measured, Verdict.FAILS, words, (Finding("path", Gravity.PROBLEM, f"{name} {words}.", "The traceback is in the log"),)
        )
    if answer.status >= 400:
        words = f"answers {answer.status}, so there is nothing to measure"
        return Judged(measured, Verdict.REFUSED, words, (Finding("path", Gravity.NOTE, f"{name} {words}.", _ANY_PATH),))
    if answer.complete:
        return None
    if answer.status:
        words = f"a response that is {answer.error}: it began after {seconds(answer.began_s)}; a stream is not measured"
        return Judged(measured, Verdict.ENDLESS, words)
    hangs = "See what it waits for; --request-timeout gives it up with a 504, and names the line that it awaits"
    fix = hangs if answer.seconds >= PATIENCE_S else "Its worker died, or cut it off: what the server says of it is among the findings"
    return Judged(measured, Verdict.FAILS, answer.error, (Finding("path", Gravity.PROBLEM, f"{name} has no answer: {answer.error}.", fix),))


def _failed_together(measured: Measured, _: Kind) -> Judged | None:
    """Alone it was answered, together some were not."""
    refused = {status: count for status, count in measured.statuses.items() if status >= 500}
    if not refused and not measured.errors:
        return None
    parts = [f"{count} were answered {status}" for status, count in sorted(refused.items())] + list(measured.errors)
    words = f"fails under load: of {measured.requests} at once {'; '.join(parts)}"
    why = f" ({measured.failure})" if measured.failure else ""
    fix = "Look for what they share: connections of a pool, a file, a global; or for a limit (limit_concurrency, request_timeout)"
    return Judged(measured, Verdict.FAILS, words, (Finding("path", Gravity.PROBLEM, f"{measured.request} {words}{why}.", fix),))


def _too_fast(measured: Measured, _: Kind) -> Judged | None:
    if measured.alone_s >= TOO_FAST_S:
        return None
    each = measured.wall_s / measured.requests
    words = f"too fast to tell: it waits for nothing that could overlap, {seconds(each)} each of {measured.requests} at once"
    return Judged(measured, Verdict.TOO_FAST, words)


def _pool_full(measured: Measured, _: Kind) -> Judged | None:
    pool = measured.pool
    if pool is None:
        return None
    size = "one thread" if pool.threads == 1 else f"{pool.threads} threads"
    words = f"limited by a pool of {size} ({pool.name})"
    text = f"{measured.request} is {words}: of {measured.requests} at once the others waited{pool.where}."
    return Judged(measured, Verdict.THREADS, words, (Finding("threads", Gravity.ADVICE, text, pool.fix),))


def _blocked(measured: Measured, _: Kind) -> Judged | None:
    longest, each_s = _stalls(measured)
    if longest is None or each_s < BLOCKED * measured.alone_s:
        return None
    words = f"blocks the loop at {longest.where}"
    return Judged(measured, Verdict.BLOCKS, words, (_stall_finding(measured, longest.where, longest.ms, each_s, Gravity.PROBLEM),))


def _stalls(measured: Measured) -> tuple[Stall | None, float]:
    """The longest stall whose line is known, and for how long each request stopped the loop; a garbage collection is nobody's."""
    stalls = [stall for stall in measured.stalls if not stall.gc]
    longest = max((stall for stall in stalls if stall.where), key=lambda stall: stall.ms, default=None)
    return longest, sum(stall.ms for stall in stalls) / 1000 / measured.requests


def _stall_finding(measured: Measured, where: str, ms: int, each_s: float, gravity: Gravity) -> Finding:
    text = f"{measured.request} blocks the event loop at {where}, {seconds(min(each_s, measured.alone_s))} for each request: with "
    text += f"{measured.requests} at once the worker did nothing else for up to {seconds(ms / 1000)}."
    fix = (
        "Await it (an async client or driver, asyncio.sleep), or take it off the loop: await asyncio.to_thread(...), a plain `def` endpoint"
    )
    return Finding("stall", gravity, text, fix)


def _in_threads(measured: Measured, kind: Kind) -> Judged | None:
    threads = kind.wsgi_threads
    if threads:
        size = "one app thread" if threads == 1 else f"{threads} app threads"
        words = f"limited by {size} a worker (WSGI, --threads)"
        if measured.overlap >= OVERLAPS * measured.requests:
            return Judged(measured, Verdict.THREADS, f"in threads: {size} were enough")
        text = f"{measured.request} is {words}: of {measured.requests} at once so many ran."
        fix = f"--threads {max(8, 2 * threads)} for an app that waits (it must be thread-safe), or more workers"
        return Judged(measured, Verdict.THREADS, words, (Finding("threads", Gravity.ADVICE, text, fix),))
    if measured.request.path.partition("?")[0] in kind.threaded:
        words = "in threads: a plain `def` endpoint, of which the framework runs so many at a time as its pool has threads (AnyIO's: 40)"
        return Judged(measured, Verdict.THREADS, words)
    return None


def _cpu_bound(measured: Measured, _: Kind) -> Judged | None:
    if measured.overlap >= OVERLAPS * measured.requests or measured.cpu_s < CPU_BOUND * measured.wall_s:
        return None
    each = seconds(measured.cpu_s / measured.requests)
    words = f"limited by the CPU: {each} of it for each request, and a worker has one"
    fix = "More workers (--workers auto), up to one for each CPU; or less work for a request"
    return Judged(measured, Verdict.CPU, words, (Finding("cpu", Gravity.ADVICE, f"{measured.request} is {words}.", fix),))


def _overlaps(measured: Measured, _: Kind) -> Judged | None:
    more_s = (measured.wall_s - measured.alone_s) / measured.requests
    if measured.overlap < OVERLAPS * measured.requests and (measured.overlap < OVERLAP_LEAST or more_s > WORK_S):
        return None
    longest, each_s = _stalls(measured)
    if longest is None or each_s < TOO_FAST_S:
        return Judged(measured, Verdict.ASYNC, "async")
    found = _stall_finding(measured, longest.where, longest.ms, each_s, Gravity.ADVICE)
    return Judged(measured, Verdict.ASYNC, f"async, but for {seconds(each_s)} a request at {longest.where}", (found,))


def _limited(measured: Measured) -> Judged:
    """Neither the loop nor a pool nor the CPU."""
    many = "one at a time" if measured.overlap < 1.5 else f"about {measured.overlap:.0f} at a time"
    words = f"{many}, though the loop was free"
    text = f"{measured.request} lets {words}: {measured.requests} at once took {seconds(measured.wall_s)}, one {seconds(measured.alone_s)}."
    fix = "Look for what they wait for in turn: a lock, a semaphore, a small connection pool, or a service behind the app that is no faster"
    return Judged(measured, Verdict.LIMITED, words, (Finding("limited", Gravity.ADVICE, text, fix),))


def seconds(value: float) -> str:
    """A time with three digits: 0.82 ms, 15.3 ms, 1.02 s."""
    if value < 1:
        ms = value * 1000
        return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
