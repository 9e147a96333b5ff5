"""Listening on a unix socket, so that its file is right from the first moment it can be seen.

The socket is bound under a name of its own beside the wanted one, gets its owner and group there, begins to listen, and only then is
renamed into place. So whoever finds the file can connect, nobody ever finds it with other permissions than those asked for, and the
file of a server that has died is replaced without a moment in between. (`ss` and `lsof` show the name at bind: the wanted one with a
dot before it and a few characters behind it.)

The mode is there at bind already: Linux takes it from the umask of the process, and there are no other threads here whose files could
suffer from that. Nothing is changed by name afterwards that follows a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator

from cavalcade.config.addresses import Bind
from cavalcade.errors import BindError
from cavalcade.net import holders
from cavalcade.net.listener import Listener, identity

MODE = 0o660  # the user and the group; that every user of a machine may connect must be asked for
PATH_BYTES = 107  # sockaddr_un, and a zero byte at its end
LOCK_WAIT_S = 1.0  # for another server that starts at the same path in this very moment


def listen(bind: Bind, backlog: int) -> Listener:
    """Listen on a path, or on a name that lives in the kernel only. Raises `BindError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if bind.path.startswith("@"):
            sock.bind("\0" + bind.path[1:])
            sock.listen(backlog)
            file = None
        else:
            with _alone_in(os.path.dirname(bind.path) or "."):
                _check_the_way(bind.path)
                _put_in_place(sock, bind, backlog)
            file = identity(bind.path)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _explain(bind, exc) from exc
    except BindError:
        sock.close()
        raise
    return Listener(sock, bind.plain, bind.plain, file, bind.proxy_protocol)


def _put_in_place(sock: socket.socket, bind: Bind, backlog: int) -> None:
    owner = _number(bind, "user", bind.user, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number(bind, "group", bind.group, lambda name: grp.getgrnam(name).gr_gid)
    mode = bind.mode if bind.mode >= 0 else MODE
    folder, name = os.path.split(bind.path)
    before = os.path.join(folder, f".{name}.{secrets.token_hex(2)}")
    if len(os.fsencode(before)) > PATH_BYTES:
        before = os.path.join(folder, f".{secrets.token_hex(3)}")
    if max(len(os.fsencode(before)), len(os.fsencode(bind.path))) > PATH_BYTES:
        cause = f"{bind.path} is too long for a unix socket: {PATH_BYTES} bytes at most."
        raise BindError(cause, fix="Use a shorter path, such as /run/app.sock")
    previous = os.umask(0o777 & ~mode)
    try:
        sock.bind(before)
    finally:
        os.umask(previous)
    try:
        if owner >= 0 or group >= 0:
            _give(before, bind, owner, group)
        sock.listen(backlog)
        os.rename(before, bind.path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(before)
        raise


def _number(bind: Bind, what: str, name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    if name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise BindError(f"{bind}: there is no {what} {name} on this machine.", fix=f"Use a {what} that exists, by name or number") from None


def _give(path: str, bind: Bind, owner: int, group: int) -> None:
    try:
        os.chown(path, owner, group, follow_symlinks=False)
    except PermissionError:
        whom = " and ".join(f"{what} {name}" for what, name in (("user", bind.user), ("group", bind.group)) if name)
        fix = "Start as root, or leave the user out and use a group that this user is in"
        raise BindError(f"This user may not give {bind.path} to {whom}.", fix=fix) from None


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Keep out another server that starts in the same directory, so that of two that find a dead one's file not both replace it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                # Somebody holds it for other reasons, or the file system has no locks: do without.
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _check_the_way(path: str) -> None:
    """Is the path free, or taken by the socket file of a server that is dead? Raises `BindError` for a live one and any other file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"{path} is there already and is not a socket.", fix="Use another path, or move that file away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):  # the file outlived its server
            return
        except BlockingIOError:  # a live server whose backlog is full
            pass
        except PermissionError:  # whose it is cannot be told
            raise BindError(f"{path} is there already, and this user may not connect to it.", fix="Use another path") from None
        raise holders.in_use(path, holders.of_unix_socket(path, probe), "Use another path")


def _explain(bind: Bind, exc: OSError) -> BindError:
    path = bind.path
    if isinstance(exc, FileNotFoundError):
        return BindError(f"The directory of {path} does not exist.", fix=f"mkdir -p {os.path.dirname(path)}")
    if isinstance(exc, PermissionError):
        return BindError(f"This user may not make {path}.", fix="Use a directory that it may write to")
    if exc.errno == errno.EADDRINUSE:  # a name in the kernel; a file that is in the way is found before
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            with contextlib.suppress(OSError):
                probe.connect("\0" + path[1:])
            return holders.in_use(path, holders.of_unix_socket(path, probe), "Use another name")
    return BindError(f"Cannot listen on {bind}: {exc.strerror or exc}.")
