"""A chat room: `cavalcade main:app --app-dir examples/websocket_chat`, then open http://127.0.0.1:8000/ in two tabs.

A room lives in the memory of one worker, so this one runs with a single worker; more need something between them, such as Redis.
When the worker is replaced (`kill -HUP`), every browser is told with close code 1012, and connects again.
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = """<!doctype html><title>Chat</title>
<form><input autofocus autocomplete=off placeholder="say something"></form><ul></ul>
<script>
const list = document.querySelector("ul"), input = document.querySelector("input");
let socket;
function say(text) { const item = document.createElement("li"); item.textContent = text; list.prepend(item); }
function connect() {
  socket = new WebSocket(location.origin.replace("http", "ws") + "/chat?name=tab" + Math.floor(Math.random() * 1000));
  socket.onmessage = event => say(event.data);
  socket.onclose = event => { say("closed: " + event.code + " " + event.reason); setTimeout(connect, 200 + Math.random() * 800); };
}
document.querySelector("form").onsubmit = () => { socket.send(input.value); input.value = ""; return false; };
connect();
</script>
"""

# One queue for each who is here: who reads slowly makes nobody else wait, and misses something when it is full.
room: dict[WebSocket, asyncio.Queue[str]] = {}


def tell(text: str) -> None:
    for queue in room.values():
        if not queue.full():
            queue.put_nowait(text)


async def pass_on(socket: WebSocket, queue: asyncio.Queue[str]) -> None:
    while True:
        await socket.send_text(await queue.get())


async def chat(socket: WebSocket) -> None:
    name = socket.query_params.get("name", "somebody")[:40]
    await socket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(100)
    room[socket] = queue
    tell(f"{name} is here")
    writing = asyncio.create_task(pass_on(socket, queue))
    try:
        while True:
            tell(f"{name}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass
    finally:
        del room[socket]
        writing.cancel()
        await asyncio.wait([writing])
        tell(f"{name} has left")


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page), WebSocketRoute("/chat", chat)])
