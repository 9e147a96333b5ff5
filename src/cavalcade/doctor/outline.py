"""What an app says of itself: its kind, and the paths that can be asked for without knowing more.

This runs user code, so it is a process of its own: `python -m cavalcade.doctor.outline`, the settings as JSON on stdin, the outline on
stdout. Whatever the app prints goes to stderr.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from cavalcade.apps import loader, nature
from cavalcade.config.options import Settings
from cavalcade.errors import AppLoadError

PATHS = 6  # enough to see what kind of app it is, and no more than a minute
_WRAPPERS = 10
_DOCUMENTATION = ("openapi_url", "docs_url", "redoc_url", "swagger_ui_oauth2_redirect_url")


class Outline(msgspec.Struct):
    """`interface` is "" where the app could not be imported; why, its server says better."""

    kind: str = "app"
    interface: str = ""
    paths: list[str] = []
    threaded: list[str] = []  # those of them whose endpoint is a plain function, which the framework runs in a thread
    debug: bool = False


def of(app: Any, kind: str, interface: str) -> Outline:
    """The outline of an app that has been imported."""
    inner = app
    for _ in range(_WRAPPERS):  # middleware by hand: app = CORSMiddleware(app)
        if hasattr(inner, "routes") or hasattr(inner, "url_map") or not hasattr(inner, "app"):
            break
        inner = inner.app
    found: dict[str, bool] = {}
    for path, threaded in (*_starlette(inner), *_flask(inner)):
        found.setdefault(path, threaded)
    paths = sorted(found, key=lambda path: path != "/")[:PATHS]
    return Outline(kind, interface, paths, [path for path in paths if found[path]], getattr(inner, "debug", None) is True)


def _starlette(app: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The GET routes without parameters of Starlette, FastAPI and what is mounted in them; and whether each runs in a thread."""
    routes = getattr(app, "routes", None)
    if not isinstance(routes, list | tuple):
        return
    # FastAPI keeps routers that are included as they are, and shows their routes by this only.
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    unasked = {getattr(app, name, None) for name in _DOCUMENTATION}
    for route in contexts(routes) if contexts is not None else routes:
        path, methods = getattr(route, "path", None), getattr(route, "methods", None)
        if not isinstance(path, str) or "{" in path:
            continue
        if methods is None:
            yield from _starlette(getattr(route, "app", None), prefix + path)
        elif "GET" in methods and path not in unasked and not _needs_more(route):
            endpoint = getattr(route, "endpoint", None)
            yield prefix + path or "/", inspect.isroutine(endpoint) and not nature.is_async(endpoint)


def _needs_more(route: Any) -> bool:
    """Whether FastAPI wants a query, a header or a cookie that has no default."""
    wants = getattr(route, "dependant", None)
    fields = [field for kind in ("query", "header", "cookie") for field in getattr(wants, f"{kind}_params", None) or ()]
    return any(_required(field) for field in fields)


def _required(field: Any) -> bool:
    info: Any = getattr(field, "field_info", None)
    return bool(info.is_required()) if hasattr(info, "is_required") else bool(getattr(field, "required", False))


def _flask(app: Any) -> Iterator[tuple[str, bool]]:
    """The GET rules without arguments of a Flask app."""
    url_map: Any = getattr(app, "url_map", None)
    if not hasattr(url_map, "iter_rules"):
        return
    for rule in url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments:
            yield rule.rule, False


def main() -> int:
    """Read, import, tell."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    told = os.dup(1)
    os.dup2(2, 1)
    try:
        loaded = loader.load(settings)
    except AppLoadError:
        return AppLoadError.exit_code
    outline = of(loaded.app, nature.kind_of(loaded.app), loaded.interface)
    os.write(told, msgspec.json.encode(outline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
