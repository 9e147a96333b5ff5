"""Behind a load balancer that speaks the PROXY protocol: the header of a connection that has just been accepted, before anything else is
known of it.

It is read from the bare socket, so that whatever follows, HTTP or a TLS handshake, is begun by a transport of its own as if the header
had never been there. Not a byte behind the header is taken: what is there is looked at first (MSG_PEEK).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from cavalcade import limits
from cavalcade.errors import PeerError, PeerTooSlow
from cavalcade.net.context import ConnectionContext
from cavalcade.net.link import Link, written
from cavalcade.net.transport import Transport
from cavalcade.types import Address
from cavalcade.wire import proxy_header
from cavalcade.wire.proxy_header import ProxyHeader


class Proxied:
    """The connections whose header is due. `new_link` makes what speaks to a client, whose two addresses the header has told."""

    def __init__(self, context: ConnectionContext, new_link: Callable[[Address | None, Address | None], Link]) -> None:
        self._context = context
        self._new_link = new_link
        self._due: set[asyncio.Task[None]] = set()

    def adopt(self, sock: socket.socket, peer: Address | None, server: Address, address: str) -> None:
        """Take a connection that was accepted on `address`; `peer` and `server` are its own two addresses."""
        context = self._context
        if (None if peer is None else peer[0]) not in context.forwarding.trusted:
            whom = "unix" if peer is None else peer[0]
            why = f"{address} believes the PROXY protocol of trusted proxies only; if that is yours: --trusted-proxies {whom}"
            context.peer_log.closed(context.now, written(peer), why)
            sock.close()
            return
        context.opened()
        task = context.loop.create_task(self._connect(sock, peer, server, address))
        self._due.add(task)
        task.add_done_callback(self._due.discard)

    def give_up(self) -> None:
        for task in self._due:
            task.cancel()

    async def wait(self) -> None:
        """Done when all that were adopted have their transports, or are gone."""
        while self._due:
            await asyncio.wait(self._due)

    async def _connect(self, sock: socket.socket, peer: Address | None, server: Address, address: str) -> None:
        context = self._context
        try:
            header = await read_header(context.loop, sock, context.head_s)
        except PeerError as error:
            context.peer_log.closed(context.now, written(peer), f"{error.cause} ({address} has proxy_protocol=on)")
        except (OSError, asyncio.CancelledError):
            pass  # it looked whether we are there, and left; or we leave
        else:
            link = self._new_link(header.client, header.server) if header.told else self._new_link(peer, server)
            Transport(context.turn, sock.fileno(), link, sock).start()
            return
        sock.close()
        context.closed()


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
