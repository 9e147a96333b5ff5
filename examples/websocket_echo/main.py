"""Every WebSocket message comes back: `cavalcade main:app --app-dir examples/websocket_echo`.

    python -m websockets ws://127.0.0.1:8000/

Plain ASGI, no framework. Other requests get a hint.
"""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        text = b"This is a WebSocket server: python -m websockets ws://127.0.0.1:8000/\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
    else:
        await lifespan(receive, send)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()  # websocket.connect
    # The first of the client's subprotocols, if it named any.
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
