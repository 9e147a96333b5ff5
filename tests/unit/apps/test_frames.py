"""Tracebacks cut to the user's frames."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cavalcade.apps import frames
from cavalcade.apps.frames import user_frames


def defined(file: str, code: str, module: str = "user_code", **names: Any) -> dict[str, Any]:
    """The names that code defines as if it were in this file and module."""
    space: dict[str, Any] = {"__name__": module, **names}
    exec(compile(code, file, "exec"), space)
    return space


def failing(call: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call()
    error = caught.value
    # pytest's own frame is the test's: user code, but of no interest here.
    error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
    return error


LIBRARY = "/venv/lib/python3.11/site-packages/lib/x.py"


def test_library_frames_between_and_below_the_users_are_counted() -> None:
    library = defined(LIBRARY, "def through(f):\n    inner(f)\ndef inner(f):\n    f()\n", "lib.x")
    user = defined("/app/main.py", "def outer():\n    through(fails)\ndef fails():\n    int_fails('x')\n", through=library["through"])
    user["int_fails"] = defined(LIBRARY, "def check(x):\n    raise ValueError(x)\n", "lib.y")["check"]
    text = user_frames(failing(user["outer"]))
    assert [line.strip() for line in text.splitlines() if "File" in line or "left out" in line] == [
        'File "/app/main.py", line 2, in outer',
        "[2 frames in lib left out; --traceback shows all]",
        'File "/app/main.py", line 4, in fails',
        "[1 frame in lib left out; --traceback shows all]",
    ]
    assert text.endswith("ValueError: x")


def test_whole_leaves_every_frame_in() -> None:
    library = defined(LIBRARY, "def through(f):\n    f()\n", "lib.x")
    user = defined("/app/main.py", "def outer():\n    through(lambda: 1 / 0)\n", through=library["through"])
    assert user_frames(failing(user["outer"]), whole=True).count("File") == 3


def test_our_own_frames_vanish_even_when_compiled_elsewhere() -> None:
    ours = defined("src/cavalcade/net/connection.py", "def call(f):\n    f()\n", "cavalcade.net.connection")
    user = defined("/app/main.py", "def app():\n    1 / 0\n")
    text = user_frames(failing(lambda: ours["call"](user["app"])))
    assert "connection.py" not in text
    assert "left out" not in text


def test_without_any_frame_of_the_users_the_last_of_the_library_stay() -> None:
    code = "def a(): b()\ndef b(): c()\ndef c(): d()\ndef d(): e()\ndef e(): 1 / 0\n"
    text = user_frames(failing(defined(LIBRARY, code, "lib.x")["a"]))
    assert "[2 frames left out; --traceback shows all]" in text
    assert [line.rpartition(" ")[2] for line in text.splitlines() if "File" in line] == ["c", "d", "e"]


def test_a_claimed_package_is_the_users_wherever_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_own_packages", set())
    error = failing(defined(LIBRARY, "def a():\n    1 / 0\n", "shop.main")["a"])
    assert frames.last_user_line(error) is None
    frames.claim("shop")
    line = frames.last_user_line(error)
    assert line is not None
    assert (line.filename, line.lineno) == (LIBRARY, 2)


def test_causes_and_contexts_are_cut_too() -> None:
    library = defined(LIBRARY, "def through(f):\n    f()\n", "lib.x")
    code = (
        "def outer():\n    try:\n        through(lambda: 1 / 0)\n    except ZeroDivisionError as e:\n        raise KeyError('k') from e\n"
    )
    text = user_frames(failing(defined("/app/main.py", code, through=library["through"])["outer"]))
    assert "The above exception was the direct cause" in text
    assert LIBRARY not in text


def test_the_parts_of_an_exception_group_are_cut_too() -> None:
    library = defined(LIBRARY, "def through(f):\n    f()\n", "lib.x")
    code = """
async def one():
    through(lambda: 1 / 0)
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(one())
"""
    user = defined("/app/main.py", code, through=library["through"], asyncio=asyncio)
    text = user_frames(failing(lambda: asyncio.run(user["main"]())))
    assert "ZeroDivisionError" in text
    assert LIBRARY not in text
    assert "[1 frame in lib left out; --traceback shows all]" in text


def test_an_error_that_was_never_raised_has_a_last_line_only() -> None:
    assert user_frames(ValueError("x")) == "ValueError: x"
