"""Tables of text: columns as wide as they need to be, numbers to the right."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """The lines of a table. `left` names the columns that are aligned to the left; the last one is, and may be as long as it likes."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    out = []
    for row in (head, *rows):
        cells = [cell.ljust(width) if name in left else cell.rjust(width) for cell, width, name in zip(row, widths, head, strict=False)]
        out.append("  ".join([*cells, row[-1]]).rstrip())
    return out
