"""Listening sockets: from the text of an address (config/addresses.py has the forms) to a socket that listens, or to an error that
names who is in the way."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from cavalcade.config import addresses
from cavalcade.config.addresses import Bind
from cavalcade.errors import BindError
from cavalcade.net import holders, unix_listener
from cavalcade.net.listener import Listener, close

PRIVILEGED_PORTS = 1024  # below it, the kernel wants CAP_NET_BIND_SERVICE
PORT_0_TRIES = 8  # a port that is free at one address of a name may be taken at the next


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


def bind_all(texts: Sequence[str], backlog: int) -> list[Listener]:
    """Listen on every address, or on none: where one fails, those before it are closed again.

    Raises `BindError` with the address, the cause and, where another process holds it, that process by name.
    """
    listeners: list[Listener] = []
    try:
        for text in texts:
            listeners.extend(_listen(parse(text), backlog))
    except BindError:
        for listener in listeners:
            close(listener)
        raise
    return listeners


def parse(text: str) -> Bind:
    """An address, taken apart. Raises `BindError`."""
    try:
        return addresses.parse(text)
    except ValueError as problem:
        raise BindError(f"{problem}.", fix="Use host:port, [v6]:port, unix:/path or fd://N") from None


def _listen(bind: Bind, backlog: int) -> list[Listener]:
    if bind.kind == "unix":
        return [unix_listener.listen(bind, backlog)]
    if bind.kind == "tcp":
        found = _listen_everywhere(_resolve(bind.host, bind.port, bind.plain), backlog)
        return [dataclasses.replace(listener, proxy_protocol=bind.proxy_protocol) for listener in found]
    try:
        return [dataclasses.replace(adopt(bind.fd), proxy_protocol=bind.proxy_protocol)]
    except OSError as error:
        fix = "It must be a stream socket that listens, and be inherited: systemd's are numbered from 3"
        raise BindError(f"{bind.plain} cannot be listened on: {error.strerror}.", fix=fix) from error


def adopt(fd: int) -> Listener:
    """A listener from an inherited descriptor that listens already; its socket file, if it has one, belongs to whoever made it.

    Raises `OSError` for anything else than a stream socket that listens.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    sock = socket.socket(fileno=fd)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise OSError(errno.EINVAL, "it does not listen for streams")
    os.set_inheritable(fd, False)
    sock.setblocking(False)
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)
        return Listener(sock, f"unix:{path}", f"unix:{path}")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = str(name[0]), int(name[1])
    return Listener(sock, f"http://{_shown(_reachable(host))}:{port}", f"{_shown(host)}:{port}")


# -- TCP -----------------------------------------------------------------------------------------------------------------


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


def _listen_everywhere(inets: list[_Inet], backlog: int) -> list[Listener]:
    """One listener for every address of a name. A family that the machine does not have is left out, where another is there."""
    tries = PORT_0_TRIES if inets and not inets[0].port and len(inets) > 1 else 1
    while True:
        tries -= 1
        try:
            return _listen_once(inets, backlog)
        except BindError as error:
            if not tries or not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise


def _listen_once(inets: list[_Inet], backlog: int) -> list[Listener]:
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
        holder = holders.of_port(inet.host, port, inet.family)
        instead = f"Use another port, for example --port {port + 1 if port < 65535 else 8000}"
        return holders.in_use(f"Port {port} on {host}", holder, instead)
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
