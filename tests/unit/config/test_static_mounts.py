"""The values of `static`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.config import sources, static_mounts
from cavalcade.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "prefix", "folder"),
    [("/static=public", "/static", "public"), ("/a/b/=/srv/x=y", "/a/b", "/srv/x=y"), ("/=.", "", "."), ("/ü=x", "/ü", "x")],
)
def test_what_they_say(text: str, prefix: str, folder: str) -> None:
    assert static_mounts.parse(text) == (prefix, folder)
    assert static_mounts.parse(static_mounts.canonical(text)) == (prefix, folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/static", "is not /prefix=directory"),
        ("/static=", "is not /prefix=directory"),
        ("", "is not /prefix=directory"),
        ("static=public", 'must start with "/": write "/static=public"'),
        ("/a//b=x", "no path prefix"),
        ("/a/../b=x", "no path prefix"),
        ("/a/./b=x", "no path prefix"),
        ("/a%2fb=x", "no path prefix"),
        ("/a?b=x", "no path prefix"),
        ("/a b=x", "no path prefix"),
    ],
)
def test_what_is_wrong_with_them(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"no path prefix|must start|is not /prefix") as error:
        static_mounts.parse(text)
    assert says in str(error.value)


def resolve(cwd: Path, *values: str) -> tuple[str, ...]:
    return sources.resolve({"app": "x:y", "static": list(values)}, cwd=cwd, environ={}).settings.static


def test_directories_are_those_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    assert resolve(tmp_path, "/s=public", "/=.") == (f"/s={tmp_path / 'public'}", f"/={tmp_path}")


def test_directories_must_be_there_and_prefixes_different(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as error:
        resolve(tmp_path, "/s=none", "/t=file", "/a=.", "/a/=.")
    assert [problem.split(": ", 1)[1] for problem in error.value.problems] == [
        f'static "{tmp_path / "none"}" is not a directory',
        f'static "{tmp_path / "file"}" is not a directory',
        "static /a is given twice",
    ]
