"""A chart of a run as SVG: for each case a bar for each server, the shorter the better."""

from __future__ import annotations

from html import escape

from speed.cases import CASES
from speed.contenders import CONTENDERS
from speed.report import COLUMNS, Results, leading, median, number, samples_of

PANELS_ACROSS = 2
PANEL_WIDTH, LABEL_WIDTH, VALUE_WIDTH = 560, 170, 70
BAR, GAP, HEAD = 14, 5, 40
MARGIN = 20
COLOURS = {"ours": "#c2410c", "peer": "#64748b", "limit": "#cbd5e1"}
TEXT = 'font-family="system-ui, sans-serif" font-size="12" fill="#1e293b"'


def draw(results: Results) -> str:
    """The whole picture. Panels of one row are as high as the highest of them."""
    names = list(results["cases"])
    rows = [names[at : at + PANELS_ACROSS] for at in range(0, len(names), PANELS_ACROSS)]
    top, parts = MARGIN, []
    for row in rows:
        panels = [panel(name, results["cases"][name], MARGIN + at * (PANEL_WIDTH + MARGIN), top) for at, name in enumerate(row)]
        parts += [text for text, _ in panels]
        top += max(height for _, height in panels) + MARGIN
    width = MARGIN + PANELS_ACROSS * (PANEL_WIDTH + MARGIN)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" {TEXT}>'
    return "\n".join([head, f'<rect width="{width}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def panel(name: str, case: Results, left: int, top: int) -> tuple[str, int]:
    """(one case, its height)."""
    samples = samples_of(case)
    metric = leading(name, samples)
    values = {each: value for each in samples if (value := median(samples, each, metric)) is not None}
    longest = max(values.values(), default=1) or 1
    heading = f"{CASES[name].title}: {COLUMNS[metric].format(unit=CASES[name].unit)}"
    lines = [f'<text x="{left}" y="{top + 16}" font-weight="bold">{escape(heading)}</text>']
    for at, (each, value) in enumerate(values.items()):
        y = top + HEAD - 12 + at * (BAR + GAP)
        length = max(1.0, (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) * value / longest)
        lines += [
            f'<text x="{left + LABEL_WIDTH - 8}" y="{y + 11}" text-anchor="end">{escape(each)}</text>',
            f'<rect x="{left + LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{COLOURS[CONTENDERS[each].role]}"/>',
            f'<text x="{left + LABEL_WIDTH + length + 6:.1f}" y="{y + 11}">{number(value)}</text>',
        ]
    return "\n".join(lines), HEAD + len(values) * (BAR + GAP)
