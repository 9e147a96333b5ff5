"""The limit of what a server on uvloop could do: a protocol that answers every request with the same bytes, and parses nothing.

python bare.py PORT [CERTFILE KEYFILE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n"
KEPT, CLOSED = (HEAD + field + b"\r\nHello, World!" for field in (b"", b"connection: close\r\n"))


class Bare(asyncio.Protocol):
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"onnection: close\r\n" in data:
            self.transport.write(CLOSED)
            self.transport.close()
        else:
            self.transport.write(KEPT)


async def main(port: int, pair: list[str]) -> None:
    context = None
    if pair:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port, ssl=context, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
