"""What is asked of the admin listener, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from cavalcade.admin.wishes import Wishes
from cavalcade.types import Headers

if TYPE_CHECKING:  # a command that reads an answer needs nothing of the supervisor
    from cavalcade.supervisor.desk import Desk

Fields = list[tuple[bytes, bytes]]

JSON, EVENTS = "application/json", "text/event-stream"


class Reply(msgspec.Struct, omit_defaults=True):
    """The body of every answer but those that show something: `verdict` in one word, `text` in one sentence, `fix` what to do about it."""

    verdict: str
    text: str
    fix: str = ""
    trace: str = ""
    generation: int = 0
    workers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request. `words` are those that stand for `{name}` in the route's path; `draining` is set when the listener is about to close."""

    desk: Desk
    wishes: Wishes
    draining: asyncio.Event
    words: Mapping[str, str]
    query: Mapping[str, str]
    headers: Headers = field(default_factory=list)

    def header(self, name: bytes) -> str:
        """A field of the request; several of this name as one list, "" for none."""
        return ", ".join(value.decode("latin-1") for each, value in self.headers if each == name)

    def flag(self, name: str, *, default: bool) -> bool:
        """A parameter that is on or off."""
        return self.query[name] not in ("0", "false", "no", "off") if name in self.query else default

    def number(self, name: str, *, default: int, most: int) -> int:
        """A parameter that is a number from 0 to `most`. Raises `BadRequest`."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise BadRequest(f"{name} is a number from 0 to {most}, not {text[:40]!r}.")
        return min(int(text), most)


@dataclass(frozen=True)
class Answer:
    """A response. A `stream` goes on until it ends, the client leaves or the server stops."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    fields: Fields = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None


class BadRequest(Exception):
    """What was asked for makes no sense."""


Handler = Callable[[Asked], Awaitable[Answer]]


def show(value: Any, status: int = 200, fields: Fields | None = None) -> Answer:
    """Anything as JSON."""
    return Answer(status, msgspec.json.encode(value) + b"\n", JSON, fields or [])


def say(status: int, verdict: str, text: str, *, fix: str = "", fields: Fields | None = None) -> Answer:
    """A `Reply`."""
    return show(Reply(verdict, text, fix), status, fields)


def reject(status: int, text: str, *, fix: str = "", fields: Fields | None = None) -> Answer:
    """A `Reply` that nothing has come of."""
    return say(status, "rejected", text, fix=fix, fields=fields)


def query(raw: bytes) -> dict[str, str]:
    """The parameters. A plus stays a plus, or `workers=+1` would be one worker."""
    pairs = (part.partition("=") for part in raw.decode("ascii", "replace").split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}
