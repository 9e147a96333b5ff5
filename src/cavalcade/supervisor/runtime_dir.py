"""Where control sockets live: a directory that belongs to this user alone, one socket for each running server.

The directory may be in /tmp, where anybody can put anything first. So it is never trusted by its name: it must be a real directory,
ours, and closed to everybody else, or it is not used. Then nobody can put a socket there that we would talk to, nor a link that
would lead us elsewhere.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

NAME = "cavalcade"
SUFFIX = ".sock"
TOKEN_SUFFIX = ".token"
MODE = 0o700
NAME_CHARS = 40  # the path of a unix socket ends at 108 bytes, on macOS at 104
_FILE = re.compile(r".*-(\d+)\.(sock|token)", re.DOTALL)


def candidates(environ: Mapping[str, str], *, run: Path = Path("/run/user"), tmp: Path = Path("/tmp")) -> list[Path]:
    """Every directory that may hold sockets of this user, best first. A server may have been started with other variables than
    we were, so whoever looks for one looks into all."""
    found = []
    if (named := environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):  # the XDG specification: a relative one is not to be used
        found.append(Path(named) / NAME)
    found.append(run / str(os.getuid()) / NAME)
    found.append(tmp / f"{NAME}-{os.getuid()}")
    return list(dict.fromkeys(found))


def claim(directory: Path) -> None:
    """Make the directory where there is none, and make sure that it is private. Raises `OSError` with the reason."""
    try:
        directory.mkdir(MODE)
    except FileExistsError:
        pass
    check(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written to")


def check(directory: Path) -> None:
    """Raises `OSError` where it is not a directory that only this user can write to and look into."""
    found = directory.lstat()  # not stat: a link is somebody else's choice of where we go
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{directory} is not a directory")
    if found.st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to user {found.st_uid}, not to {os.getuid()}")
    if found.st_mode & 0o077:
        raise PermissionError(f"{directory} is open to others (mode {stat.S_IMODE(found.st_mode):o}, not {MODE:o})")


def socket_path(directory: Path, name: str, pid: int) -> Path:
    """The socket of one server: its name, for people, and its pid, so that no two have the same."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:NAME_CHARS] or "app"
    return directory / f"{plain}-{pid}{SUFFIX}"


def token_path(directory: Path, name: str, pid: int) -> Path:
    """Where a server keeps a token that it has made, beside its socket."""
    return socket_path(directory, name, pid).with_suffix(TOKEN_SUFFIX)


def write_private(path: Path, text: str) -> None:
    """A new file for this user only. Raises `OSError`; where there is one of this name, it is another's and in the way."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """Every socket in the directories that can be trusted, those of dead servers among them."""
    for directory in candidates(environ):
        try:
            check(directory)
            yield from sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
        except OSError:
            continue


def clean(directory: Path) -> None:
    """Remove the sockets and tokens of servers that are gone without having done so: killed, or the machine lost power."""
    for path in sorted([*directory.glob(f"*{SUFFIX}"), *directory.glob(f"*{TOKEN_SUFFIX}")]):
        try:
            if _is_stale(path):
                path.unlink()
        except OSError:
            continue  # somebody else was faster


def _is_stale(path: Path) -> bool:
    """Nobody listens on it, and nobody is about to: between its bind() and its listen() a server that starts refuses too.

    The pid alone says nothing: it may be used again, and a server in a container has another one there.
    """
    found = path.lstat()
    match = _FILE.fullmatch(path.name)
    if match is None or stat.S_ISSOCK(found.st_mode) is not (path.suffix == SUFFIX):
        return False
    return (path.suffix != SUFFIX or _is_silent(path)) and _is_dead(int(match[1]), found.st_mtime)


def _is_silent(path: Path) -> bool:
    """Nobody listens on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # it lives, and its backlog is full
            return False
    return False


def _is_dead(pid: int, since: float) -> bool:
    """There is no such process, or it has begun later than that."""
    try:
        return psutil.Process(pid).create_time() > since
    except psutil.Error:
        return True
