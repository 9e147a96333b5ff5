"""A .pxd and its .py drift apart silently: the plain build never reads the .pxd. Here they are held together."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from cavalcade.build import HOT_MODULES

ROOT = Path(find_spec("cavalcade").origin).parent
COMPILED = [name for name in HOT_MODULES if ROOT.joinpath(*name.split(".")).with_suffix(".pxd").exists()]


def assigned(tree: ast.Module) -> dict[str, set[str]]:
    """Every attribute that a class of the module sets on `self`, or says that it has."""
    found: dict[str, set[str]] = {}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found[cls.name] = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
        found[cls.name] |= {
            node.attr
            for node in ast.walk(cls)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
    return found


def declared(pxd: str) -> dict[str, set[str]]:
    """Every attribute that a class of the .pxd declares."""
    found: dict[str, set[str]] = {}
    cls = ""
    for line in pxd.splitlines():
        if match := re.match(r"cdef class (\w+)", line):
            cls = match[1]
            found[cls] = set()
        elif match := re.match(r"    cdef (?:public )?(?:unsigned long long\[::1\]|long long|\w+) ([\w, ]+)$", line):
            found[cls].update(name.strip() for name in match[1].split(","))
    return found


def inherited(pxd: str, cls: str) -> set[str]:
    """Every attribute that the base class of `cls`, compiled too, declares."""
    base = re.search(rf"cdef class {cls}\((\w+)\)", pxd)
    if base is None:
        return set()
    everywhere: dict[str, set[str]] = {}
    for name in COMPILED:
        everywhere |= declared(ROOT.joinpath(*name.split(".")).with_suffix(".pxd").read_text("utf-8"))
    return everywhere[base[1]]


def methods(text: str, tree: ast.Module) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(declared in the .pxd, defined in the .py), as (class, method); ("", name) for a function."""
    in_pxd: set[tuple[str, str]] = set()
    cls = ""
    for line in text.splitlines():
        if match := re.match(r"cdef class (\w+)", line):
            cls = match[1]
        elif match := re.match(r"(    )?cpdef (?:[\w ]+ )?(\w+)\(", line):
            in_pxd.add((cls if match[1] else "", match[2]))
    in_py = {(c.name, f.name) for c in tree.body if isinstance(c, ast.ClassDef) for f in c.body if isinstance(f, ast.FunctionDef)}
    return in_pxd, in_py | {("", node.name) for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", COMPILED)
def test_every_attribute_of_a_compiled_class_is_declared(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    in_py = assigned(ast.parse(path.with_suffix(".py").read_text("utf-8")))
    in_pxd = declared(path.with_suffix(".pxd").read_text("utf-8"))
    for cls, names in in_pxd.items():
        assert names - {"__weakref__"} == in_py[cls] - inherited(path.with_suffix(".pxd").read_text("utf-8"), cls), cls


@pytest.mark.parametrize("name", COMPILED)
def test_every_method_in_a_pxd_exists(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    text = path.with_suffix(".pxd").read_text("utf-8")
    in_pxd, in_py = methods(text, ast.parse(path.with_suffix(".py").read_text("utf-8")))
    assert in_pxd or declared(text)
    assert in_pxd <= in_py
