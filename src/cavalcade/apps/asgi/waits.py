"""The coroutines of an exchange. They are here because a compiled module must not have any: what Cython makes of `async def`
is no `types.CoroutineType`, and frameworks look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cavalcade.errors import CavalcadeError

if TYPE_CHECKING:
    from cavalcade.apps.asgi.exchange import Exchange


class ClientDisconnected(CavalcadeError, OSError):
    """The client is gone; raised by `send` after that (ASGI HTTP spec 2.4, `send` after disconnect)."""


async def run(exchange: Exchange) -> None:
    """The task of one request."""
    try:
        await exchange.serving.app(exchange.scope, exchange.receive, exchange.send)
    except BaseException as error:  # noqa: BLE001  the border to the app: whatever it raises, sys.exit() too, ends here and is logged
        exchange.app_raised(error)
    else:
        exchange.app_returned()


async def ready(message: dict[str, Any]) -> dict[str, Any]:
    """`receive()` when there is something to receive."""
    return message


async def next_message(exchange: Exchange) -> dict[str, Any]:
    """`receive()` when there is nothing yet."""
    while not exchange.has_news():
        await exchange.wait_news()
    return exchange.take_news()


async def writable(exchange: Exchange) -> None:
    """`send()` when the client takes less than the app gives."""
    await exchange.stream.wait_writable()
    if exchange.gone and not exchange.is_complete():
        raise ClientDisconnected("the client is gone")
