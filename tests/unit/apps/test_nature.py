"""Telling ASGI apps from everything else, without ever refusing one."""

from __future__ import annotations

import functools
import wsgiref.validate
from collections.abc import Callable
from typing import Any

import fastapi
import flask
import pytest
import starlette.applications
import starlette.endpoints
import starlette.routing
from django.core.handlers.asgi import ASGIHandler

from cavalcade.apps.nature import Nature, adapt, look


async def plain(scope: Any, receive: Any, send: Any) -> None: ...


def sync_returning_awaitable(scope: Any, receive: Any, send: Any) -> Any:
    return plain(scope, receive, send)


class Instance:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @classmethod
    async def of_class(cls, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None: ...


def careless(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    return wrapper


def careful(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(wrapped)(careless(wrapped))


def as_asgi(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """As `request_response` of Starlette: the wrapper has ASGI's signature, what it wraps has another."""

    @functools.wraps(wrapped)
    async def wrapper(scope: Any, receive: Any, send: Any) -> None: ...

    return wrapper


async def view(request: Any) -> None: ...


class Opaque:
    """A callable whose signature cannot be read."""

    __signature__ = "none"

    def __call__(self) -> None: ...


class Proxy:
    def __getattr__(self, name: str) -> Any:
        return getattr(plain, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Passing:
    """A middleware that hands on what it gets."""

    def __init__(self, app: Any, log: Callable[[Any, Any], None] = lambda level, text: None) -> None:
        self.app = app
        self.log = log

    def __call__(self, *args: Any) -> Any:
        return self.app(*args)


ASGI_APPS = {
    "asgi behind a middleware that takes anything": Passing(plain),
    "unknown behind a middleware that takes anything": Passing(None),
    "function": plain,
    "sync function": sync_returning_awaitable,
    "instance": Instance(),
    "method": Instance().method,
    "classmethod": Instance.of_class,
    "staticmethod": Instance.static,
    "lambda": lambda scope, receive, send: plain(scope, receive, send),  # noqa: PLW0108  (a lambda is the point)
    "partial": functools.partial(plain),
    "partial with a config": functools.partial(lambda config, scope, receive, send: None, "config"),
    "careless decorator": careless(plain),
    "careful decorator": careful(plain),
    "careful decorator on an instance": careful(Instance().method),
    "adapter": as_asgi(view),
    "opaque": Opaque(),
    "proxy": Proxy(),
    "C function": print,
    "optional fourth": lambda scope, receive, send, extra=None: None,
    "all optional": lambda scope=None, receive=None, send=None: None,
    "Starlette endpoint class": starlette.endpoints.HTTPEndpoint,
    "FastAPI": fastapi.FastAPI(),
    "Starlette": starlette.applications.Starlette(),
    "Starlette router": starlette.routing.Router(),
    "Django": ASGIHandler.__new__(ASGIHandler),
}


@pytest.mark.parametrize("name", sorted(ASGI_APPS))
def test_what_can_be_called_as_asgi_is_asgi(name: str) -> None:
    assert look(ASGI_APPS[name]).nature is Nature.ASGI


class Scoped:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


OTHERS: dict[str, tuple[Any, Nature]] = {
    "wsgi function": (lambda environ, start_response: [], Nature.WSGI),
    "wsgi behind a careful decorator": (careful(lambda environ, start_response: []), Nature.WSGI),
    "wsgi behind a careless decorator": (careless(lambda environ, start_response: []), Nature.WSGI),
    "wsgi behind wsgiref's validator": (wsgiref.validate.validator(lambda environ, start_response: []), Nature.WSGI),
    "wsgi behind a middleware that takes anything": (Passing(flask.Flask("x")), Nature.WSGI),
    "factory": (lambda: plain, Nature.FACTORY),
    "factory with options": (lambda config="prod", debug=False, name="x": plain, Nature.FACTORY),
    "factory behind a careful decorator": (careful(lambda: plain), Nature.FACTORY),
    "factory partial": (functools.partial(lambda config: plain, "x"), Nature.FACTORY),
    "asgi 2 class": (Scoped, Nature.ASGI2),
    "asgi 2 function": (lambda scope: Scoped(scope), Nature.ASGI2),  # noqa: PLW0108  (a lambda is the point)
    "class": (Instance, Nature.CLASS),
    "framework class": (fastapi.FastAPI, Nature.CLASS),
    "router": (fastapi.APIRouter(), Nature.ROUTER),
    "number": (3, Nature.OTHER),
    "view": (view, Nature.OTHER),
    "callable without arguments": (type("Thing", (), {"__call__": lambda self: None})(), Nature.OTHER),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_is_certainly_not_asgi_is_told_apart(name: str) -> None:
    item, nature = OTHERS[name]
    assert look(item).nature is nature


def test_frameworks_are_called_by_their_name() -> None:
    names = {name: look(ASGI_APPS[name]).kind for name in ("FastAPI", "Starlette", "Django", "function", "instance")}
    assert names == {"FastAPI": "FastAPI", "Starlette": "Starlette", "Django": "Django", "function": "function", "instance": "Instance"}


def test_a_subclass_of_a_framework_app_is_of_that_framework() -> None:
    assert look(type("Shop", (fastapi.FastAPI,), {})()).kind == "FastAPI"


def test_an_adapted_asgi_2_app_gets_scope_first_and_the_rest_after() -> None:
    seen: list[Any] = []

    class App:
        def __init__(self, scope: Any) -> None:
            seen.append(scope)

        async def __call__(self, receive: Any, send: Any) -> None:
            seen.extend([receive, send])

    call: Any = adapt(App)({"type": "http"}, "receive", "send")  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        call.send(None)
    assert seen == [{"type": "http"}, "receive", "send"]
