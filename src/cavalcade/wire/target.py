"""Request targets: their forms (RFC 9112 section 3.2), and their parts as ASGI has them."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from cavalcade.errors import PeerError
from cavalcade.wire import fields

# Origin-form targets that have been read: target -> (path, raw path, query). Bounded, and only short ones.
TARGETS: dict[bytes, tuple[str, bytes, bytes]] = {}
TARGET_KEPT_BYTES = 256


def read_target(target: bytes, method: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[str, bytes, bytes]:
    """(path, raw path, query) of a request target; the path is percent-decoded UTF-8 (ASGI HTTP spec, `path`).

    The host of an absolute-form target replaces the Host in `headers`. Raises `PeerError` for what is no target.
    """
    if b"#" in target:
        raise PeerError("a fragment in the request target")
    if target[:1] == b"/":
        return _keep(target)
    if target == b"*":
        if method != b"OPTIONS":
            raise PeerError("request target * with a method other than OPTIONS")
        return "*", b"*", b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise PeerError("a request target that is neither a path nor a URL")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    host = rest[:cut]
    if not host:
        raise PeerError("a request target without a host")
    fields.check_host(host)
    # RFC 9112 section 3.2.2: the Host field is ignored, the host of the target takes its place.
    for at, (name, _) in enumerate(headers):
        if name == b"host":
            headers[at] = (name, host)
    path = rest[cut:]
    return _keep(path if path[:1] == b"/" else b"/" + path)


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """The same of a target that is known to be in origin form."""
    raw_path, _, query = target.partition(b"?")
    path = (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode("utf-8", "replace")
    return path, raw_path, query


def _keep(target: bytes) -> tuple[str, bytes, bytes]:
    split = split_target(target)
    if len(target) <= TARGET_KEPT_BYTES:
        if len(TARGETS) >= fields.TABLE_MAX:
            TARGETS.clear()
        TARGETS[target] = split
    return split
