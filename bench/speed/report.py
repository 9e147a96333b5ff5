"""What a run found: kept as JSON, one file for each CPython, of which a later run replaces the cases that it measures; shown as tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from speed.cases import CASES
from speed.contenders import CONTENDERS
from speed.goals import GOALS, OURS, Verdict, judge, numbers, ratios
from speed.sample import Sample

Results = dict[str, Any]
BEGIN, END = "<!-- results: made by `make bench-docs` -->", "<!-- end of results -->"

COLUMNS = {
    "cpu_us": "CPU us/{unit}",
    "per_s": "{unit}s/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "kib_each": "KiB/connection",
    "start_ms": "ms to first answer",
    "errors": "errors",
    "rss_mib": "RSS MiB",
}
# What the contenders of a case are compared and drawn by: the first of these that it has.
LEADING = ("cpu_us", "kib_each", "p99_ms")


def merge(path: Path, results: Results) -> Results:
    """Write what was measured into the file, beside the cases in it that were not measured now, if those are of the same versions."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    if all(kept.get(key) == results[key] for key in ("cpython", "machine", "versions")):
        results = results | {"cases": kept["cases"] | results["cases"]}
    results["cases"] = {name: results["cases"][name] for name in CASES if name in results["cases"]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def as_json(samples: dict[str, list[Sample]]) -> dict[str, list[dict[str, float]]]:
    return {
        name: [{key: value for key, value in asdict(each).items() if value is not None} for each in row] for name, row in samples.items()
    }


def samples_of(case: Results) -> dict[str, list[Sample]]:
    """In the order of the contenders."""
    found = {name: [Sample(**each) for each in case["samples"][name]] for name in CONTENDERS if name in case["samples"]}
    return {name: row for name, row in found.items() if row}


def leading(name: str, samples: dict[str, list[Sample]]) -> str:
    if name == "start":
        return "start_ms"
    return next((metric for metric in LEADING if any(numbers(samples, each, metric) for each in samples)), "errors")


def median(samples: dict[str, list[Sample]], name: str, metric: str) -> float | None:
    found = numbers(samples, name, metric)
    if not found:
        return None
    return sum(found) if metric == "errors" else statistics.median(found)


def verdicts(results: Results) -> list[Verdict]:
    return [judge(goal, samples_of(results["cases"][goal.case])) for goal in GOALS if goal.case in results["cases"]]


# -- tables --------------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """In Markdown; the first `left` columns are text."""
    header = list(header)
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def case_table(name: str, case: Results) -> str:
    """One case: every contender, and under the table those that are not in it, with the reason."""
    samples = samples_of(case)
    first = leading(name, samples)
    shown = [
        field.name for field in fields(Sample) if field.name in COLUMNS and any(numbers(samples, each, field.name) for each in samples)
    ]
    heading = [COLUMNS[metric].format(unit=CASES[name].unit) for metric in shown]
    rows = []
    for contender in samples:
        against = ratios(samples, OURS_IN.get(name, OURS), contender, first)
        ratio = f"{statistics.median(against):.2f}" if against else "-"
        rows.append([contender, *(number(median(samples, contender, metric)) for metric in shown), ratio])
    lines = [table(["server", *heading, "cavalcade is at"], rows)] if samples else []
    lines += [f"- {contender}: not measured: {reason}" for contender, reason in case["missing"].items()]
    return "\n\n".join([lines[0], "\n".join(lines[1:])]) if samples and len(lines) > 1 else "\n".join(lines)


OURS_IN = {"wsgi": "cavalcade, threads=0"}
"""Who is meant by "cavalcade" where nobody is called so."""


def goal_table(results: Results) -> str:
    rows = []
    for verdict in verdicts(results):
        value = "-" if verdict.value is None else f"{verdict.value:.2f}"
        case = CASES[verdict.goal.case].title + (f" ({verdict.goal.ours})" if verdict.goal.ours != OURS else "")
        rows.append([case, verdict.goal.text, verdict.other or "-", value, verdict.word])
    return table(["work", "goal", "measured by", "is", ""], rows, left=3)


def overview(results: Results) -> str:
    """Every server in every case by one number, the least first."""
    rows = []
    for name, case in results["cases"].items():
        samples = samples_of(case)
        metric = leading(name, samples)
        least = sorted((value, each) for each in samples if (value := median(samples, each, metric)) is not None)
        shown = [f"{each} {number(value)}" for value, each in least]
        bold = [f"**{text}**" if text.startswith(OURS) else text for text in shown]
        rows.append([CASES[name].title, COLUMNS[metric].format(unit=CASES[name].unit), ", ".join(bold)])
    return table(["work", "number", "from the least"], rows, left=3)


def described(results: Results) -> Iterator[str]:
    """What was measured with what, on what. No name of a machine, and no path."""
    machine = results["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; CPython {results['cpython']}"
    yield "; ".join(f"{name} {version}" for name, version in results["tools"].items())
    yield ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def whole(results: Results) -> str:
    """The page of one CPython."""
    parts = [f"### CPython {results['cpython']}", "\n".join(f"- {line}" for line in described(results)), goal_table(results)]
    parts += [overview(results), f"![CPU for each request, CPython {results['cpython']}]({chart_name(results)})"]
    for name, case in results["cases"].items():
        parts += [
            f"#### {CASES[name].title} (`{name}`)",
            f"{case['rounds']} x {case['seconds']} s, {case['when']}",
            case_table(name, case),
        ]
    return "\n\n".join(parts)


def chart_name(results: Results) -> str:
    return f"performance-{results['cpython'].rpartition('.')[0]}.svg"


def into_page(page: str, results: Iterable[Results]) -> str:
    """The page with these results in place of those that it had. Raises `ValueError` where it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return "\n\n".join([before + BEGIN, *(whole(each) for each in results), END]) + after
