"""Finding a running server by its control socket, and talking to it."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from cavalcade.admin.answers import Reply
from cavalcade.cli.asking import ANSWER_S, ask, follow
from cavalcade.errors import ChangeRefused, ControlError, UsageError
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.status import Status


@dataclass(frozen=True)
class Choice:
    """Which server is meant, as far as it was said. `control` is a path, or "" to look for it; `origin` is where it was said, where it
    was not on the command line."""

    control: str = ""
    pid: int = 0
    name: str = ""
    origin: str = ""

    @property
    def said(self) -> str:
        return f" ({self.origin})" if self.origin else ""


@dataclass(frozen=True)
class Instance:
    """A running server and its status when it was found."""

    path: Path
    status: Status
    raw: bytes

    @property
    def label(self) -> str:
        status = self.status
        app = f" ({status.app})" if status.app != status.name else ""
        return f"{status.name}{app}, pid {status.pid}, {', '.join(status.listeners)}"

    def get(self, *words: str, **query: object) -> bytes:
        """What there is to see, as JSON. Raises as `post`."""
        return self._ask("GET", words, query)

    def follow(self, *words: str, **query: object) -> Iterator[tuple[str, bytes]]:
        """Events and their data, until the server stops. Raises `ControlError`."""
        try:
            yield from follow(self.path, _target(words, query))
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"{self.label}: it does not tell: {_reason(error)}.", fix="Look at its log") from error

    def post(self, *words: str, wait: bool = True, **query: object) -> Reply:
        """Ask for something and wait until it is done. Raises `UsageError` where it makes no sense, `ChangeRefused` where it has
        failed, `ControlError` where the server stops or is lost."""
        return msgspec.json.decode(self._ask("POST", words, {**query, **({} if wait else {"wait": 0})}, timeout=None), type=Reply)

    def _ask(self, method: str, words: Sequence[str], query: Mapping[str, object], timeout: float | None = ANSWER_S) -> bytes:
        try:
            status, body = ask(self.path, method, _target(words, query), timeout)
            if status in (200, 202):
                return body
            reply = msgspec.json.decode(body, type=Reply)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise ControlError(f"{self.label}: it did not answer: {_reason(error)}.", fix="Look at its log") from error
        kind = {403: ControlError, 409: ChangeRefused, 503: ControlError}.get(status, UsageError)
        raise kind(reply.text, fix=reply.fix, trace=reply.trace)


def _target(words: Sequence[str], query: Mapping[str, object]) -> str:
    path = f"/{'/'.join(quote(word, safe='') for word in words)}"
    return f"{path}?{urlencode(query)}" if query else path


def find(choice: Choice, environ: Mapping[str, str]) -> Instance:
    """The one server that is meant. Raises `ControlError` where there is none, `UsageError` where there are several."""
    if choice.control:
        return _at(Path(choice.control), choice.said)
    running, _ = look_through(environ)
    fits = [each for each in running if choice.pid in (0, each.status.pid) and choice.name in ("", each.status.name, each.status.app)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        fix = "Say --pid PID, --name NAME or --control PATH"
        raise UsageError(f"{len(fits)} servers are running; which one is meant?", fix=fix, trace=_list(fits))
    if running:
        raise ControlError(f"No running server has {_wanted(choice)}{choice.said}.", trace=_list(running))
    places = ", ".join(str(directory) for directory in runtime_dir.candidates(environ))
    fix = f"Only servers of this user ({os.getuid()}) are found, in {places}. For one started with --control PATH say the same here"
    raise ControlError("No running server was found.", fix=fix)


def _list(instances: list[Instance]) -> str:
    return "\n".join(each.label for each in instances)


def _wanted(choice: Choice) -> str:
    return " and ".join(f"{what} {value}" for what, value in (("pid", choice.pid), ("name", choice.name)) if value)


def look_through(environ: Mapping[str, str]) -> tuple[list[Instance], dict[Path, str]]:
    """Every running server of this user, and of the other sockets why they do not answer: whose server is gone, or going."""
    found, silent = [], {}
    for path in runtime_dir.sockets(environ):
        try:
            found.append(_get_status(path))
        except (OSError, ControlError, http.client.HTTPException, msgspec.DecodeError) as error:
            silent[path] = _reason(error)
    return found, silent


def _at(path: Path, said: str) -> Instance:
    try:
        return _get_status(path)
    except FileNotFoundError:
        raise ControlError(f"There is no control socket {path}{said}.", fix="Was the server started with this --control?") from None
    except ConnectionRefusedError:
        raise ControlError(f"Nobody listens on {path}{said}.", fix="The server that made it is gone: start it again") from None
    except PermissionError:
        fix = f"It is for its own user: {_owner(path)}"
        raise ControlError(f"This user ({os.getuid()}) may not connect to {path}{said}.", fix=fix) from None
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise ControlError(f"{path}{said} does not answer as a control socket: {_reason(error)}.") from error


def _owner(path: Path) -> str:
    try:
        return f"ask as user {path.stat().st_uid}, with sudo -u for example"
    except OSError:
        return "not even its directory can be looked into"


def _get_status(path: Path) -> Instance:
    status, body = ask(path, "GET", "/status")
    if status == 403:
        refused = msgspec.json.decode(body, type=Reply)
        raise ControlError(f"{path}: {refused.text}", fix=refused.fix)
    if status != 200:
        raise http.client.HTTPException(f"status {status}")
    return Instance(path, msgspec.json.decode(body, type=Status), body)


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
