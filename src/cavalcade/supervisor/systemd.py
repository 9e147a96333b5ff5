"""What systemd and we say to each other: sockets that it has opened for us, and how we are.

Three conventions of environment variables, all of sd_notify(3) and sd_listen_fds(3), and nothing else of systemd is needed:

- LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: descriptors from 3 up are sockets that listen already (socket activation). They stay open
  while the server is restarted, so nobody is ever refused.
- NOTIFY_SOCKET: a datagram socket that wants to know when we are ready, reload, stop, and what we do.
- WATCHDOG_USEC, WATCHDOG_PID: tell at least this often that all is well, or be killed and started anew.

The variables are taken out of the environment: what the app starts is not meant by them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import time
from collections.abc import MutableMapping, Sequence

from cavalcade.errors import BindError
from cavalcade.net import sockets
from cavalcade.net.listener import Listener

log = logging.getLogger("cavalcade")

FIRST_FD = 3  # SD_LISTEN_FDS_START
_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOTIFY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def take_sockets(environ: MutableMapping[str, str]) -> list[Listener]:
    """The sockets that systemd has opened for this process, none where there are none. Removes the variables.

    Raises `BindError` for a descriptor that is no listening stream socket.
    """
    pid, count, names = (environ.pop(name, "") for name in _LISTEN)
    if not (pid.isdigit() and count.isdigit() and int(pid) == os.getpid()):
        return []  # they are somebody else's, who has started us
    labels = names.split(":") if names else []
    listeners: list[Listener] = []
    for place in range(int(count)):
        fd = FIRST_FD + place
        label = labels[place] if place < len(labels) else ""
        try:
            listeners.append(sockets.adopt(fd))
        except OSError as error:
            name = f"{fd} ({label})" if label else str(fd)
            fix = "The .socket unit must say ListenStream=, and Accept=no"
            raise BindError(f"Descriptor {name} of LISTEN_FDS is not a socket that listens: {error.strerror}.", fix=fix) from error
    return listeners


def choose(inherited: list[Listener], asked: Sequence[str]) -> tuple[list[Listener], list[str], list[str]]:
    """What to use of inherited sockets where addresses were asked for as well: (those to use, addresses left to bind, notes).

    An address that is open already, or named as fd://3, is not opened again; a socket that nobody has asked for is closed here, so that
    its clients are not left waiting by us.
    """
    open_already = {name: each for each in inherited for name in (each.address, f"fd://{each.sock.fileno()}")}
    used: list[Listener] = []
    rest: list[str] = []
    notes: list[str] = []
    for text in asked:
        bind = sockets.parse(text)
        found = open_already.get(bind.plain)
        if found is None:
            rest.append(text)
            continue
        used.append(dataclasses.replace(found, proxy_protocol=bind.proxy_protocol))
        if bind.mode >= 0 or bind.user or bind.group:
            notes.append(f"{bind}: mode, user and group are those that the .socket unit says")
    taken = {each.sock for each in used}
    for each in inherited:
        if each.sock not in taken:
            notes.append(f"{each.address} of LISTEN_FDS is not used: --bind says where to listen")
            each.sock.close()
    return used, rest, notes


class Notifier:
    """Tells the service manager how we are; where there is none, nothing happens. It never blocks and never raises."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes the variables out of `environ`."""
        self._said = {name: environ.pop(name) for name in _NOTIFY if name in environ}
        address = self._said.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # the kernel's own names begin with a zero byte
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address.startswith(("/", "@")) else None
        if self._socket is not None:
            self._socket.setblocking(False)
        usec, pid = self._said.get("WATCHDOG_USEC", ""), self._said.get("WATCHDOG_PID", str(os.getpid()))
        wanted = self._socket is not None and usec.isdigit() and pid == str(os.getpid())
        self.watchdog_s = int(usec) / 2e6 if wanted else 0.0
        """How often `alive` should be called, in seconds: half of what would be too late. 0 where nobody watches."""

    @property
    def successor_environ(self) -> dict[str, str]:
        """The variables for a process that takes over from this one."""
        return {name: value for name, value in self._said.items() if name != "WATCHDOG_PID"}

    def ready(self, status: str) -> None:
        """We serve: after the start, and after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """The code or the server itself is being replaced; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """All is well."""
        self._send("WATCHDOG=1")

    def succeed(self, pid: int) -> None:
        """Another process is the service from here on; what we do next is not the service's."""
        self._send(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.watchdog_s = 0.0

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.debug("NOTIFY_SOCKET: %s", error)
