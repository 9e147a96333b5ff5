"""What the doctor finds: one thing each, how grave it is, and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Gravity(enum.IntEnum):
    """The higher the graver. Only problems make the exit code 1."""

    NOTE = 1  # good to know
    ADVICE = 2  # will cost something, some day or under load
    PROBLEM = 3  # loses requests, or the app's asynchrony, or trust

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """`check` is a stable name for programs; `text` a sentence; `fix` what to do."""

    check: str
    gravity: Gravity
    text: str
    fix: str = ""
