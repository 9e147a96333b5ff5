"""The `environ` of a WSGI request (PEP 3333, "environ Variables"; RFC 3875 section 4.1).

Its strings are "bytes as text": every character stands for one byte, as latin-1 has it.

What all requests of a connection have in common is made once, and copied. Names of header fields come from a table that learns.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from cavalcade.types import Address
from cavalcade.wire.fields import TABLE_MAX
from cavalcade.wire.sink import Head

# Field names that are not handed on. RFC 3875 section 4.1.18 turns the hyphen into an underscore, so that a client could forge a field
# that a proxy in front of us sets: `X_Real_IP` would be told apart from `X-Real-IP` by nobody. And `Proxy` would become HTTP_PROXY, which
# programs take for a setting of their own (CVE-2016-5385).
DROPPED = ""

# As the engine gives it, in lower case -> the key in an environ.
KEYS: dict[bytes, str] = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"proxy": DROPPED,
}
for _name in (
    b"accept accept-encoding accept-language authorization cache-control connection cookie date expect forwarded host if-match "
    b"if-modified-since if-none-match if-range origin pragma priority range referer sec-fetch-dest sec-fetch-mode sec-fetch-site "
    b"sec-fetch-user te traceparent transfer-encoding upgrade upgrade-insecure-requests user-agent via x-forwarded-for "
    b"x-forwarded-host x-forwarded-proto x-real-ip x-request-id x-requested-with"
).split():
    KEYS[_name] = "HTTP_" + _name.decode().upper().replace("-", "_")

# The keys that are a request's own, whatever its header fields.
OWN_KEYS = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "RAW_URI", "wsgi.input")

# Targets that have been read: target -> (PATH_INFO, QUERY_STRING, the target itself). Bounded, and only short ones.
TARGETS: dict[bytes, tuple[str, str, str]] = {}
TARGET_KEPT_BYTES = 256


def learn_key(name: bytes) -> str:
    """The key of a field name that is not in the table yet; the engine has checked that it is a token."""
    key = DROPPED if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(KEYS) < TABLE_MAX and len(name) <= 64:
        KEYS[name] = key
    return key


def read_target(head: Head) -> tuple[str, str, str]:
    """(PATH_INFO, QUERY_STRING, the target as it came), of a target that is not in the table."""
    raw = head.raw_path
    path = unquote_to_bytes(raw) if b"%" in raw else raw
    split = path.decode("latin-1"), head.query.decode("latin-1"), head.target.decode("latin-1")
    if len(head.target) <= TARGET_KEPT_BYTES:
        if len(TARGETS) >= TABLE_MAX:
            TARGETS.clear()
        TARGETS[head.target] = split
    return split


def template(common: dict[str, Any], scheme: str, client: Address | None, server: Address | None) -> dict[str, Any]:
    """What all requests of one connection have in common. `common` is what all of the worker have."""
    environ = common.copy()
    # PEP 3333: neither may be empty. A unix socket has no name that would be of use in a URL, and no port.
    if server is not None and server[1] is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    else:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = "localhost", "443" if scheme == "https" else "80"
    # RFC 3875 section 4.1.8: it must be there; of a peer on a unix socket there is nothing to say.
    environ["REMOTE_ADDR"] = "" if client is None else client[0]
    if client is not None and client[1] is not None:
        environ["REMOTE_PORT"] = str(client[1])
    environ["wsgi.url_scheme"] = scheme
    if scheme == "https":
        environ["HTTPS"] = "on"
    # What `build` and the call will set: a dict that has its keys already does not grow when it is filled in.
    environ.update(dict.fromkeys(OWN_KEYS))
    return environ


def on_behalf(template: dict[str, Any], client: Address | None, scheme: str, root_path: str | None) -> dict[str, Any]:
    """What a request has in common with the others of its connection, where a proxy makes it for somebody else. None or "": not said."""
    environ = template.copy()
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ.pop("REMOTE_PORT", None)
        if client[1]:
            environ["REMOTE_PORT"] = str(client[1])
    if scheme:
        environ.pop("HTTPS", None)
        environ["wsgi.url_scheme"] = scheme
        if scheme == "https":
            environ["HTTPS"] = "on"
    if root_path is not None:
        environ["SCRIPT_NAME"] = root_path.encode("utf-8").decode("latin-1")
    return environ


def common(root_path: str, *, multithread: bool, multiprocess: bool, file_wrapper: type, draining: Any) -> dict[str, Any]:
    """What all requests of a worker have in common."""
    return {
        "SCRIPT_NAME": root_path.encode("utf-8").decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "cavalcade",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr if sys.stderr is not None else Nowhere(),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        # The end of `wsgi.input` is the end of the body, whatever the length says: a chunked body can be read until then.
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": file_wrapper,
        "cavalcade.draining": draining,
    }


def build(template: dict[str, Any], head: Head) -> dict[str, Any]:
    """The environ of one request, without `wsgi.input`. It is the app's to change: it shares nothing but what never changes."""
    environ = template.copy()
    environ["REQUEST_METHOD"] = head.method
    split = TARGETS.get(head.target)
    if split is None:
        split = read_target(head)
    environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"] = split
    version = head.version
    if version != "1.1":
        environ["SERVER_PROTOCOL"] = "HTTP/" + version
    for name, value in head.headers:
        key = KEYS.get(name)
        if key is None:
            key = learn_key(name)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                # RFC 9110 section 5.3: a field that comes more than once is a list; of cookies, RFC 6265 section 5.4 has another sign.
                text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
            environ[key] = text
    return environ


class Nowhere:
    """`wsgi.errors` of a process that has no stderr."""

    def write(self, text: str) -> None:
        pass

    def writelines(self, lines: list[str]) -> None:
        pass

    def flush(self) -> None:
        pass
