"""Who may ask, and for what. The kernel says who has connected to the unix socket; over TCP it is whoever knows the token."""

from __future__ import annotations

import enum
import hmac
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Collection
from typing import Protocol

from cavalcade.admin.answers import Answer, reject
from cavalcade.config.addresses import join
from cavalcade.observe.peers import PeerLog
from cavalcade.types import Address, Headers, Scope

ROOT = 0
BEARER = b"bearer "


class Need(enum.Enum):
    """What a route is, to those who may not have all of them."""

    PAGE = "page"  # a file of the dashboard, the same for everybody
    HEALTH = "health"
    METRICS = "metrics"
    READ = "read"
    WRITE = "write"


class Access(Protocol):
    """The doorkeeper of one listener."""

    def refuse(self, scope: Scope, need: Need) -> Answer | None:
        """The answer to who may not have this; None for who may."""


def name_user(sock: socket.socket) -> Address | None:
    """Who has connected to a unix socket, as ("user", uid); None where the system does not say, and the file's permissions must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return ("user", uid)


class UserAccess:
    """For the unix socket: the user that the server runs as, and root, whatever the permissions of the socket file have become."""

    def refuse(self, scope: Scope, need: Need) -> Answer | None:
        client = scope["client"]
        own = os.geteuid()
        if client is None or client[1] in (own, ROOT):
            return None
        text = f"This server takes orders from user {own} and from root, not from user {client[1]}."
        return reject(403, text, fix=f"Ask as user {own}, with sudo -u for example")


class TokenAccess:
    """For TCP. `hosts` are names under which it is asked beside addresses and localhost, `open_to_all` what needs no token."""

    def __init__(self, token: str, *, hosts: Collection[str], open_to_all: Collection[str], write: bool) -> None:
        self._token = token.encode("ascii")
        self._hosts = frozenset(hosts)
        self._open = frozenset([Need.PAGE, *(Need(word) for word in open_to_all)])
        self._write = write
        self._log = PeerLog()

    def refuse(self, scope: Scope, need: Need) -> Answer | None:
        headers: Headers = scope["headers"]
        if (refused := self._refuse_host(headers)) is not None:
            return refused
        if need in self._open:
            return None
        if (refused := self._refuse_token(scope, headers)) is not None:
            return refused
        if need is Need.WRITE and not self._write:
            fix = "Use the command on its machine, as its user; or start it with --admin-write"
            return reject(403, "This address is for looking only.", fix=fix)
        return None

    def _refuse_host(self, headers: Headers) -> Answer | None:
        """A page of somebody else's, whose name leads here by now, would have the browser send its own name (DNS rebinding). An address
        cannot be made to lead elsewhere."""
        host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
        name = _without_port(host)
        if name == "localhost" or name in self._hosts or _is_address(name):
            return None
        fix = f"Ask by address, or start it with --admin-hosts {name or 'NAME'}" if name.isascii() and name.isprintable() else ""
        return reject(421, f"This server is not asked as {host[:200]!r}.", fix=fix)

    def _refuse_token(self, scope: Scope, headers: Headers) -> Answer | None:
        given = next((value for name, value in headers if name == b"authorization"), b"")
        if given[: len(BEARER)].lower() == BEARER and hmac.compare_digest(given[len(BEARER) :].strip(), self._token):
            return None
        field = [(b"www-authenticate", b'Bearer realm="cavalcade"')]
        if not given:
            return reject(401, "This needs the token.", fix="Send it: Authorization: Bearer TOKEN", fields=field)
        client = scope["client"]
        self._log.closed(time.monotonic(), join(*client) if client else "?", "wrong admin token (answered 401)")
        return reject(401, "The token is wrong.", fix="It is the one of --admin-token, or in the file that the log names", fields=field)


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
