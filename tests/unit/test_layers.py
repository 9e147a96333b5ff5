"""The layer contract: a file imports only from folders above its own, never from itself in a circle, never inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cavalcade import build

pytestmark = pytest.mark.any_build

PACKAGE = Path(build.__file__).parent

# Lowest first. A module may import from its own layer and from those before it.
LAYERS = [
    ("build", "errors", "limits", "types"),
    ("wire",),
    ("config",),
    ("board",),
    ("observe",),
    ("apps",),
    ("net",),
    ("worker",),
    ("nursery",),
    ("supervisor",),
    ("admin",),
    ("deploy",),
    ("doctor",),
    ("cli",),
    ("compat",),
    ("testing",),
    ("", "__main__"),  # the package itself re-exports
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Engines are sans-IO: bytes and time are the caller's.
FORBIDDEN = {
    "wire": {"asyncio", "socket", "ssl", "time", "logging", "os", "select", "selectors", "threading", "uvloop"},
    # It may name signals and log levels, which are only numbers there.
    "supervisor.policy": {"asyncio", "socket", "ssl", "time", "os", "subprocess", "threading", "psutil"},
}

FILE_LINES = 660  # "about 600"
FUNCTION_LINES = 60


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its name below the package: "wire.h1"; "" is the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"), str(path))
    return found


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Each import statement with the full name of what it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def ours(full: str) -> str | None:
    """The module of ours that an import names, below the package, or None: "cavalcade.wire.h1.Engine" -> "wire.h1"."""
    if full != "cavalcade" and not full.startswith("cavalcade."):
        return None
    name = full.removeprefix("cavalcade").lstrip(".")
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def layer(name: str) -> int:
    return RANK[name.split(".")[0]]


def test_every_file_belongs_to_a_layer() -> None:
    assert [name for name in modules() if name.split(".")[0] not in RANK] == []


def test_a_file_imports_only_from_its_own_layer_and_those_above() -> None:
    wrong = [
        f"{name}, line {node.lineno}: {full}"
        for name, tree in modules().items()
        for node, full in imports(tree)
        if (target := ours(full)) is not None and (layer(target) > layer(name) or (target == "" and layer(name) < RANK[""]))
    ]
    assert wrong == []


def imported_when_it_runs(tree: ast.Module) -> Iterator[str]:
    """All but what stands under `if TYPE_CHECKING:`, which is never imported when the program runs."""
    for_types_only = {
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
    }
    return (full for node, full in imports(tree) if node not in for_types_only)


def test_there_is_no_circle_of_imports() -> None:
    edges = {
        name: {target for full in imported_when_it_runs(tree) if (target := ours(full)) is not None and target != name}
        for name, tree in modules().items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in edges[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_nothing_of_ours_is_imported_inside_a_function() -> None:
    wrong = [
        f"{name}, line {node.lineno}: {full}"
        for name, tree in modules().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node, full in imports(function)
        if ours(full) is not None
    ]
    assert wrong == []


@pytest.mark.parametrize("place", sorted(FORBIDDEN))
def test_pure_code_does_no_io(place: str) -> None:
    wrong = [
        f"{name}, line {node.lineno}: {full}"
        for name, tree in modules().items()
        if name == place or name.startswith(place + ".")
        for node, full in imports(tree)
        if full.split(".")[0] in FORBIDDEN[place]
    ]
    assert wrong == []


def test_files_stay_short_enough_to_read() -> None:
    long = {str(path): count for path in PACKAGE.rglob("*.py") if (count := path.read_text("utf-8").count("\n")) > FILE_LINES}
    assert long == {}


def test_functions_stay_short_enough_to_read() -> None:
    long = [
        f"{name}.{node.name}: {length} lines"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []
