"""What the numbers of a path are taken for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cavalcade.doctor import report, verdicts
from cavalcade.doctor.client import Answer, Request
from cavalcade.doctor.findings import Finding, Gravity
from cavalcade.doctor.probe import Measured
from cavalcade.doctor.report import Report
from cavalcade.doctor.subject import PoolFull, Said, Stall
from cavalcade.doctor.verdicts import Kind, Verdict
from cavalcade.observe.blackbox import Frame
from cavalcade.supervisor.verdicts import Evidence, machine, resumed
from cavalcade.worker.channel import Stalled

POOL = PoolFull("AnyIO's pool", 40, "", "raise it")
OK = Answer(200, 0.01, 1.0, True)


def measured(**numbers: Any) -> Measured:
    usual: dict[str, Any] = {"alone_s": 1.0, "requests": 50, "wall_s": 1.1, "statuses": {200: 50}}
    return Measured(Request("/x"), **{"answer": OK, **usual, **numbers})


@pytest.mark.parametrize(
    ("numbers", "kind", "verdict", "gravity"),
    [
        ({}, Kind(), Verdict.ASYNC, None),
        ({"alone_s": 0.012, "wall_s": 0.036}, Kind(), Verdict.ASYNC, None),  # half a millisecond of work each
        ({"alone_s": 0.001, "wall_s": 0.05}, Kind(), Verdict.TOO_FAST, None),
        ({"wall_s": 50.0, "stalls": (Stall(50000, "a.py:1 f()", 49),)}, Kind(), Verdict.BLOCKS, Gravity.PROBLEM),
        ({"wall_s": 26.0, "stalls": (Stall(25000, "a.py:1 f()", 49),)}, Kind(), Verdict.BLOCKS, Gravity.PROBLEM),  # half of it awaits
        ({"wall_s": 1.6, "stalls": (Stall(500, "a.py:1 f()", 9),)}, Kind(), Verdict.ASYNC, Gravity.ADVICE),  # 10 ms of each
        ({"wall_s": 1.6, "stalls": (Stall(500, "a.py:1 f()", 9, gc=True),)}, Kind(), Verdict.ASYNC, None),
        ({"wall_s": 2.0, "pool": POOL}, Kind(), Verdict.THREADS, Gravity.ADVICE),
        ({"wall_s": 1.1}, Kind(threaded=frozenset({"/x"})), Verdict.THREADS, None),
        ({"wall_s": 50.0}, Kind(wsgi_threads=1), Verdict.THREADS, Gravity.ADVICE),
        ({"wall_s": 1.1}, Kind(wsgi_threads=64), Verdict.THREADS, None),
        ({"wall_s": 10.0, "cpu_s": 9.0}, Kind(), Verdict.CPU, Gravity.ADVICE),
        ({"wall_s": 10.0}, Kind(), Verdict.LIMITED, Gravity.ADVICE),
        ({"statuses": {200: 40, 503: 10}}, Kind(), Verdict.FAILS, Gravity.PROBLEM),
        ({"errors": ("the connection was closed",)}, Kind(), Verdict.FAILS, Gravity.PROBLEM),
        ({"answer": Answer(500, 0.1, 0.1, True), "requests": 0}, Kind(), Verdict.FAILS, Gravity.PROBLEM),
        ({"answer": Answer(404, 0.1, 0.1, True), "requests": 0}, Kind(), Verdict.REFUSED, Gravity.NOTE),
        ({"answer": Answer(200, 0.1, 30.0, False, "not over within 30 s"), "requests": 0}, Kind(), Verdict.ENDLESS, None),
        ({"answer": Answer(0, 0.0, 15.0, False, "not over within 15 s"), "requests": 0}, Kind(), Verdict.FAILS, Gravity.PROBLEM),
    ],
)
def test_verdict(numbers: dict[str, Any], kind: Kind, verdict: Verdict, gravity: Gravity | None) -> None:
    judged = verdicts.judge(measured(**numbers), kind)
    assert judged.verdict is verdict
    assert [finding.gravity for finding in judged.findings] == ([] if gravity is None else [gravity])
    assert all(finding.fix for finding in judged.findings)


def test_the_overlap_is_n_times_the_latency_alone_over_the_time_for_all() -> None:
    assert measured(wall_s=1.25).overlap == 40.0


@pytest.mark.parametrize(
    ("stalled", "where", "expected"),
    [
        ({"request": "GET /x, y; z"}, "main.py", Stall(1014, "main.py:40 slow()", 3)),
        ({"request": ""}, "my app/main.py", Stall(1014, "my app/main.py:40 slow()", 3)),
        ({"request": "GET /x"}, "", Stall(1014, "", 3)),
        ({"request": "GET /x", "gc_ms": 900, "gc_generation": 2, "gc_freed": 7}, "main.py", Stall(1014, "main.py:40 slow()", 3, gc=True)),
    ],
)
def test_what_the_log_says_of_a_stall_is_understood(stalled: dict[str, Any], where: str, expected: Stall) -> None:
    stack = [Frame(where, "40", "slow")] if where else []
    line = resumed("worker 1 (pid 2)", Stalled(ms=1014, waited=3, **stalled), Evidence(stack=stack))
    said = Said()
    said.take({"message": line, "level": "warning"})
    assert said.stalls == [expected]
    assert not said.complaints


def test_what_else_the_log_says_is_sorted() -> None:
    said = Said()
    for message, more in (
        (
            "worker 1 (pid 2): AnyIO's pool is full: all 40 threads are busy, all with GET /x in a.py:1 f(); 2 calls wait",
            {},
        ),
        ("worker 1 (pid 2): asgiref's sync_to_async is full: its one thread is busy; 1 call waits for one, for 0.1 s and longer", {}),
        (machine(0.5), {}),
        ("preload: importing m has started threads, which do not exist in the workers: a, b; start them in the lifespan instead", {}),
        ("GET /x failed", {"traceback": "Traceback\n  in f\nRuntimeError: no"}),
        ("something else", {"fix": "do it"}),
    ):
        said.take({"message": message, "level": "warning", **more})
    assert [(pool.name, pool.threads, pool.where) for pool in said.pools] == [
        ("AnyIO's pool", 40, ", all with GET /x in a.py:1 f()"),
        ("asgiref's sync_to_async", 1, ""),
    ]
    assert (said.starved, said.forked_threads, said.failures) == (1, "a, b", ["RuntimeError: no"])
    assert said.complaints == [("something else", "do it")]


def test_the_report_is_plain_and_80_columns_wide_and_has_the_gravest_first() -> None:
    numbers: list[dict[str, Any]] = [{}, {"wall_s": 50.0, "stalls": (Stall(50000, "a.py:1 f()", 49),)}, {"wall_s": 10.0}]
    judged = [verdicts.judge(measured(**each), Kind()) for each in numbers]
    checked = [Finding("stop", Gravity.NOTE, "word " * 40, "fix " * 40), Finding("shell", Gravity.PROBLEM, "A shell.", "No shell")]
    whole = Report("main:app", "FastAPI", "FastAPI, one worker", judged, checked)
    text = report.draw(whole, plain=True)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"^  (problem|advice|note)", text, re.MULTILINE) == ["problem", "problem", "advice", "note"]
    assert "blocks the loop at a.py:1 f()" in text
    assert text.endswith("2 problems, 1 piece of advice, 1 note")
    assert report.as_data(whole)["healthy"] is False
    assert "\x1b[31" in report.draw(whole, plain=False)
