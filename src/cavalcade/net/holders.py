"""Who is in the way: the process that holds an address we want, for an error that names it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterator

import psutil

from cavalcade.errors import BindError

COMMAND_SHOWN = 60  # characters of a command line in an error


def in_use(what: str, holder: psutil.Process | None, instead: str) -> BindError:
    """The error for an address that somebody else listens on."""
    if holder is None:
        return BindError(f"{what} is in use by a process that this user may not see.", fix=instead)
    return BindError(f"{what} is in use by pid {holder.pid}{_describe(holder)}.", fix=f"{instead}, or stop it: kill {holder.pid}")


def of_port(host: str, port: int, family: socket.AddressFamily) -> psutil.Process | None:
    """Who listens on the port at an address that is in the way of ours, where this user may know."""
    wanted = ipaddress.ip_address(host.partition("%")[0])
    kind = "tcp6" if family == socket.AF_INET6 else "tcp4"
    for laddr, pid in _listening(kind):
        if not isinstance(laddr, tuple) or laddr[1] != port:
            continue
        held = ipaddress.ip_address(laddr[0].partition("%")[0])
        if held == wanted or held.is_unspecified or wanted.is_unspecified:
            return _owner(pid, kind, laddr)
    return None


def of_unix_socket(path: str, probe: socket.socket) -> psutil.Process | None:
    """Who listens on a unix socket. `probe` is connected to it, or nearly, where its backlog is full.

    The kernel tells whoever is connected which process has called listen(). That is right whatever name the file had at bind(), and it
    is told to every user.
    """
    with contextlib.suppress(OSError, AttributeError, psutil.Error):
        pid = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if pid > 0:
            return psutil.Process(pid)
    wanted = _absolute(path, os.getcwd())
    for laddr, pid in _listening("unix"):
        # The kernel keeps a path as it was given: a relative one means a file in that process's directory, not in ours.
        with contextlib.suppress(psutil.Error, OSError):
            if isinstance(laddr, str) and _absolute(laddr, psutil.Process(pid).cwd() if laddr[0] not in "/@" else "") == wanted:
                return _owner(pid, "unix", laddr)
    return None


def _absolute(path: str, folder: str) -> str:
    return path if path.startswith("@") else os.path.normpath(os.path.join(folder, path))


def _describe(process: psutil.Process) -> str:
    """` (uvicorn main:app, user deploy, up 3 h)`, with as much of it as this user may know."""
    facts: list[str] = []
    with contextlib.suppress(psutil.Error):
        command = " ".join(" ".join(process.cmdline()).split()) or process.name()  # a process title is padded
        facts.append(command if len(command) <= COMMAND_SHOWN else command[: COMMAND_SHOWN - 1] + "…")
    with contextlib.suppress(psutil.Error, KeyError):
        facts.append(f"user {process.username()}")
    with contextlib.suppress(psutil.Error):
        facts.append(f"up {_span(time.time() - process.create_time())}")
    return f" ({', '.join(facts)})" if facts else ""


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _listening(kind: str) -> Iterator[tuple[object, int]]:
    """Local address and process of every listening socket that this user may see."""
    try:
        found = psutil.net_connections(kind)
    except (psutil.Error, OSError):  # macOS shows them to root only
        return
    for conn in found:
        if conn.pid is not None and conn.laddr and conn.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
            yield conn.laddr, conn.pid


def _owner(pid: int, kind: str, laddr: object) -> psutil.Process | None:
    """The process to stop: the workers of a server share its socket, so the topmost that holds it is meant, not a worker."""
    try:
        owner = psutil.Process(pid)
    except psutil.Error:
        return None
    with contextlib.suppress(psutil.Error):
        while (parent := owner.parent()) is not None and any(conn.laddr == laddr for conn in parent.net_connections(kind)):
            owner = parent
    return owner
