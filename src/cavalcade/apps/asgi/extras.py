"""What is in the messages of ASGI extensions: files (`http.response.pathsend`, `http.response.zerocopysend`), links and trailers.

Everything wrong with them is an `AppProtocolError`, a missing file too: an `OSError` out of `send` says that the client is gone.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from cavalcade.apps.span import Span
from cavalcade.errors import AppProtocolError
from cavalcade.wire.fields import check_trailers

# A FIFO would block, a terminal would become ours: none of them is opened by mistake.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def items(message: Any, key: str) -> list[Any]:
    """A list in a message. Raises `AppProtocolError` for what is none."""
    try:
        return list(message.get(key, ()))
    except TypeError:
        raise AppProtocolError(f"the {key} of {message['type']} are {type(message[key]).__name__}, not a list") from None


def wanted_trailers(scope: dict[str, Any], trailers: list[Any]) -> list[Any]:
    """Those that the client has asked for: all of them or, without `TE: trailers`, none (ASGI extensions, "HTTP Trailers").

    Raises `AppProtocolError` for what can be no trailers, wanted or not."""
    check_trailers(trailers)
    wanted = any(name == b"te" and b"trailers" in value.lower() for name, value in scope["headers"])
    return trailers if wanted else []


def read(span: Span) -> bytes:
    """All of a small file, whose descriptor is closed."""
    try:
        data = os.pread(span.fd, span.count, span.offset)
    except OSError as error:
        raise AppProtocolError(f"the file cannot be read: {error.strerror}") from error
    finally:
        os.close(span.fd)
    return data


def open_path(message: Any, most: int) -> Span:
    """The file of an `http.response.pathsend`, at most `most` bytes of it unless that is -1: it may have grown since the app looked.

    The specification wants an absolute path. Starlette's `FileResponse` passes on what it was given, so a relative one will do."""
    path = message.get("path")
    if type(path) is not str and isinstance(path, os.PathLike):
        path = os.fspath(path)
    if not isinstance(path, str):
        raise AppProtocolError(f"the path of {message['type']} is {type(path).__name__}, not str")
    try:
        fd = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        why = error.strerror if isinstance(error, OSError) else error
        raise AppProtocolError(f"{message['type']} of {path!r}: {why}") from error
    try:
        size = regular_size(fd, message["type"], path)
    except AppProtocolError:
        os.close(fd)
        raise
    return Span(fd, 0, size if most < 0 else min(size, most))


def open_file(message: Any) -> Span:
    """The part of the file of an `http.response.zerocopysend`. Its descriptor is a copy: the app closes its own when it likes."""
    kind = message["type"]
    file = message.get("file")
    fd = _fileno(file, kind)
    size = regular_size(fd, kind)
    offset = _number(message, "offset")
    count = _number(message, "count")
    plain = isinstance(file, int) or not hasattr(file, "seek")
    at = offset
    if at is None:
        # What a buffered file has read ahead, the descriptor has behind it.
        at = os.lseek(fd, 0, os.SEEK_CUR) if plain else file.tell()
    left = max(0, size - at)
    if count is None:
        count = left
    elif count > left:
        raise AppProtocolError(f"{kind} of {count} bytes from {at} on, of a file that has {size}")
    if offset is None:  # from its position, and so past what is sent
        if plain:
            os.lseek(fd, at + count, os.SEEK_SET)
        else:
            file.seek(at + count)
    return Span(os.dup(fd), at, count)


def regular_size(fd: int, kind: str, path: str | None = None) -> int:
    """The size of a regular file in bytes. Raises `AppProtocolError` for anything else, which names the message and the path."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        what = kind if path is None else f"{kind} of {path!r}"
        raise AppProtocolError(f"{what}: {'a directory' if stat.S_ISDIR(info.st_mode) else 'no regular file'}")
    return info.st_size


def _fileno(file: Any, kind: str) -> int:
    if isinstance(file, int) and not isinstance(file, bool):
        fd = file
    else:
        try:
            fd = file.fileno()
        except (AttributeError, OSError, ValueError) as error:  # as a BytesIO, or a file that is closed
            cause = f"the file of {kind} is {type(file).__name__} without a descriptor"
            raise AppProtocolError(cause, fix="Send what is in it as http.response.body.") from error
    try:
        os.fstat(fd)
    except OSError as error:
        raise AppProtocolError(f"the file of {kind} is descriptor {fd}: {error.strerror}") from error
    return fd


def _number(message: Any, key: str) -> int | None:
    value = message.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise AppProtocolError(f"the {key} of {message['type']} is {value!r}, not a number of bytes")
    return value
