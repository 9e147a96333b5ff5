"""Reading the PROXY protocol header of a connection that has just been accepted, before anything else is known of it.

It is read from the bare socket, so that whatever follows, HTTP or a TLS handshake, is begun by a transport of its own as if the header
had never been there. Not a byte behind the header is taken: what is there is looked at first (MSG_PEEK).
"""

from __future__ import annotations

import asyncio
import socket

from cavalcade import limits
from cavalcade.errors import PeerError, PeerTooSlow
from cavalcade.wire import proxy_header
from cavalcade.wire.proxy_header import ProxyHeader


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket, seconds: float) -> ProxyHeader:
    """The header, which must be there within `seconds`. Raises `PeerError` where there is none, `OSError` where the peer is gone."""
    begun = b""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    there = sock.recv(limits.PROXY_HEADER_BYTES, socket.MSG_PEEK)
                except BlockingIOError:
                    await _readable(loop, sock)
                    continue
                if not there:
                    raise ConnectionResetError("closed before its PROXY protocol header")
                header = _read(begun + there)
                # All of a header that is not whole yet belongs to it.
                sock.recv(len(there) if header is None else header.size - len(begun))
                if header is not None:
                    return header
                begun += there
    except TimeoutError:
        raise PeerTooSlow(f"no PROXY protocol header within {seconds:g} s (head_timeout)") from None


def _read(data: bytes) -> ProxyHeader | None:
    try:
        return proxy_header.read(data)
    except PeerError as error:
        raise PeerError(f"{error.cause}; it began {data[: limits.PEER_LOG_BYTES]!r}") from None


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    readable = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(sock.fileno())


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
