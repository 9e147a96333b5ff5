"""Finding a running server by its control socket, and talking to it: HTTP over a unix socket, with the standard library."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from cavalcade.admin.answers import Reply
from cavalcade.errors import ChangeRefused, ControlError, UsageError
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.status import Status

ANSWER_S = 10.0  # for what is answered at once; a supervisor never waits for anything


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout)
        self.sock.connect(str(self._path))


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

    def post(self, *words: str, wait: bool = True, **query: object) -> Reply:
        """Ask for something and wait until it is done. Raises `UsageError` where it makes no sense, `ChangeRefused` where it has
        failed, `ControlError` where the server stops or is lost."""
        target = f"/{'/'.join(quote(word, safe='') for word in words)}"
        parameters = urlencode({**query, **({} if wait else {"wait": 0})})
        try:
            status, body = _ask(self.path, "POST", f"{target}?{parameters}" if parameters else target, None)
            reply = msgspec.json.decode(body, type=Reply)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise ControlError(f"{self.label}: it did not answer: {_reason(error)}.", fix="Look at its log") from error
        if status in (200, 202):
            return reply
        kind = {403: ControlError, 409: ChangeRefused, 503: ControlError}.get(status, UsageError)
        raise kind(reply.text, fix=reply.fix, trace=reply.trace)


def find(choice: Choice, environ: Mapping[str, str]) -> Instance:
    """The one server that is meant. Raises `ControlError` where there is none, `UsageError` where there are several."""
    if choice.control:
        return _at(Path(choice.control), choice.said)
    running = _running(environ)
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


def _running(environ: Mapping[str, str]) -> list[Instance]:
    found = []
    for path in runtime_dir.sockets(environ):
        try:
            found.append(_get_status(path))
        except (OSError, ControlError, http.client.HTTPException, msgspec.DecodeError):
            continue  # it is gone, or going, or not ours
    return found


def _at(path: Path, said: str) -> Instance:
    try:
        return _get_status(path)
    except FileNotFoundError:
        raise ControlError(f"There is no control socket {path}{said}.", fix="Was the server started with this --control?") from None
    except ConnectionRefusedError:
        raise ControlError(f"Nobody listens on {path}{said}.", fix="The server that made it is gone: start it again") from None
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise ControlError(f"{path}{said} does not answer as a control socket: {_reason(error)}.") from error


def _get_status(path: Path) -> Instance:
    status, body = _ask(path, "GET", "/status", ANSWER_S)
    if status == 403:
        refused = msgspec.json.decode(body, type=Reply)
        raise ControlError(f"{path}: {refused.text}", fix=refused.fix)
    if status != 200:
        raise http.client.HTTPException(f"status {status}")
    return Instance(path, msgspec.json.decode(body, type=Status), body)


def _ask(path: Path, method: str, target: str, timeout: float | None) -> tuple[int, bytes]:
    connection = _Connection(path, timeout)
    try:
        connection.request(method, target, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
