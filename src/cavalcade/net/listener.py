"""A socket that listens, and the same as data, for a process that inherits its descriptor."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from cavalcade.types import Address
from cavalcade.wire.proxy_header import plain

# Where `tcpi_unacked` stands in `struct tcp_info` (linux/tcp.h): eight bytes and four words come before it. Seven words later comes
# `tcpi_last_data_recv`, in milliseconds, which of a connection that has sent nothing counts from its beginning.
TCP_INFO_UNACKED = 24
TCP_INFO_LAST_DATA_RECV = 52

STREAM = int(socket.SOCK_STREAM)


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
    proxy_protocol: bool = False  # every connection begins with a PROXY header

    @cached_property
    def is_unix(self) -> bool:
        return self.sock.family == socket.AF_UNIX

    @cached_property
    def own_name(self) -> Address | None:
        """What our side of every connection to it is called; None where it is bound to all addresses, and each may have another."""
        if self.is_unix:
            return self.address.removeprefix("unix:"), None
        name = self.sock.getsockname()
        return None if name[0] in ("0.0.0.0", "::") else plain_name(name)

    @cached_property
    def _family(self) -> int:
        return int(self.sock.family)

    @cached_property
    def accept(self) -> Callable[[], tuple[int, Any]]:
        """What `socket.accept()` is made of: the descriptor, which blocks still, and the client's address."""
        accept: Callable[[], tuple[int, Any]] = self.sock._accept  # type: ignore[attr-defined, unused-ignore]
        return accept

    def wrap(self, fd: int) -> socket.socket:
        """A connection as Python's object, 1.4 us sooner than from `socket.accept()`, which makes an enum of the family and another of
        the type for each."""
        return socket.socket(self._family, STREAM, 0, fd)


def plain_name(name: tuple[Any, ...]) -> Address:
    """What the kernel says of one end of a connection, with an IPv4 address as such, also where the socket takes both families."""
    host = name[0]
    return (plain(ipaddress.ip_address(host)) if host.startswith("::ffff:") else host), name[1]


class Inherited(msgspec.Struct):
    """A listener as data: its descriptor, and what `Listener` knows of it.

    In an upgrade it goes from one version of the server to another, so it may only ever get more fields, with defaults."""

    fd: int
    url: str
    address: str
    file: tuple[int, int] | None = None
    proxy_protocol: bool = False


def describe(listener: Listener) -> Inherited:
    """What goes to a process that inherits the descriptor."""
    return Inherited(listener.sock.fileno(), listener.url, listener.address, listener.file, listener.proxy_protocol)


def restore(inherited: Inherited) -> Listener:
    """The listener in the process that has inherited it; no program that this one starts inherits it in turn."""
    os.set_inheritable(inherited.fd, False)
    sock = socket.socket(fileno=inherited.fd)
    sock.setblocking(False)
    return Listener(sock, inherited.url, inherited.address, inherited.file, inherited.proxy_protocol)


def with_scheme(listener: Listener, scheme: str) -> Listener:
    """The same listener, with the URL of what is spoken there: `http` or `https`."""
    _, colon, rest = listener.url.partition("://")
    return dataclasses.replace(listener, url=f"{scheme}{colon}{rest}") if colon else listener


def waiting(listener: Listener) -> int | None:
    """How many connections the kernel has established that nobody has accepted yet; None where it does not say, as for unix sockets."""
    return _tcp_info(listener.sock, TCP_INFO_UNACKED)


def queued_s(sock: socket.socket) -> float | None:
    """For how long a connection that was just accepted has had something for us: since its last bytes came, or since it was established.
    None where the kernel does not say; it counts in milliseconds, or in its own ticks of up to ten."""
    waited_ms = _tcp_info(sock, TCP_INFO_LAST_DATA_RECV)
    return None if waited_ms is None else waited_ms / 1000


def _tcp_info(sock: socket.socket, at: int) -> int | None:
    """One word of what the kernel knows of a TCP socket, Linux' at least; it knows nothing of others."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, at + 4)
    except OSError:
        return None
    return int.from_bytes(info[at:], sys.byteorder)


def close(listener: Listener) -> None:
    """Close a listener for good and remove its socket file, unless another server has put its own there since."""
    listener.sock.close()
    if listener.file is not None:
        path = listener.address.removeprefix("unix:")
        with contextlib.suppress(OSError):
            if identity(path) == listener.file:
                os.unlink(path)


def identity(path: str) -> tuple[int, int]:
    """What tells this file from another that may get its name later. Raises `OSError`."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino
