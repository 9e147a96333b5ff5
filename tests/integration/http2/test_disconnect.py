"""`--cancel-on-disconnect` over HTTP/2: it is the stream that counts."""

from __future__ import annotations

import asyncio
from typing import Any


def test_a_stream_that_is_reset_cancels_its_app_and_no_other(run: Any, serve: Any, speak: Any) -> None:
    ended: list[str] = []
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await go_on.wait()
            await send({"type": "http.response.body"})
            ended.append("whole")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        async with serve(app, lifespan="off", cancel_on_disconnect=True) as served:
            client = await speak(served)
            await client.send(client.peer.request(1) + client.peer.request(3))
            await client.until(lambda: client.peer.answer(1).body and client.peer.answer(3).body)
            await client.send(client.peer.rst(1))
            await served.until(lambda: ended == ["cancelled"])
            go_on.set()
            assert (await client.over(3)).ended
            assert ended == ["cancelled", "whole"]
            assert served.log() == []

    run(main())
