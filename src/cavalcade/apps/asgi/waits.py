"""The coroutines of an exchange. They are here because a compiled module must not have any: what Cython makes of `async def`
is no `types.CoroutineType`, and frameworks look.
"""

from __future__ import annotations

from inspect import CO_COROUTINE, CO_ITERABLE_COROUTINE
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cavalcade.apps.asgi.order import FILE, NOTHING
from cavalcade.errors import CavalcadeError

if TYPE_CHECKING:
    from cavalcade.apps.asgi.exchange import Exchange
    from cavalcade.apps.stream import Pipe


class ClientDisconnected(CavalcadeError, OSError):
    """The client is gone; raised by `send` after that (ASGI HTTP spec 2.4, `send` after disconnect)."""


_HINT = (
    "The app was called as ASGI, with (scope, receive, send), and failed before it gave anything to await. "
    "If it is a WSGI app whose signature does not tell, say so: --interface wsgi"
)

# Starlette's names of the same.
_STARLETTE = ("ClientDisconnect", "WebSocketDisconnect")


def is_disconnect(error: BaseException) -> bool:
    """Is this our own `ClientDisconnected`, or what frameworks make of it and of http.disconnect?"""
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(inner) for inner in error.exceptions)
    if isinstance(error, ClientDisconnected) or type(error).__name__ in _STARLETTE:
        return True
    return error.__cause__ is not None and is_disconnect(error.__cause__)


def as_the_app_saw(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """For the log: the error without the frame of ours that called the app."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), error, trace


def hint_at_wsgi(error: BaseException) -> None:
    """Add what to do where it looks as if a WSGI app were called as ASGI: it did not take the arguments, or returned no awaitable."""
    trace = error.__traceback__
    trace = None if trace is None else trace.tb_next  # behind our own frame
    while trace is not None:
        if trace.tb_frame.f_code.co_flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE):
            return  # it was awaited, so it is ASGI
        trace = trace.tb_next
    error.add_note(_HINT)


async def run(exchange: Exchange) -> None:
    """The task of one request."""
    try:
        await exchange.serving.app(exchange.scope, exchange.receive, exchange.send)
    except BaseException as error:  # noqa: BLE001  the border to the app: whatever it raises, sys.exit() too, ends here and is logged
        if exchange.sent == NOTHING and isinstance(error, TypeError | AssertionError):
            hint_at_wsgi(error)
        exchange.app_raised(error)
    else:
        exchange.app_returned()


async def next_message(exchange: Exchange) -> dict[str, Any]:
    """`receive()`."""
    message = exchange.take_news()
    while message is None:
        await exchange.wait_news()
        message = exchange.take_news()
    return message


async def writable(exchange: Exchange) -> None:
    """`send()` when the client takes less than the app gives."""
    await exchange.stream.wait_writable()
    if exchange.gone and not exchange.is_complete():
        raise ClientDisconnected("the client is gone")


async def file_sent(exchange: Exchange) -> None:
    """`send()` of a file."""
    while exchange.sent == FILE and not exchange.gone:
        await exchange.wait_file()
    if exchange.gone and not exchange.is_complete():
        raise ClientDisconnected("the client is gone")


async def pipe_writable(exchange: Exchange, pipe: Pipe) -> None:
    """`send()` on a WebSocket whose client takes less than the app gives."""
    await pipe.wait_writable()
    if exchange.gone and not exchange.is_complete():
        raise ClientDisconnected("the WebSocket is closed")
