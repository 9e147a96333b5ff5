"""One connection of a client that counts what is lost, for those who speak their protocol with a Sans-I/O library."""

from __future__ import annotations

import asyncio
import contextlib

from cavalcade.testing.traffic_report import REQUEST_TIMEOUT_S
from cavalcade.testing.traffic_wire import Lost, Where


async def connect(where: Where) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to the server, TLS done. Raises `Lost`."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await asyncio.open_connection(*where.address, ssl=where.trust)
    except ConnectionRefusedError as error:
        raise Lost("refused") from error
    except (OSError, TimeoutError) as error:
        raise Lost("handshake", f"in connect: {error!r}") from error


async def read(reader: asyncio.StreamReader, when: str) -> bytes:
    """What comes next; nothing at the end. `when` says where the client stood, for the `Lost` that this raises."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await reader.read(65536)
    except TimeoutError as error:
        raise Lost("timeout", when) from error
    except OSError as error:
        raise Lost("reset", f"{error.strerror or error}, {when}") from error


async def hang_up(writer: asyncio.StreamWriter, sender: asyncio.Task[None] | None) -> None:
    """Stop sending, and close."""
    if sender is not None:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await writer.wait_closed()
