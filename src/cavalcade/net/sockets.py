"""Listening sockets: from the text of an address to a bound socket, or to an error that names who is in the way.

The forms of an address:

- `host:port`, `[v6]:port`: a host name is listened on at every address it resolves to, IPv4 and IPv6.
- `:port` or a bare `port`: every IPv4 interface, as `0.0.0.0:port`.
- `unix:/path`, with `?mode=666` for other permissions of the socket file than 660.

One rule for IPv6, on every platform: an IPv6 socket takes IPv6 only, `[::]:8000` does not take IPv4 along. So `0.0.0.0:8000`
and `[::]:8000` can stand side by side, and who wants both says both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

import psutil

from cavalcade.errors import BindError

PRIVILEGED_PORTS = 1024  # below it, the kernel wants CAP_NET_BIND_SERVICE
UNIX_MODE = 0o660  # the user and the group; that every user of a machine may connect must be asked for
COMMAND_SHOWN = 60  # characters of a command line in an error


@dataclass(frozen=True)
class Listener:
    """A socket that listens. It is non-blocking and not inherited unless it is passed on.

    `url` is what to type into a client: a wildcard host is shown as the loopback address. `address` is what was bound, with the
    port that the kernel chose for port 0.
    """

    sock: socket.socket
    url: str
    address: str
    file: tuple[int, int] | None = None  # device and inode of a socket file, to know it again when it is to be removed


@dataclass(frozen=True)
class _Inet:
    """One address that a socket is bound to, and the text it came from."""

    family: socket.AddressFamily
    host: str
    port: int
    scope_id: int
    text: str

    @property
    def shown_host(self) -> str:
        return f"[{self.host}]" if self.family == socket.AF_INET6 else self.host


@dataclass(frozen=True)
class _Unix:
    path: str
    mode: int
    text: str


def bind_all(addresses: Sequence[str], backlog: int) -> list[Listener]:
    """Listen on every address, or on none: where one fails, those before it are closed again.

    Raises `BindError` with the address, the cause and, where another process holds it, that process by name.
    """
    listeners: list[Listener] = []
    try:
        for text in addresses:
            target = _parse(text)
            if isinstance(target, _Unix):
                listeners.append(_listen_unix(target, backlog))
            else:
                listeners.extend(_listen_everywhere(target, backlog))
    except BindError:
        for listener in listeners:
            close(listener)
        raise
    return listeners


def adopt(fd: int) -> Listener:
    """A listener from an inherited descriptor that listens already; its socket file, if it has one, belongs to whoever made it.

    Raises `OSError` for anything else than a stream socket that listens.
    """
    os.set_inheritable(fd, False)
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    sock = socket.socket(fileno=fd)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise OSError(errno.EINVAL, "it does not listen for streams")
    sock.setblocking(False)
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)
        return Listener(sock, f"unix:{path}", f"unix:{path}")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = str(name[0]), int(name[1])
    return Listener(sock, f"http://{_shown(_reachable(host))}:{port}", f"{_shown(host)}:{port}")


def with_scheme(listener: Listener, scheme: str) -> Listener:
    """The same listener, with the URL of what is spoken there: `http` or `https`."""
    _, colon, rest = listener.url.partition("://")
    return dataclasses.replace(listener, url=f"{scheme}{colon}{rest}") if colon else listener


def close(listener: Listener) -> None:
    """Close a listener for good and remove its socket file, unless another server has put its own there since."""
    listener.sock.close()
    if listener.file is not None:
        path = listener.address.removeprefix("unix:")
        with contextlib.suppress(OSError):
            if _identity(path) == listener.file:
                os.unlink(path)


# -- reading addresses ---------------------------------------------------------------------------------------------------


def _parse(text: str) -> list[_Inet] | _Unix:
    """What an address stands for. Raises `BindError` for text that is none, and for names that do not resolve."""
    if text.startswith("unix:"):
        return _parse_unix(text)
    match = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})|(?P<bare>\d{1,5})", text)
    if match is None:
        raise BindError(f"{text!r} is not an address to listen on.", fix="Use host:port, [v6]:port or unix:/path")
    port = int(match["port"] or match["bare"])
    if port > 65535:
        raise BindError(f"{text!r}: there is no port {port}.", fix="Ports go from 0 (any free one) to 65535")
    return _resolve(match["v6"] or match["host"] or "0.0.0.0", port, text)


def _parse_unix(text: str) -> _Unix:
    path, _, query = text.removeprefix("unix:").partition("?")
    options = parse_qs(query, keep_blank_values=True)
    mode = options.pop("mode", [f"{UNIX_MODE:o}"])[-1]
    if options or not re.fullmatch(r"0?[0-7]{3}", mode) or not path:
        raise BindError(f"{text!r} is not a unix socket address.", fix="Use unix:/path or unix:/path?mode=660")
    return _Unix(path, int(mode, 8), text)


def _resolve(host: str, port: int, text: str) -> list[_Inet]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise BindError(
            f'The host name "{host}" of {text} does not resolve: {reason}.', fix="Use an IP address, for example 127.0.0.1 or 0.0.0.0"
        ) from exc
    inets: dict[_Inet, None] = {}  # in the resolver's order of preference, each once
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            inets[_Inet(family, str(sockaddr[0]), port, int(sockaddr[3]) if len(sockaddr) == 4 else 0, text)] = None
    return list(inets)


# -- TCP -----------------------------------------------------------------------------------------------------------------


def _listen_everywhere(inets: list[_Inet], backlog: int) -> list[Listener]:
    """One listener for every address of a name. A family that the machine does not have is left out, where another is there."""
    listeners: list[Listener] = []
    failure: BindError | None = None
    for inet in inets:
        # With port 0 the first address takes a free port and the others must have the same one: it is one server.
        port = inet.port or (listeners[0].sock.getsockname()[1] if listeners else 0)
        try:
            listeners.append(_listen_inet(dataclasses.replace(inet, port=port), backlog))
        except BindError as exc:
            reason = exc.__cause__
            absent = isinstance(reason, OSError) and reason.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if absent and len(inets) > 1:
                failure = exc
                continue
            for listener in listeners:
                close(listener)
            raise
    if not listeners and failure is not None:
        raise failure
    return listeners


def _listen_inet(inet: _Inet, backlog: int) -> Listener:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(inet.family, socket.SOCK_STREAM)
        # So that a restart need not wait for the TIME_WAIT of old connections. It does not let two listeners share a port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if inet.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit it from the listener on Linux, which saves a system call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((inet.host, inet.port, 0, inet.scope_id) if inet.family == socket.AF_INET6 else (inet.host, inet.port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as exc:
        if sock is not None:
            sock.close()
        raise _explain_inet(inet, exc) from exc
    port = sock.getsockname()[1]
    return Listener(sock, f"http://{_shown(_reachable(inet.host))}:{port}", f"{inet.shown_host}:{port}")


def _reachable(host: str) -> str:
    """Where a client reaches a host that is listened on."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return host if not address.is_unspecified else "::1" if address.version == 6 else "127.0.0.1"


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _explain_inet(inet: _Inet, exc: OSError) -> BindError:
    port, host = inet.port, inet.shown_host
    if exc.errno == errno.EADDRINUSE:
        holder = _listening_process(port, inet)
        return _in_use(f"Port {port} on {host}", holder, f"Use another port, for example --port {port + 1 if port < 65535 else 8000}")
    if exc.errno == errno.EACCES and port < PRIVILEGED_PORTS:
        return BindError(
            f"Port {port} on {host} needs more rights than this user has: ports below {PRIVILEGED_PORTS} are the system's.",
            fix=f"Use a port from {PRIVILEGED_PORTS} up and let a proxy stand in front, or grant CAP_NET_BIND_SERVICE",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return BindError(
            f"{host} is not an address of this machine, so {inet.text} cannot be listened on.",
            fix="Use 0.0.0.0 for every interface, or 127.0.0.1 for this machine only",
        )
    if exc.errno == errno.EAFNOSUPPORT:
        return BindError(f"This machine has no IPv6, so {inet.text} cannot be listened on.", fix="Use an IPv4 address, for example 0.0.0.0")
    return BindError(f"Cannot listen on {inet.text}: {exc.strerror or exc}.")


# -- unix ----------------------------------------------------------------------------------------------------------------


def _listen_unix(target: _Unix, backlog: int) -> Listener:
    path = target.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.startswith("@"):
            _clear_the_way(target)
            # The file must never be wider open than asked, not for an instant, and Linux takes its mode from the umask of
            # the process at bind; there are no other threads here whose files could suffer from it.
            previous = os.umask(0o777 & ~target.mode)
            try:
                sock.bind(path)
            finally:
                os.umask(previous)
        else:  # Linux: a name that lives in the kernel only
            sock.bind("\0" + path[1:])
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _explain_unix(target, exc) from exc
    except BindError:
        sock.close()
        raise
    return Listener(sock, f"unix:{path}", f"unix:{path}", None if path.startswith("@") else _identity(path))


def _clear_the_way(target: _Unix) -> None:
    """Remove a socket file that nobody listens on any more. Raises `BindError` for a live one and for any other file."""
    try:
        found = os.lstat(target.path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"{target.path} is there already and is not a socket.", fix="Use another path, or move that file away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(target.path)
        except ConnectionRefusedError:  # the file outlived its server
            os.unlink(target.path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:  # a live server whose backlog is full
            pass
    raise _in_use(target.path, _unix_process(target.path), "Use another path")


def _explain_unix(target: _Unix, exc: OSError) -> BindError:
    path = target.path
    if isinstance(exc, FileNotFoundError):
        return BindError(f"The directory of {path} does not exist.", fix=f"mkdir -p {os.path.dirname(path)}")
    if isinstance(exc, PermissionError):
        return BindError(f"This user may not make {path}.", fix="Use a directory that it may write to")
    if exc.errno == errno.EADDRINUSE:
        return _in_use(path, _unix_process(path), "Use another path")
    return BindError(f"Cannot listen on {target.text}: {exc.strerror or exc}.")


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


# -- who is in the way ---------------------------------------------------------------------------------------------------


def _in_use(what: str, holder: psutil.Process | None, instead: str) -> BindError:
    if holder is None:
        return BindError(f"{what} is in use by a process that this user may not see.", fix=instead)
    return BindError(f"{what} is in use by pid {holder.pid}{_describe(holder)}.", fix=f"{instead}, or stop it: kill {holder.pid}")


def _describe(process: psutil.Process) -> str:
    """` (uvicorn main:app, user deploy, up 3 h)`, with as much of it as this user may know."""
    facts: list[str] = []
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline()) or process.name()
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


def _listening_process(port: int, inet: _Inet) -> psutil.Process | None:
    """Who listens on the port at an address that is in the way of ours, where this user may know."""
    wanted = ipaddress.ip_address(inet.host.partition("%")[0])
    kind = "tcp6" if inet.family == socket.AF_INET6 else "tcp4"
    for laddr, pid in _listening(kind):
        if not isinstance(laddr, tuple) or laddr[1] != port:
            continue
        held = ipaddress.ip_address(laddr[0].partition("%")[0])
        if held == wanted or held.is_unspecified or wanted.is_unspecified:
            return _owner(pid, kind, laddr)
    return None


def _unix_process(path: str) -> psutil.Process | None:
    """Who has a socket at this path, where this user may know."""
    wanted = _absolute(path, os.getcwd())
    for laddr, pid in _listening("unix"):
        # The kernel keeps a path as it was given: a relative one means a file in that process's directory, not in ours.
        with contextlib.suppress(psutil.Error, OSError):
            if isinstance(laddr, str) and _absolute(laddr, psutil.Process(pid).cwd() if laddr[0] not in "/@" else "") == wanted:
                return _owner(pid, "unix", laddr)
    return None


def _absolute(path: str, folder: str) -> str:
    return path if path.startswith("@") else os.path.normpath(os.path.join(folder, path))


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
