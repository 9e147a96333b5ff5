"""What the package says about itself is what it is."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as it would be installed from, but for the length of the list of modules to compile, which takes a minute each time."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    hidden = shutil.ignore_patterns("*.so", "*.c", "__pycache__", build.NOTE_FILE)
    shutil.copytree(ROOT / "src" / "cavalcade", folder / "src" / "cavalcade", ignore=hidden)
    table = folder / "src" / "cavalcade" / "build.py"
    before, _, after = table.read_text("utf-8").partition("HOT_MODULES = (")
    table.write_text(f'{before}HOT_MODULES = ("wire.sink",){after.partition(")")[2]}', "utf-8")
    return folder


def install(tree: Path, into: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`pip install .`, with what is needed for the build taken from here."""
    pip = [sys.executable, "-m", "pip", "install", ".", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAVALCADE_")}
    return subprocess.run([*pip, "--target", into], cwd=tree, env=clean | env, capture_output=True, text=True, check=False)


def said_by(into: Path) -> str:
    """`cavalcade --version` of what was installed."""
    env = os.environ | {"PYTHONPATH": str(into)}
    return subprocess.check_output([sys.executable, "-m", "cavalcade", "--version"], cwd=into, env=env, text=True)


@pytest.mark.any_build
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_pip_install_compiles_where_a_compiler_is(tree: Path, tmp_path: Path) -> None:
    done = install(tree, tmp_path, CAVALCADE_REQUIRE_COMPILED="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert said_by(tmp_path).startswith(f"cavalcade {build.VERSION} (compiled: wire.sink)")


@pytest.mark.any_build
def test_without_a_compiler_it_is_installed_all_the_same_and_says_why_it_is_not_compiled(tree: Path, tmp_path: Path) -> None:
    done = install(tree, tmp_path, CC="/bin/false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert said_by(tmp_path).startswith(f"cavalcade {build.VERSION} (pure Python: the C compiler failed: ")


@pytest.mark.any_build
def test_where_it_is_required_a_failed_build_is_an_error(tree: Path, tmp_path: Path) -> None:
    done = install(tree, tmp_path, CC="/bin/false", CAVALCADE_REQUIRE_COMPILED="1")
    assert done.returncode != 0
    assert "/bin/false" in done.stdout + done.stderr
    assert not (tmp_path / "cavalcade").exists()
