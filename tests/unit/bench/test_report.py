"""What the benchmark makes of what the load programs print: samples, verdicts, tables, the chart. No load is run here."""

from __future__ import annotations

import copy
import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from speed import chart, report
from speed.cases import CASES
from speed.contenders import CONTENDERS, Start
from speed.goals import GOALS, Goal, judge
from speed.measure import LOADS
from speed.process import Unmeasurable
from speed.sample import Sample, percentile, read_h2load, read_wrk

pytestmark = pytest.mark.any_build

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"

WRK = """Running 1s test @ http://127.0.0.1:40000/
  1 threads and 64 connections
Requests/sec:  20000.00

{"requests": 20000, "duration_us": 1000000, "p50_us": 1500, "p99_us": 4000, "p999_us": 9000,\
 "connect": 0, "read": 2, "write": 0, "status": 3, "timeout": 1}
"""

H2LOAD = """finished in 1.00s, 50.00 req/s, 2.10KB/s
requests: 52 total, 52 started, 50 done, 50 succeeded, 2 failed, 2 errored, 0 timeout
status codes: 50 2xx, 0 3xx, 0 4xx, 0 5xx
"""

RESULTS: dict[str, Any] = {
    "cpython": "3.13.0",
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "system": "Linux 6.1"},
    "tools": {"wrk": "4.1.0"},
    "versions": {"granian": "2.8.9"},
    "cases": {
        "raw": {
            "when": "2026-01-01T00:00+00:00",
            "rounds": 2,
            "seconds": 1,
            "samples": {
                "granian": [{"cpu_us": 20.0, "per_s": 40000.0, "errors": 0}, {"cpu_us": 40.0, "per_s": 20000.0, "errors": 3}],
                "cavalcade": [{"cpu_us": 10.0, "per_s": 80000.0, "errors": 0}, {"cpu_us": 20.0, "per_s": 40000.0, "errors": 0}],
            },
            "missing": {"fastpysgi": "under load it was ended by SIGSEGV"},
        }
    },
}


def test_wrk_is_read_and_whatever_was_not_answered_well_is_an_error() -> None:
    sample = read_wrk(WRK, used_s=0.5)
    assert sample == Sample(cpu_us=25.0, per_s=20000.0, p50_ms=1.5, p99_ms=4.0, p999_ms=9.0, errors=6)


@pytest.mark.parametrize("text", ["", "unable to connect", WRK.replace('"requests": 20000', '"requests": 0')])
def test_wrk_without_a_request_is_no_measurement(text: str) -> None:
    with pytest.raises(Unmeasurable):
        read_wrk(text, used_s=0.5)


def test_h2load_is_read_with_the_percentiles_of_its_log() -> None:
    log = [f"1700000000000000\t200\t{1000 * number}" for number in range(50, 0, -1)] + ["1700000000000000\t500\t9000000"]
    sample = read_h2load(H2LOAD, log, used_s=0.005)
    assert (sample.cpu_us, sample.per_s, sample.errors) == (pytest.approx(100.0), 50.0, 2)
    assert (sample.p50_ms, sample.p99_ms, sample.p999_ms) == (25.0, 50.0, 50.0)


def test_a_percentile_is_the_least_value_that_covers_the_share() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile([7.0], 0.5) == 7.0


def test_a_goal_is_judged_round_by_round_against_the_best_of_the_others() -> None:
    samples = {
        "cavalcade": [Sample(cpu_us=10.0), Sample(cpu_us=30.0), Sample(cpu_us=11.0)],
        "granian": [Sample(cpu_us=20.0), Sample(cpu_us=60.0), Sample(cpu_us=20.0)],
        "uvicorn": [Sample(cpu_us=50.0), Sample(cpu_us=50.0), Sample(cpu_us=50.0)],
    }
    verdict = judge(Goal("raw", 0.50, ("uvicorn", "granian")), samples)
    assert (verdict.other, verdict.value, verdict.word) == ("granian", 0.5, "reached")
    assert judge(Goal("raw", 0.49, ("granian",)), samples).word == "missed"
    assert judge(Goal("raw", 9.00, ("hypercorn",)), samples).word == "not measured"
    assert judge(Goal("raw", 9.00, ("granian",), ours="cavalcade, pure"), samples).word == "not measured"


def test_a_rate_is_to_be_high_and_a_size_is_judged_by_itself() -> None:
    samples = {"cavalcade": [Sample(per_s=99.0, kib_each=5.5)], "granian": [Sample(per_s=100.0)], "uvicorn": [Sample(per_s=50.0)]}
    rate = judge(Goal("sleep", 1.0, ("uvicorn", "granian"), "per_s", more_is_better=True), samples)
    assert (rate.other, rate.word) == ("granian", "missed")
    assert judge(Goal("idle", 6.0, (), "kib_each"), samples).word == "reached"


def test_every_goal_and_every_case_is_about_somebody_who_takes_part(tmp_path: Path) -> None:
    for goal in GOALS:
        assert goal.ours in CASES[goal.case].contenders
        assert set(goal.others) <= set(CASES[goal.case].contenders)
        assert goal.text
    for case in CASES.values():
        assert set(case.contenders) <= set(CONTENDERS)
        assert case.load in LOADS or case.load == "start"
        for name in case.contenders:
            assert CONTENDERS[name].command(Start("python", case.app, 1, tls=("cert", "key"), folder=tmp_path))
    for contender in CONTENDERS.values():
        assert set(contender.cannot) <= set(CASES)


def test_a_later_run_replaces_only_the_cases_that_it_measured_and_nothing_of_other_versions_stays(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpython-3.13.json"
    report.merge(path, copy.deepcopy(RESULTS))
    later = RESULTS | {"cases": {"echo": RESULTS["cases"]["raw"]}}
    assert list(report.merge(path, later)["cases"]) == ["raw", "echo"]
    assert list(json.loads(path.read_text())["cases"]) == ["raw", "echo"]
    newer = RESULTS | {"versions": {"granian": "3.0"}, "cases": {"tls": RESULTS["cases"]["raw"]}}
    assert list(report.merge(path, newer)["cases"]) == ["tls"]


def test_the_table_has_medians_the_sum_of_errors_our_share_and_whoever_is_not_in_it() -> None:
    assert report.case_table("raw", RESULTS["cases"]["raw"]).splitlines() == [
        "| server | CPU us/request | requests/s | errors | cavalcade is at |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| cavalcade | 15 | 60,000 | 0 | 1.00 |",
        "| granian | 30 | 30,000 | 3 | 0.50 |",
        "",
        "- fastpysgi: not measured: under load it was ended by SIGSEGV",
    ]


def test_a_case_that_nobody_could_do_says_why() -> None:
    case = RESULTS["cases"]["raw"] | {"samples": {}}
    assert report.case_table("raw", case) == "- fastpysgi: not measured: under load it was ended by SIGSEGV"
    ElementTree.fromstring(chart.draw(RESULTS | {"cases": {"raw": case}}))


def test_samples_come_back_from_json_as_they_were() -> None:
    samples = {"cavalcade": [Sample(cpu_us=1.5, errors=2), Sample(kib_each=4.0)]}
    assert report.samples_of({"samples": json.loads(json.dumps(report.as_json(samples)))}) == samples
    assert {field.name for field in dataclasses.fields(Sample)} == set(report.COLUMNS)


def test_the_goals_are_shown_with_their_verdict() -> None:
    lines = report.goal_table(RESULTS).splitlines()
    assert "| Raw ASGI hello, keep-alive | CPU at most 0.60 x granian | granian | 0.50 | reached |" in lines
    assert "| Raw ASGI hello, keep-alive | CPU at most 0.40 x uvicorn | - | - | not measured |" in lines


def test_the_chart_has_a_bar_for_each_server() -> None:
    picture = ElementTree.fromstring(chart.draw(RESULTS))
    bars = [each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if each.get("fill") != "white"]
    assert [float(bar.get("width") or 0) for bar in bars] == [pytest.approx(160.0), pytest.approx(320.0)]


def test_results_replace_those_that_the_page_had() -> None:
    page = f"before\n\n{report.BEGIN}\n\nold\n\n{report.END}\n\nafter\n"
    once = report.into_page(page, [RESULTS])
    assert once.startswith("before\n")
    assert once.endswith("\n\nafter\n")
    assert "old" not in once
    assert "CPython 3.13.0" in once
    assert "| CPU us/request | **cavalcade 15**, granian 30 |" in once
    assert "performance-3.13.svg" in once
    assert report.into_page(once, [RESULTS]) == once
    with pytest.raises(ValueError, match="the page has no"):
        report.into_page("nothing", [RESULTS])


def test_the_page_has_a_place_for_results_and_explains_every_case() -> None:
    page = PAGE.read_text("utf-8")
    report.into_page(page, [])
    explained = page.partition(report.BEGIN)[0]
    assert [name for name in CASES if f"| `{name}` |" not in explained] == []
