"""What is generated is current."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_option_table_is_what_the_declarations_say() -> None:
    page = runpy.run_path(str(DOCS / "options.py"))["page"]()
    assert (DOCS / "options.md").read_text("utf-8") == page, "run: make docs"
