"""An ASGI app of several: FastAPI, below a prefix, with a lifespan state of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    print("api starts", flush=True)
    yield {"owner": "api"}
    print("api stops", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/hello")
async def hello(request: Request) -> dict[str, str]:
    url = str(request.url_for("hello"))
    return {"app": "api", "root_path": request.scope["root_path"], "path": request.scope["path"], "owner": request.state.owner, "url": url}


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"api {websocket.scope['root_path']} {await websocket.receive_text()}")
    await websocket.close()
