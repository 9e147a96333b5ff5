"""What is generated is current, and what is claimed is shown."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_build

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"

NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_the_option_table_is_what_the_declarations_say() -> None:
    page = runpy.run_path(str(DOCS / "options.py"))["page"]()
    assert (DOCS / "options.md").read_text("utf-8") == page, "run: make docs"


def test_every_yes_of_the_comparison_names_tests_that_exist_and_every_no_a_reason() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (yes|no|partly) \| (.*) \|$", (DOCS / "comparison.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 60
    for feature, answer, cell in rows:
        named = NAMED_TEST.findall(cell)
        assert bool(named) == (answer != "no"), feature
        assert answer == "yes" or NAMED_TEST.sub("", cell).strip(" ,:"), feature
        for file, name in named:
            functions = [node.name for node in ast.parse((TESTS / file).read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
            assert name in functions, f"{feature}: {file}::{name}"
