"""Templates: text files beside this one, in which `{{name}}` stands for a value.

A value that stands alone on its line may have several lines, each indented like the placeholder, or none, and then the line goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources

_ALONE = re.compile(r"^(?P<before>[ \t#]*)\{\{(?P<name>\w+)\}\}$")
_INLINE = re.compile(r"\{\{(\w+)\}\}")

Values = Mapping[str, str | Sequence[str]]


def fill(template: str, values: Values) -> str:
    """The template of this name with its values. Raises `KeyError` for one that is missing."""
    text = resources.files(__package__).joinpath("templates", template).read_text("utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        alone = _ALONE.match(line)
        if alone and not isinstance(values[alone["name"]], str):
            lines += [f"{alone['before']}{each}".rstrip() for each in values[alone["name"]]]
        else:
            lines.append(_INLINE.sub(lambda match: _one_line(values, match[1]), line))
    return "\n".join(lines) + "\n"


def _one_line(values: Values, name: str) -> str:
    value = values[name]
    assert isinstance(value, str), f"{name} has several lines and must stand alone"
    return value
