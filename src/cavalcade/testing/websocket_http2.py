"""A WebSocket over HTTP/2 (RFC 8441), with the frames of `h2` and the messages of `wsproto`: two libraries by other authors."""

from __future__ import annotations

import socket
import ssl
from typing import Self
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived
from h2.settings import SettingCodes
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage

WAIT_S = 20.0
Received = TextMessage | BytesMessage | CloseConnection


class H2WebSocket:
    """One WebSocket on a connection of its own. `http` URLs are spoken with prior knowledge; `unix` is the path of a socket to go by,
    `authority` the host to ask for, if it is another.

    Its `status` is that of the answer; a context manager."""

    def __init__(self, url: str, path: str, context: ssl.SSLContext | None = None, *, unix: str = "", authority: str = "") -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._sock: socket.socket
        if unix:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.settimeout(WAIT_S)
            self._sock.connect(unix)
        else:
            self._sock = socket.create_connection((parts.hostname, parts.port or 0), timeout=WAIT_S)
        if context is not None:
            context.set_alpn_protocols(["h2"])
            self._sock = context.wrap_socket(self._sock, server_hostname="localhost")
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._messages: list[Received] = []
        self._flush()
        self._offered = False
        self.status = ""
        self._websocket = Connection(ConnectionType.CLIENT)
        while not self._offered:
            self._receive()
        host = authority or parts.netloc
        fields = {":method": "CONNECT", ":protocol": "websocket", ":scheme": parts.scheme, ":authority": host, ":path": path}
        self._h2.send_headers(1, [*fields.items(), ("sec-websocket-version", "13")])
        self._flush()
        while not self.status:
            self._receive()

    def send(self, event: Event) -> None:
        self._h2.send_data(1, self._websocket.send(event))
        self._flush()

    def receive(self) -> Received:
        """The next message, or the Close."""
        while not self._messages:
            self._receive()
        return self._messages.pop(0)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        assert data, "the server has closed the connection"
        for event in self._h2.receive_data(data):
            if isinstance(event, RemoteSettingsChanged) and SettingCodes.ENABLE_CONNECT_PROTOCOL in event.changed_settings:
                self._offered = True
            elif isinstance(event, ResponseReceived):
                self.status = dict(event.headers)[b":status"].decode()
            elif isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                if event.data:  # the end of the stream may come alone, and wsproto takes nothing after a Close
                    self._websocket.receive_data(event.data)
                self._messages += [each for each in self._websocket.events() if isinstance(each, Received)]
        self._flush()
