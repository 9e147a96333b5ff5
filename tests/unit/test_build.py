"""What the package says about itself is what it is."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import os

from cavalcade import build


def test_the_version_is_the_one_that_was_installed() -> None:
    assert importlib.metadata.version("cavalcade") == build.VERSION


def test_compiled_modules_are_those_that_python_loads_compiled() -> None:
    loaded = [
        name
        for name in build.HOT_MODULES
        if (importlib.import_module(f"cavalcade.{name}").__file__ or "").endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    ]
    assert loaded == build.compiled_modules()


def test_the_build_is_the_one_this_run_is_meant_to_prove() -> None:
    expected = os.environ.get("EXPECT_BUILD", "any")
    if expected != "any":
        assert build.kind() == {"pure": "pure Python", "compiled": "compiled"}[expected], build.describe()


def test_the_description_begins_with_the_kind() -> None:
    assert build.describe().startswith(build.kind())
