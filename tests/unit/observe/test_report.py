"""The block that an error is shown as."""

from __future__ import annotations

import io

import pytest

from cavalcade.observe.report import explain, is_plain


def test_a_plain_block_is_ascii_with_the_cause_first_and_the_fix_last() -> None:
    assert explain("It broke.", "Mend it.\nOr leave it.", "Traceback:\n  line", plain=True) == (
        "x It broke.\n    Traceback:\n      line\n  -> Mend it.\n  -> Or leave it."
    )


def test_a_drawn_block_has_the_same_lines_with_marks_and_colours() -> None:
    first, second = explain("It broke.", "Mend it.", plain=False).splitlines()
    assert first.startswith("\x1b[31;1m✗")
    assert first.endswith("It broke.")
    assert "→" in second


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("encoding", "terminal", "environ", "log_format", "plain"),
    [
        ("utf-8", True, {}, "auto", False),
        ("utf-8", False, {}, "auto", True),
        ("latin-1", True, {}, "auto", True),
        ("utf-8", True, {"NO_COLOR": "1"}, "auto", True),
        ("utf-8", True, {"TERM": "dumb"}, "auto", True),
        ("utf-8", False, {"FORCE_COLOR": "1"}, "auto", False),
        ("utf-8", True, {}, "plain", True),
        ("utf-8", False, {}, "text", False),
        ("latin-1", False, {}, "text", True),
    ],
)
def test_colours_and_utf_8_are_for_those_who_can_show_them(
    encoding: str, terminal: bool, environ: dict[str, str], log_format: str, plain: bool
) -> None:
    assert is_plain(Stream(encoding, terminal), environ, log_format) is plain
