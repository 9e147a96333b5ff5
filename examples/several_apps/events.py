"""An ASGI app of several, without a framework: HTTP, WebSocket, lifespan."""

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await live(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{scope['state']['owner']} {(await receive())['text']}"})
        await send({"type": "websocket.close"})
    else:
        body = f"{scope['state']['owner']} {scope['path']}\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def live(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    print("events starts", flush=True)
    scope["state"]["owner"] = "events"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("events stops", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
