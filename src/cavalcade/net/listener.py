"""A socket that listens, and the same as data, for a process that inherits its descriptor."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

# Where `tcpi_unacked` stands in `struct tcp_info` (linux/tcp.h): eight bytes and four words come before it.
TCP_INFO_UNACKED = 24
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
    def own_name(self) -> tuple[str, int] | None:
        """What our side of every connection to it is called; None where it is bound to all addresses, and each may have another."""
        name = self.sock.getsockname()
        return None if name[0] in ("0.0.0.0", "::") else (name[0], name[1])

    @cached_property
    def _family(self) -> int:
        return int(self.sock.family)

    def accept(self) -> tuple[socket.socket, Any]:
        """What `socket.accept()` gives, 1.4 us sooner: that makes an enum of the family and another of the type for each."""
        fd, address = self.sock._accept()  # type: ignore[attr-defined, unused-ignore]
        return socket.socket(self._family, STREAM, 0, fd), address


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
    if not sys.platform.startswith("linux") or listener.sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    except OSError:
        return None
    return int.from_bytes(info[TCP_INFO_UNACKED:], sys.byteorder)


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
