"""What an object is that somebody wants served: an ASGI app, a WSGI app, a factory, or something else.

Told by how it can be called. Whatever can take `(scope, receive, send)` counts as ASGI, and so does everything whose signature
cannot be read: an app must never be refused on a guess, while a wrong refusal cannot be worked around.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CellType, ModuleType
from typing import Any, cast

from cavalcade.types import ASGIApp, Receive, Scope, Send


class Nature(enum.Enum):
    ASGI = "an ASGI app"
    ASGI2 = "an ASGI 2 app, called with the scope first"
    WSGI = "a WSGI app"
    FACTORY = "a function without arguments, most likely one that makes the app"
    ASYNC_FACTORY = "an async function without arguments"
    ROUTER = "a router"
    CLASS = "a class"
    OTHER = "something else"


@dataclass(frozen=True)
class Look:
    """What was seen. `kind` is for people: "FastAPI", "function"; `takes` is the signature, where it is not ASGI's; `sure` is False where
    it could be called as ASGI all the same."""

    nature: Nature
    kind: str
    takes: str = ""
    sure: bool = True


_FRAMEWORKS = {
    ("fastapi", "FastAPI"): "FastAPI",
    ("starlette", "Starlette"): "Starlette",
    ("django", "ASGIHandler"): "Django",
    ("django", "WSGIHandler"): "Django (WSGI)",
    ("litestar", "Litestar"): "Litestar",
    ("quart", "Quart"): "Quart",
    ("sanic", "Sanic"): "Sanic",
    ("blacksheep", "Application"): "BlackSheep",
    ("falcon", "App"): "Falcon",
    ("channels", "ProtocolTypeRouter"): "Django Channels",
    ("socketio", "ASGIApp"): "Socket.IO",
    ("flask", "Flask"): "Flask",
    ("bottle", "Bottle"): "Bottle",
    ("pyramid", "Router"): "Pyramid",
    ("aiohttp", "Application"): "aiohttp",
}
_ROUTERS = {("fastapi", "APIRouter"): "APIRouter", ("flask", "Blueprint"): "Blueprint", ("quart", "Blueprint"): "Blueprint"}


def kind_of(item: object) -> str:
    """The framework an object belongs to, or its type's name."""
    known = _listed(type(item), _FRAMEWORKS)
    if known:
        return known
    if isinstance(item, ModuleType):
        return "module"
    if isinstance(item, type):
        return "class"
    return "function" if inspect.isroutine(item) else type(item).__name__


def is_framework(item: object) -> bool:
    """Whether this is an app of a framework that is known by name."""
    return bool(_listed(type(item), _FRAMEWORKS))


def look(item: object) -> Look:
    """Tell what this object is."""
    kind = kind_of(item)
    router = _listed(type(item), _ROUTERS)
    if router:
        return Look(Nature.ROUTER, router)
    if not callable(item):
        return Look(Nature.OTHER, kind)
    if isinstance(item, type):
        return Look(_nature_of_class(item), kind)
    plain = _signature(item, follow_wrapped=False)
    if plain is None:
        return Look(Nature.ASGI, kind)
    wrapped = _signature(item, follow_wrapped=True)
    declared = plain if wrapped is None else wrapped
    function = isinstance(item, functools.partial) or inspect.isroutine(item)
    if _fits(plain, 3):
        if not _takes_any(plain):
            is_factory = function and _all_optional(plain) and not is_async(item)
            return Look(Nature.FACTORY if is_factory else Nature.ASGI, kind)
        # `def wrapper(*args, **kwargs)` takes anything; what it wraps says what it is, if that is certain.
        if _fits(declared, 3):
            return Look(Nature.WSGI, kind, sure=False) if _passes_on_wsgi(item) else Look(Nature.ASGI, kind)
        certain = _nature_of_other(item, declared, function)
        return Look(Nature.ASGI if certain is Nature.OTHER else certain, kind, str(declared))
    return Look(_nature_of_other(item, plain, function), kind, str(plain))


def adapt(item: object) -> ASGIApp:
    """An ASGI 2 app, `app(scope)(receive, send)`, as an ASGI 3 app."""
    app = cast(Callable[[Scope], Callable[[Receive, Send], Any]], item)

    async def single(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return single


def needed_arguments(item: object) -> list[str]:
    """The parameters that a call without arguments leaves open; [] where it works or nobody can tell."""
    signature = _signature(item, follow_wrapped=True)
    if signature is None or _fits(signature, 0):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, each in signature.parameters.items() if each.default is each.empty and each.kind not in variable]


def _nature_of_other(item: object, signature: inspect.Signature, function: bool) -> Nature:
    if _fits(signature, 0):
        if not function:
            return Nature.OTHER
        return Nature.ASYNC_FACTORY if is_async(item) else Nature.FACTORY
    if _fits(signature, 2) and not is_async(item):
        return Nature.WSGI
    if _fits(signature, 1) and not is_async(item) and next(iter(signature.parameters)) == "scope":
        return Nature.ASGI2
    return Nature.OTHER


def _passes_on_wsgi(item: object) -> bool:
    """Whether this is a wrapper that takes anything and has a WSGI app to call with it, and no ASGI app: what `wsgiref.validate.validator`
    returns, and a decorator without `functools.wraps`."""
    cells = getattr(item, "__closure__", None) or ()
    held = [*_contents(cells), *getattr(item, "__dict__", {}).values()]
    natures = {_nature_by_name(each) for each in held if each is not item and callable(each)}
    return Nature.WSGI in natures and Nature.ASGI not in natures


def _contents(cells: Iterable[CellType]) -> Iterator[object]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # nothing was put into it yet
            continue


def _nature_by_name(item: object) -> Nature:
    """ASGI, or WSGI where its parameters have the names of PEP 3333 too: any function of two arguments could be called as one."""
    signature = None if isinstance(item, type) else _signature(item, follow_wrapped=True)
    if signature is None:
        return Nature.OTHER
    names = list(signature.parameters)
    if len(names) == 2 and names[0].startswith("env") and names[1].startswith("start"):
        return Nature.WSGI
    return Nature.ASGI if _fits(signature, 3) and not _takes_any(signature) else Nature.OTHER


def _nature_of_class(item: type) -> Nature:
    signature = _signature(item, follow_wrapped=False)
    if signature is not None and hasattr(item, "__iter__") and _fits(signature, 2) and not _fits(signature, 1):
        return Nature.WSGI  # PEP 3333 has such a class: called with environ and start_response, its instance is the iterable
    if hasattr(item, "__await__"):  # `await App(scope, receive, send)`, as Starlette's HTTPEndpoint
        return Nature.ASGI
    call = inspect.getattr_static(item, "__call__", None)
    if signature is not None and inspect.iscoroutinefunction(call) and not _fits(signature, 3):
        first = next(iter(signature.parameters), "")
        if _fits(signature, 1) and first == "scope":
            return Nature.ASGI2
    return Nature.CLASS


def _listed(kind: type, table: dict[tuple[str, str], str]) -> str:
    for each in kind.__mro__:
        name = table.get((each.__module__.partition(".")[0], each.__name__))
        if name:
            return name
    return ""


def _signature(item: object, *, follow_wrapped: bool) -> inspect.Signature | None:
    try:
        return inspect.signature(cast(Callable[..., Any], item), follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):
        return None  # written in C, or a __signature__ that is none


def _fits(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _takes_any(signature: inspect.Signature) -> bool:
    return any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())


def _all_optional(signature: inspect.Signature) -> bool:
    """`def create_app(env="prod", debug=False, name="x")` can take three arguments, yet is no app."""
    return _fits(signature, 0) and "scope" not in signature.parameters


def is_async(item: object) -> bool:
    """Whether a call of this gives an awaitable, as far as its definition tells."""
    target = item
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(inspect.unwrap(cast(Any, target))) or inspect.iscoroutinefunction(
        getattr(type(target), "__call__", None)  # noqa: B004  (the class's method, not whether there is one)
    )
