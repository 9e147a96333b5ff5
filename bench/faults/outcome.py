"""What came of a drill, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One drill on one server."""

    server: str
    drill: str
    requests: int = 0
    failed: int = 0
    allowed: int = 0  # failures that nobody could prevent: what was open on a process when it was killed
    worst_ms: float = 0.0
    complaints: list[str] = field(default_factory=list)  # why the verdict is bad, beside too many failures
    facts: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)  # by their kind
    supported: bool = True
    unable: str = ""  # why it could not be done on this machine

    @property
    def good(self) -> bool:
        return not self.complaints and self.failed <= self.allowed

    def verdict(self) -> str:
        if not self.supported:
            return "not offered"
        if self.unable and self.good:
            return "NOT RUN"
        return "ok" if self.good else "FAILED"

    def remarks(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items(), key=lambda item: -item[1]))
        return "; ".join(part for part in (self.unable, *self.complaints, kinds, *self.facts) if part)


HEAD = ("server", "drill", "requests", "failed", "worst ms", "verdict", "remarks")


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    return [
        (
            outcome.server,
            outcome.drill,
            f"{outcome.requests:,}" if outcome.supported else "",
            (f"{outcome.failed}" + (f" of {outcome.allowed} allowed" if outcome.allowed else "")) if outcome.supported else "",
            f"{outcome.worst_ms:,.0f}" if outcome.supported else "",
            outcome.verdict(),
            outcome.remarks(),
        )
        for outcome in outcomes
    ]


def text_table(outcomes: Sequence[Outcome]) -> str:
    table = [HEAD, *rows(outcomes)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD) - 1)]
    numbers = {HEAD.index("requests"), HEAD.index("worst ms")}
    lines = []
    for row in table:
        cells = [cell.rjust(width) if i in numbers else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=False))]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---:|---:|---:|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(outcomes)]
    return "\n".join(lines)
