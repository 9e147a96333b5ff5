"""Everything comes back, WebSocket messages and request bodies: `cavalcade main:app --app-dir examples/websocket_echo`.

    python -m websockets ws://127.0.0.1:8000/
    curl --data-binary @file http://127.0.0.1:8000/

Plain ASGI, no framework.
"""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        await send_back(receive, send)
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


async def send_back(receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
