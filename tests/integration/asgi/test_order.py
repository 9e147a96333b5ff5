"""Message order by the table, enumerated over every pair; and messages that are none."""

from __future__ import annotations

import http
from pathlib import Path
from typing import Any

import pytest

from cavalcade.apps.asgi import order
from cavalcade.errors import AppProtocolError

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"piece", "more_body": True}
END = {"type": "http.response.body", "body": b"end", "more_body": False}

STATES = {"nothing": (), "started": (START,), "body": (START, PIECE), "complete": (START, END)}
MESSAGES = {
    "start": START,
    "piece": PIECE,
    "end": END,
    "trailers": {"type": "http.response.trailers", "headers": []},
    "early hint": {"type": "http.response.early_hint", "links": []},
    "push": {"type": "http.response.push", "path": "/", "headers": []},
    "zero copy": {"type": "http.response.zerocopysend", "more_body": True},
    "path": {"type": "http.response.pathsend"},
    "debug": {"type": "http.response.debug", "info": {}},
    "websocket": {"type": "websocket.accept"},
    "lifespan": {"type": "lifespan.startup.complete"},
    "request": {"type": "http.request"},
    "nonsense": {"type": "nonsense"},
    "no type": {"body": b""},
    "type that cannot be a key": {"type": []},
    "not a dict": "http.response.start",
    "none": None,
}
LEGAL = {
    *(("nothing", message) for message in ("start", "early hint")),
    *(("started", message) for message in ("piece", "end", "zero copy", "path", "early hint")),
    *(("body", message) for message in ("piece", "end", "zero copy", "early hint")),
}
EXPECTED = {
    "nothing": "http.response.start is expected first",
    "started": "http.response.body, pathsend or zerocopysend is expected after http.response.start",
    "body": "only http.response.body or zerocopysend may follow a piece of the body",
    "complete": "the response is already complete",
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("state", STATES)
def test_every_pair_of_state_and_message(run: Any, serve: Any, tmp_path: Path, state: str, message: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"end")

    async def main() -> None:
        raised: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for before in STATES[state]:
                await send(before)
            try:
                with file.open("rb") as opened:
                    what = {"zero copy": {"file": opened}, "path": {"path": str(file)}}.get(message)
                    await send({**MESSAGES[message], **what} if what else MESSAGES[message])
            except BaseException as error:
                raised.append(error)
            # What was illegal has changed nothing: the response goes on as if it had not been sent.
            sent = [*STATES[state], *([MESSAGES[message]] if not raised else [])]
            if END not in sent and MESSAGES["path"] not in sent:
                for after in (END,) if START in sent else (START, END):
                    await send(after)

        async with serve(app, lifespan="off") as served:
            response = await served.ask(GET)
            assert response.status == 200
            assert response.body.endswith(b"end")
            assert bool(raised) != ((state, message) in LEGAL)
            for error in raised:
                assert isinstance(error, AppProtocolError)
                known = isinstance(MESSAGES[message], dict) and isinstance(MESSAGES[message].get("type"), str)
                assert EXPECTED[state] in str(error) if known else "which is no ASGI message" in str(error)

    run(main())


def test_the_table_has_an_expectation_for_every_state() -> None:
    assert len(order.LEGAL) == len(order.EXPECTED) == len(STATES) + 2  # trailers that are due, and a file that is on its way


@pytest.mark.parametrize("state", ["nothing", "started"])
def test_a_message_out_of_order_that_is_not_caught_is_a_500(run: Any, serve: Any, state: str) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in STATES[state]:
                await send(message)
            await send(END if state == "nothing" else START)

        async with serve(app, lifespan="off", errors=("^GET /: the app failed$",)) as served:
            assert (await served.ask(GET)).status == 500
            assert EXPECTED[state] in served._caplog.text

    run(main())


def test_an_app_that_answers_twice(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(2):
                await send(START)
                await send(END)

        async with serve(app, lifespan="off", errors=("^GET /: the app failed after its response was complete$",) * 2) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                assert (await client.response()).body == b"end"
            client.half_close()
            assert await client.rest() == b""

    run(main())


# -- what is in a message --------------------------------------------------------------------------------------------------


def once(items: list[Any]) -> Any:
    yield from items


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([(b"x", b"a\r\nset-cookie: evil")], "value of header b'x' has a carriage return in it"),
        ([(b"x", b"a\nb")], "has a line feed in it"),
        ([(b"x", b"a\rb")], "has a carriage return in it"),
        ([(b"x", b"a\0b")], "has a NUL in it"),
        ([(b"x\r\ny", b"a")], "has a character that is not allowed"),
        ([(b"x\n", b"a")], "has a character that is not allowed"),
        ([(b"x:", b"a")], "has a character that is not allowed"),
        ([(b"x y", b"a")], "has a character that is not allowed"),
        ([(b"", b"a")], "has a character that is not allowed"),
        ([(b"\xff", b"a")], "has a character that is not allowed"),
        ([("x", b"a")], "header name 'x' is str, not bytes"),
        ([(b"x", "a")], "value of header b'x' is str, not bytes"),
        ([(b"content-length", 5)], "is int, not bytes"),
        ([(b"content-length", "5")], "not bytes"),
        ([(b"connection", memoryview(b"close"))], "is memoryview, not bytes"),
        ([(b"date", "today")], "is str, not bytes"),
        ([(b"x", None)], "value of header b'x' is NoneType, not bytes"),
        ([(b"x",)], "headers are not a list of (name, value) pairs"),
        ([b"x"], "headers are not a list of (name, value) pairs"),
        ([([], b"a")], "headers are not a list of (name, value) pairs"),
        ({"x": "y"}, "headers are not a list of (name, value) pairs"),
        (None, "headers are not a list of (name, value) pairs"),
        (5, "headers are not a list of (name, value) pairs"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True], ids=["list", "generator"])
def test_headers_that_cannot_go_onto_the_wire(run: Any, serve: Any, headers: Any, says: str, lazy: bool) -> None:
    async def main() -> None:
        given = once(headers) if lazy and isinstance(headers, list) else headers

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/next":
                await send(START)
                await send(END)
                return
            await send({"type": "http.response.start", "status": 200, "headers": given})

        async with serve(app, lifespan="off", errors=("^GET /: the app failed$",)) as served:
            client = await served.connect()
            await client.send(GET)
            response = await client.response()
            assert response.status == 500
            assert says in served._caplog.text
            assert b"evil" not in response.body
            await client.send(GET.replace(b"/", b"/next", 1))
            assert (await client.response()).body == b"end"

    run(main())


PAIRS = [(b"content-length", b"3"), (b"x", b"y"), (b"date", b"d")]


@pytest.mark.parametrize(
    "headers",
    [
        lambda: once(PAIRS),
        lambda: tuple(PAIRS),
        lambda: [[name, bytearray(value) if name == b"x" else value] for name, value in PAIRS],
        lambda: dict(PAIRS).items(),
    ],
    ids=["generator", "tuple", "lists", "items of a dict"],
)
def test_any_iterable_of_pairs_will_do(run: Any, serve: Any, headers: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers()})
            await send(END)

        async with serve(app, lifespan="off", server_header=False) as served:
            response = await served.ask(GET)
            assert response.headers == [("content-length", "3"), ("x", "y"), ("date", "d")]

    run(main())


@pytest.mark.parametrize("status", [None, "200", 200.0, True, 0, -1, 99, 100, 101, 199, 1000, [], b"200"])
def test_a_status_that_is_none(run: Any, serve: Any, status: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status})

        async with serve(app, lifespan="off", errors=("^GET /: the app failed$",)) as served:
            assert (await served.ask(GET)).status == 500
            assert "AppProtocolError: status" in served._caplog.text

    run(main())


def test_a_status_may_be_an_enum(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": http.HTTPStatus.CREATED})
            await send(END)

        async with serve(app, lifespan="off") as served:
            assert (await served.ask(GET)).status == 201
            assert '" 201 3B' in served.access[0]

    run(main())


@pytest.mark.parametrize("body", ["text", None, 5, ["x"]])
def test_a_body_that_is_not_bytes(run: Any, serve: Any, body: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send({"type": "http.response.body", "body": body})

        async with serve(app, lifespan="off", errors=("^GET /: the app failed$",)) as served:
            assert (await served.ask(GET)).status == 500
            assert f"the body is {type(body).__name__}, not bytes" in served._caplog.text

    run(main())


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"xabc")[1:], memoryview(b"abc")])
def test_a_body_may_be_any_bytes(run: Any, serve: Any, body: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body"})

        async with serve(app, lifespan="off") as served:
            assert (await served.ask(GET)).body == b"abc"

    run(main())


def test_keys_that_nobody_knows_do_no_harm(run: Any, serve: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({**START, "trailers": False, "x": 1})
            await send({**END, "x": 1})

        async with serve(app, lifespan="off") as served:
            assert (await served.ask(GET)).body == b"end"

    run(main())
