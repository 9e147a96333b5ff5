"""What will hurt, each as a function from the facts to a finding, or None where all is well. Pure, so that each is a line in a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from cavalcade.doctor.facts import Facts
from cavalcade.doctor.findings import Finding, Gravity

DESCRIPTORS = 4096  # below it a few thousand idle clients of one worker use them up
MEMORY_FULL = 0.8  # the share of the memory from which on there is no room for a reload or a large request
SUPERVISION_BYTES = 60 << 20  # supervisor and nursery
SLOW_IMPORT_S = 5.0
DOCKER_STOP_S = 10.0
_MIB = 1 << 20

# How long they keep an idle connection to a server before they reuse it, by default. Below it, they may write to one that we close.
PROXIES = (
    ("AWS ALB", 60),
    ("nginx", 60),
    ("Heroku", 90),
    ("Traefik", 90),
    ("Caddy", 120),
    ("Google Cloud", 600),
    ("Envoy", 3600),
)
_MOST = 60.0  # of those that no further thought is given to


def all_of(facts: Facts) -> Iterator[Finding]:
    """Every finding, in no order."""
    for check in CHECKS:
        finding = check(facts)
        if finding is not None:
            yield finding
    yield from _complaints(facts)


def _threads_before_fork(facts: Facts) -> Finding | None:
    if not facts.forked_threads:
        return None
    text = f"With --preload the import starts threads that no worker has, and locks they hold stay held: {facts.forked_threads}."
    return Finding("preload", Gravity.PROBLEM, text, "Start them in the lifespan, which runs in each worker; or leave --preload out")


def _proxy_trust(facts: Facts) -> Finding | None:
    trusted = facts.settings.trusted_proxies
    if "*" in trusted and facts.public:
        text = "trusted_proxies is *, and it listens on more than the loopback interface: every client may say who it is, and over https."
        return Finding("proxy-trust", Gravity.PROBLEM, text, "Name the proxies: --trusted-proxies 10.0.0.0/8; see docs/proxies.md")
    if facts.public and not facts.settings.ssl_certfile and set(trusted) <= {"loopback", "unix", "127.0.0.1", "::1"}:
        text = "X-Forwarded-For and -Proto are believed of this machine only. Behind a proxy elsewhere, every client has its address."
        return Finding("proxy-trust", Gravity.NOTE, text, "--trusted-proxies with the proxy's address or network, where there is one")
    return None


def _certificate(facts: Facts) -> Finding | None:
    if not facts.tls_warnings:
        return None
    fix = "Put the renewed file in its place: it is taken up while serving"
    return Finding("certificate", Gravity.PROBLEM, "; ".join(facts.tls_warnings) + ".", fix)


def _memory(facts: Facts) -> Finding | None:
    workers = int(facts.settings.workers)
    needed = workers * facts.rss + SUPERVISION_BYTES
    limit, whose = facts.memory_total, "the machine has"
    if facts.memory_limit is not None and facts.memory_limit < limit:
        limit, whose = facts.memory_limit, "its control group allows"
    if not facts.rss or not limit or needed <= MEMORY_FULL * limit:
        return None
    shared = ", less what --preload shares" if facts.settings.preload else ""
    text = f"{_workers(workers)} of {facts.rss // _MIB} MiB need about {needed // _MIB} MiB{shared}; {whose} {limit // _MIB} MiB."
    fits = max(1, math.floor((MEMORY_FULL * limit - SUPERVISION_BYTES) / facts.rss))
    fewer = f"--workers {fits}, or " if fits < workers else ""
    fix = f"{fewer}more memory; --preload shares what the import makes, --max-memory replaces a worker that grows"
    return Finding("memory", Gravity.PROBLEM if needed > limit else Gravity.ADVICE, text, fix)


def _shell(facts: Facts) -> Finding | None:
    words = list(facts.first_process)
    if (
        len(words) < 3
        or PurePosixPath(words[0]).name not in ("sh", "bash", "dash", "ash")
        or words[1] != "-c"
        or "cavalcade" not in words[2]
    ):
        return None
    text = f"Process 1 is a shell ({' '.join(words[:2])}), which does not pass SIGTERM on: a stop waits, then kills without draining."
    return Finding(
        "shell", Gravity.PROBLEM, text, 'Write the command as a list: CMD ["cavalcade", ...]; or exec cavalcade ... in the script'
    )


def _debug(facts: Facts) -> Finding | None:
    if facts.debug:
        text = "The app's debug mode is on: clients are shown tracebacks."
        return Finding("debug", Gravity.ADVICE, text, "Leave debug=True out where others can reach it")
    if facts.asyncio_debug:
        return Finding(
            "debug", Gravity.ADVICE, "asyncio's debug mode is on: everything is slower.", "Unset PYTHONASYNCIODEBUG and PYTHONDEVMODE"
        )
    return None


def _descriptors(facts: Facts) -> Finding | None:
    soft, hard = facts.descriptors
    if soft < 0 or soft >= DESCRIPTORS:  # -1 is no limit
        return None
    text = f"A process may have {soft} descriptors (RLIMIT_NOFILE), and each connection is one: about {max(0, soft - 64)} clients a worker."
    wanted = 65536 if hard < 0 else min(65536, hard)
    fix = f"ulimit -n {wanted} before the start; LimitNOFILE={wanted} in a systemd unit, --ulimit nofile={wanted} for Docker"
    return Finding("descriptors", Gravity.ADVICE, text, fix)


def _backlog(facts: Facts) -> Finding | None:
    backlog, most = facts.settings.backlog, facts.somaxconn
    if most is None or most >= backlog or not any(not bind.startswith("fd:") for bind in facts.settings.bind):
        return None
    text = f"The backlog is {backlog}, and the kernel cuts it to {most} (net.core.somaxconn): more at once are not let in during a burst."
    return Finding(
        "backlog", Gravity.ADVICE, text, f"sysctl -w net.core.somaxconn={backlog}; for a container: --sysctl net.core.somaxconn={backlog}"
    )


def _cpus(facts: Facts) -> Finding | None:
    workers, cpus = int(facts.settings.workers), facts.cpus
    if workers <= cpus.count:
        return None
    text = f"{_workers(workers)} for {cpus.count} CPU{'s' if cpus.count > 1 else ''} ({cpus.reason}). "
    text += "Each worker is an event loop with room for thousands of requests: more of them only take turns. 2n+1 is for sync workers."
    return Finding("cpus", Gravity.ADVICE, text, f"--workers {cpus.count}, or --workers auto")


def _keep_alive(facts: Facts) -> Finding | None:
    keep_alive = facts.settings.keep_alive
    if not keep_alive:
        return Finding("keep-alive", Gravity.NOTE, "keep_alive is 0: every request has a connection of its own.", "--keep-alive 75s")
    longer = [f"{name} ({idle} s)" for name, idle in PROXIES if idle >= keep_alive]
    if not longer:
        return None
    text = f"keep_alive is {keep_alive:g} s. A proxy that keeps idle connections longer may write to one just closed, and says 502: "
    text += f"by default {', '.join(longer)}."
    most = max(idle for _, idle in PROXIES if idle <= _MOST)
    if keep_alive <= most:
        return Finding("keep-alive", Gravity.ADVICE, text, f"--keep-alive {most + 15}s, or what is above the idle time of your proxy")
    return Finding(
        "keep-alive", Gravity.NOTE, text, "Behind one of these raise --keep-alive above its idle time, or lower that; see docs/deploy.md"
    )


def _compiled(facts: Facts) -> Finding | None:
    if facts.build_kind == "compiled":
        return None
    text = f"The hot modules are not compiled ({facts.build_kind}): the same answers for a multiple of the CPU time."
    return Finding("build", Gravity.ADVICE, text, "Install again where there is a C compiler; cavalcade --version says what was missing")


def _uvloop(facts: Facts) -> Finding | None:
    if facts.has_uvloop or facts.settings.loop != "auto":
        return None
    return Finding("uvloop", Gravity.ADVICE, "uvloop is not installed, so asyncio's slower loop is used.", "pip install uvloop")


def _h2(facts: Facts) -> Finding | None:
    if facts.has_h2 or not facts.settings.http2:
        return None
    return Finding(
        "http2", Gravity.NOTE, "h2 is not installed: no HTTP/2, though it is on.", "pip install 'cavalcade[http2]', or --no-http2"
    )


def _import(facts: Facts) -> Finding | None:
    if facts.import_s < SLOW_IMPORT_S:
        return None
    text = f"The import takes {facts.import_s:.1f} s, in every worker, at every start and replacement."
    return Finding("import", Gravity.ADVICE, text, "python -X importtime shows what it is; --preload does it once; boot_timeout bounds it")


def _stop(facts: Facts) -> Finding | None:
    grace = facts.settings.drain_delay + facts.settings.graceful_timeout
    if grace <= DOCKER_STOP_S:
        return None
    text = f"A stop may take {grace:g} s (drain_delay and graceful_timeout); `docker stop` kills after {DOCKER_STOP_S:g} s."
    return Finding("stop", Gravity.NOTE, text, "Give it that time and 5 s; `cavalcade deploy` writes files that do")


def _colours(facts: Facts) -> Finding | None:
    if facts.settings.log_format != "text":
        return None
    text = "log_format is text: the log has colours in it, whether a terminal shows it or a file keeps it."
    return Finding("logs", Gravity.NOTE, text, "--log-format auto has them on a terminal only; json for collectors")


def _starved(facts: Facts) -> Finding | None:
    if not facts.starved:
        return None
    text = "The machine was short of CPUs while this was measured: the numbers are worse than they would be."
    return Finding("machine", Gravity.NOTE, text, "Ask again when nothing else runs")


def _complaints(facts: Facts) -> Iterator[Finding]:
    """What the server says in its log by itself."""
    for message, fix in facts.complaints:
        if message not in facts.tls_warnings:
            yield Finding("log", Gravity.ADVICE, f"The server says: {message}", fix)


CHECKS: tuple[Callable[[Facts], Finding | None], ...] = (
    _threads_before_fork,
    _proxy_trust,
    _certificate,
    _memory,
    _shell,
    _debug,
    _descriptors,
    _backlog,
    _cpus,
    _keep_alive,
    _compiled,
    _uvloop,
    _h2,
    _import,
    _stop,
    _colours,
    _starved,
)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
