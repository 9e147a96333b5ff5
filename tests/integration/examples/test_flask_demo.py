"""The example of Flask, as its docstring says it is started."""

from __future__ import annotations

from pathlib import Path

import httpx

from cavalcade.testing import LiveServer

REPOSITORY = Path(__file__).parents[3]


def test_the_flask_example() -> None:
    with (
        LiveServer("main:app", "--app-dir", "examples/flask_demo", "--threads", "4", cwd=REPOSITORY) as server,
        httpx.Client(base_url=server.url, timeout=30.0) as client,
    ):
        assert client.get("/").json()["hello"] == "Flask"
        assert client.get("/slow", params={"seconds": "0"}).json()["hello"] == "after a while"
        assert client.post("/length", content=b"x" * 5_000_000).json() == {"bytes": 5_000_000}
        assert client.get("/numbers").text.splitlines() == [str(number) for number in range(100)]
