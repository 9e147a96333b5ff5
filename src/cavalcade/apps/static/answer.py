"""The answer to a request for a file: everything that touches the disk, so it runs in a thread.

Which file it is, is decided on what the path means and not on how it is written: the directory and the file are resolved, and one that
lies outside, by a symbolic link for example, is not found. The file that is sent is the one that was looked at.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from email.utils import formatdate
from mimetypes import MimeTypes

from cavalcade import limits
from cavalcade.apps.span import Span
from cavalcade.apps.static.conditions import CODINGS, UNSATISFIABLE, choose_coding, chosen_range, etag_of, fields_of, precondition
from cavalcade.types import Headers

INDEX = "index.html"

# What means that there is nothing to be had under this name.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR)
# A FIFO would block, a terminal would become ours; what was resolved is no link any more.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW

TEXT = (b"content-type", b"text/plain; charset=utf-8")
# So that a person can tell our 404 from one of the app's.
REASON = (b"cavalcade-reason", b"static")

_OTHER_TYPES = {
    ".avif": "image/avif",
    ".br": "application/octet-stream",
    ".gz": "application/gzip",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".zst": "application/zstd",
}
# What the machine has in its files is left out: the same file has the same type everywhere.
_TYPES = MimeTypes(filenames=()).types_map[True] | _OTHER_TYPES


@dataclass(frozen=True)
class Wanted:
    """A request for what is in `root`. `segments` are names, decoded; `slash` says that the path ends in one."""

    root: str
    segments: tuple[str, ...]
    slash: bool
    method: str
    headers: Headers
    redirect: bytes  # where a directory without a slash is found
    cache: bytes  # Cache-Control


@dataclass(frozen=True)
class Answer:
    """A response: its body is `body`, or what `span` says."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    span: Span | None = None


def text(status: int, body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    """A short response of our own."""
    return Answer(status, [TEXT, REASON, *more, (b"content-length", b"%d" % len(body))], body)


NOT_FOUND = text(404, b"Not Found\n")


def answer(wanted: Wanted) -> Answer:
    """Raises `OSError` where the disk, or the machine, is in trouble, or the file may not be read."""
    try:
        return _answer(wanted)
    except OSError as error:
        if error.errno in _MISSING:
            return NOT_FOUND
        raise
    except ValueError:  # a name that the file system cannot have
        return NOT_FOUND


def _answer(wanted: Wanted) -> Answer:
    root = os.path.realpath(wanted.root, strict=True)
    path = os.path.join(root, *wanted.segments, *([INDEX] if wanted.slash else []))
    real = _resolve(path, root)
    fd = os.open(real, _FLAGS)
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode) and not wanted.slash and os.path.isfile(_resolve(os.path.join(path, INDEX), root)):
            return Answer(301, [(b"location", wanted.redirect), REASON, (b"content-length", b"0")])
        if not stat.S_ISREG(info.st_mode):
            return NOT_FOUND
        siblings = _siblings(path, root)
        coding = choose_coding(fields_of(wanted.headers, b"accept-encoding"), siblings)
        if coding:
            coded = os.open(siblings[coding], _FLAGS)
            os.close(fd)
            fd = coded
            info = os.fstat(fd)
        found = _represent(wanted, fd, info, content_type(path), coding, varies=bool(siblings))
        if found.span is not None:
            fd = -1  # it goes on its way
        return found
    finally:
        if fd >= 0:
            os.close(fd)


def _resolve(path: str, root: str) -> str:
    """The file itself. Raises `FileNotFoundError` for one outside of `root`."""
    real = os.path.realpath(path, strict=True)
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise FileNotFoundError(errno.ENOENT, "outside of its directory", path)
    return real


def _siblings(path: str, root: str) -> dict[str, str]:
    """The file in other codings, by the name of the coding, where somebody has put it beside it."""
    found: dict[str, str] = {}
    for coding, extension in CODINGS.items():
        try:
            if stat.S_ISREG(os.stat(path + extension).st_mode):
                found[coding] = _resolve(path + extension, root)
        except OSError:
            pass
    return found


def _represent(wanted: Wanted, fd: int, info: os.stat_result, kind: bytes, coding: str, *, varies: bool) -> Answer:
    size = info.st_size
    modified = info.st_mtime_ns // 10**9
    etag = etag_of(info.st_mtime_ns, size, coding)
    headers = [(b"etag", etag), (b"last-modified", formatdate(modified, usegmt=True).encode()), (b"cache-control", wanted.cache)]
    if varies:
        headers.append((b"vary", b"accept-encoding"))
    status = precondition(wanted.headers, etag, modified)
    if status == 304:
        return Answer(304, headers)
    if status == 412:
        return text(412, b"Precondition Failed\n")
    headers += [(b"content-type", kind), (b"x-content-type-options", b"nosniff"), (b"accept-ranges", b"bytes")]
    if coding:
        headers.append((b"content-encoding", coding.encode()))
    first, end = 0, size
    if wanted.method == "GET":
        part = chosen_range(wanted.headers, etag, modified, size, time.time())
        if part == UNSATISFIABLE:
            return text(416, b"Range Not Satisfiable\n", (b"content-range", b"bytes */%d" % size))
        if part is not None:
            first, end = part
            status = 206
            headers.append((b"content-range", b"bytes %d-%d/%d" % (first, end - 1, size)))
    count = end - first
    headers.append((b"content-length", b"%d" % count))
    if wanted.method == "HEAD":
        return Answer(status, headers)
    if count <= limits.JOIN_BYTES:
        return Answer(status, headers, os.pread(fd, count, first))
    if hasattr(os, "posix_fadvise"):
        # The loop sends it: what is read ahead now, it has not to wait for.
        os.posix_fadvise(fd, first, min(count, limits.FILE_TURN_BYTES), os.POSIX_FADV_WILLNEED)
    return Answer(status, headers, b"", Span(fd, first, count))


def content_type(path: str) -> bytes:
    """By the last extension of the name: what is compressed is sent as what it is, and not as what is in it."""
    kind = _TYPES.get(os.path.splitext(path)[1].lower(), "application/octet-stream")
    return (f"{kind}; charset=utf-8" if kind.startswith("text/") else kind).encode()
