"""Metrics as text: every name is documented, and what is written can be read by Prometheus' own parsers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from cavalcade.board.ledger_words import BUCKETS
from cavalcade.observe.metrics import FAMILIES, PREFIX, Histogram, Kind, Values, render

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
HISTOGRAM = Histogram([1] * BUCKETS, 3.0)
ALL: Values = {
    family.name: [(tuple("x" for _ in family.labels), HISTOGRAM if family.kind is Kind.HISTOGRAM else 3.0)] for family in FAMILIES
}


def test_every_name_with_its_labels_is_in_the_documentation_and_no_other() -> None:
    rows = re.findall(r"^\| `(cavalcade_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    documented = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    rendered = []
    for family in text_string_to_metric_families(render(ALL, "")[0].decode()):
        first = family.samples[0]
        name = first.name.removesuffix("_bucket")
        rendered.append((name, family.type, tuple(label for label in first.labels if label != "le"), family.documentation))
    assert rendered == documented


@pytest.mark.parametrize("place", ['a "b" \\ c\nd', "caf\udce9.py:1"])
def test_any_label_is_written_so_that_it_can_be_read(place: str) -> None:
    content, content_type = render({"stalls": [((place,), 1.0)]}, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(content.decode())}  # type: ignore[no-untyped-call]
    assert families[f"{PREFIX}stalls"].samples[0].labels == {"place": place.replace("\udce9", "\ufffd")}


def test_the_text_format_is_what_is_written_to_anybody_else() -> None:
    content, content_type = render(ALL, "text/html")
    assert content_type.startswith("text/plain; version=")
    assert b"# EOF" not in content
