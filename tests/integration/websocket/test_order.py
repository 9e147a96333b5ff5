"""Message order on a WebSocket by the table, enumerated over every pair; what is in a message; and apps that end too early."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from cavalcade.apps.asgi import order
from cavalcade.errors import AppProtocolError

ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "hello"}
CLOSE = {"type": "websocket.close", "code": 4001, "reason": "bye"}
START = {"type": "websocket.http.response.start", "status": 418, "headers": []}
PIECE = {"type": "websocket.http.response.body", "body": b"\xff\x00 piece", "more_body": True}
END = {"type": "websocket.http.response.body", "body": b"end"}

STATES = {
    "nothing": (),
    "denial begun": (START,),
    "denial body": (START, PIECE),
    "denied": (START, END),
    "open": (ACCEPT,),
    "closed": (ACCEPT, CLOSE),
}
MESSAGES = {
    "accept": ACCEPT,
    "send": SEND,
    "close": CLOSE,
    "start": START,
    "piece": PIECE,
    "end": END,
    "http start": {"type": "http.response.start", "status": 200},
    "http body": {"type": "http.response.body", "body": b""},
    "receive": {"type": "websocket.receive", "text": "x"},
    "nonsense": {"type": "nonsense"},
    "no type": {"text": "x"},
    "type that cannot be a key": {"type": []},
    "not a dict": "websocket.accept",
    "none": None,
}
LEGAL = {
    ("nothing", "accept"),
    ("nothing", "close"),
    ("nothing", "start"),
    ("denial begun", "piece"),
    ("denial begun", "end"),
    ("denial body", "piece"),
    ("denial body", "end"),
    ("open", "send"),
    ("open", "close"),
}
EXPECTED = dict(zip(STATES, order.WEBSOCKET_EXPECTED, strict=True))


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("state", STATES)
def test_every_pair_of_state_and_message(run: Any, serve: Any, raw: Any, state: str, message: str) -> None:
    async def main() -> None:
        raised: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for before in STATES[state]:
                await send(before)
            try:
                await send(MESSAGES[message])
            except BaseException as error:
                raised.append(error)
            # What was illegal has changed nothing: all goes on as if it had not been sent.
            sent = [*STATES[state], *([MESSAGES[message]] if not raised else [])]
            if not sent:
                await send(ACCEPT)
                sent = [ACCEPT]
            if sent[0] == START and sent[-1] != END:
                await send(END)
            if sent[0] == ACCEPT and CLOSE not in sent:
                await send(CLOSE)

        async with serve(app, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake())
            response = await wire.head()
            if response.status == 101:
                rest = await wire.take(7 if SEND in (MESSAGES[message],) and not raised else 0)
                assert rest in (b"", b"\x81\x05hello")
                assert await wire.take(7) == b"\x88\x05" + (4001).to_bytes(2, "big") + b"bye"
            else:
                assert response.status == (403 if (state, message) == ("nothing", "close") else 418)
            assert bool(raised) != ((state, message) in LEGAL)
            for error in raised:
                assert isinstance(error, AppProtocolError)
                known = isinstance(MESSAGES[message], dict) and isinstance(MESSAGES[message].get("type"), str)
                assert EXPECTED[state] in str(error) if known else "which is no ASGI message" in str(error)

    run(main())


def test_the_table_has_an_expectation_for_every_state() -> None:
    assert len(order.WEBSOCKET_LEGAL) == len(order.WEBSOCKET_EXPECTED) == len(STATES)


# -- what is in a message --------------------------------------------------------------------------------------------------

BAD_AFTER_ACCEPT = {
    "both text and bytes": ({"type": "websocket.send", "text": "a", "bytes": b"b"}, "both text and bytes"),
    "neither": ({"type": "websocket.send"}, "neither text nor bytes"),
    "both none": ({"type": "websocket.send", "text": None, "bytes": None}, "neither text nor bytes"),
    "bytes as text": ({"type": "websocket.send", "text": b"a"}, "the text of a websocket.send is bytes, not str"),
    "text as bytes": ({"type": "websocket.send", "bytes": "a"}, "the bytes of a websocket.send are str, not bytes"),
    "a lone surrogate": ({"type": "websocket.send", "text": "\ud800"}, "a lone surrogate at 0"),
    "close code as text": ({"type": "websocket.close", "code": "1000"}, "close code '1000' is str, not int"),
    "reason as bytes": ({"type": "websocket.close", "reason": b"x"}, "the reason of a websocket.close is bytes, not str"),
    "reason too long": ({"type": "websocket.close", "reason": "é" * 62}, "more than 123 bytes"),
    **{
        f"code {code}": ({"type": "websocket.close", "code": code}, f"close code {code} may not be sent")
        for code in (0, 999, 1005, 1006, 1015, 5000)
    },
}
BAD_ACCEPT = {
    "subprotocol not offered": ({"subprotocol": "c"}, "subprotocol 'c' was not offered by the client (it offered: a, b)"),
    "subprotocol as bytes": ({"subprotocol": b"a"}, "subprotocol b'a' was not offered"),
    "headers as text": ({"headers": [("x", "y")]}, "not a list of (name, value) pairs"),
    "value as text": ({"headers": [(b"x", "y")]}, "not bytes"),
    "header injection": ({"headers": [(b"x", b"y\r\nz: 1")]}, "carriage return"),
    "bad name": ({"headers": [(b"x y", b"z")]}, "not allowed"),
    "protocol as header": ({"headers": [(b"Sec-WebSocket-Protocol", b"a")]}, "name it in 'subprotocol'"),
    "accept as header": ({"headers": [(b"sec-websocket-accept", b"a")]}, "is the server's to send"),
}


@pytest.mark.parametrize("case", BAD_AFTER_ACCEPT)
def test_a_bad_message_after_accept_is_refused_and_changes_nothing(run: Any, serve: Any, peer: Any, case: str) -> None:
    message, expected = BAD_AFTER_ACCEPT[case]

    async def main() -> None:
        raised: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            try:
                await send(message)
            except AppProtocolError as error:
                raised.append(error)
            await send(SEND)

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert await client.text() == "hello"
            assert await client.end() == (1000, "")
            assert expected in str(raised[0])

    run(main())


@pytest.mark.parametrize("case", BAD_ACCEPT)
def test_a_bad_accept_is_a_500_and_names_what_is_wrong(run: Any, serve: Any, raw: Any, case: str) -> None:
    more, expected = BAD_ACCEPT[case]

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept", **more})

        async with serve(app, lifespan="off", errors=("^WebSocket /: the app failed$",)) as served:
            response = await served.ask(raw.handshake("/", b"Sec-WebSocket-Protocol: a, b"))
            assert response.status == 500
            assert expected in served._caplog.text

    run(main())


def test_bytes_of_every_kind_are_taken(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        class Text(str):
            pass

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            for data in (bytearray(b"a"), memoryview(b"b")):
                await send({"type": "websocket.send", "bytes": data, "text": None})
            await send({"type": "websocket.send", "bytes": None, "text": Text("c")})

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert [(await client.frame()).payload for _ in range(3)] == [b"a", b"b", b"c"]

    run(main())


# -- apps that end too early, or too late ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "status", "line"),
    [
        ((), 500, "^WebSocket /: the app returned without accepting or denying the WebSocket$"),
        ((START,), 500, "^WebSocket /: the app returned in the middle of its response to a WebSocket that it denied$"),
    ],
)
def test_an_app_that_returns_without_an_answer_is_a_500(run: Any, serve: Any, raw: Any, before: Any, status: int, line: str) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in before:
                await send(message)

        async with serve(app, lifespan="off", errors=(line,)) as served:
            assert (await served.ask(raw.handshake())).status == status

    run(main())


def test_an_app_that_returns_while_open_closes_with_1000(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            await send(SEND)

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert await client.text() == "hello"
            assert await client.end() == (1000, "")

    run(main())


@pytest.mark.parametrize("before", ["nothing", "open", "closed", "denied"])
def test_an_app_that_raises(run: Any, serve: Any, raw: Any, before: str) -> None:
    when = " after the WebSocket was closed" if before in ("closed", "denied") else ""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in STATES[before]:
                await send(message)
            raise ValueError("my own fault")

        async with serve(app, lifespan="off", errors=(f"^WebSocket /chat\\?room=1: the app failed{when}$",)) as served:
            wire = await served.connect()
            await wire.send(raw.handshake("/chat?room=1"))
            response = await wire.head()
            assert response.status == {"nothing": 500, "open": 101, "closed": 101, "denied": 418}[before]
            if response.status == 101:
                expected = (1011, b"internal error") if before == "open" else (4001, b"bye")
                payload = expected[0].to_bytes(2, "big") + expected[1]
                assert await wire.take(2 + len(payload)) == bytes((0x88, len(payload))) + payload
                await wire.send(raw.frame(raw.CLOSE, payload))
                assert await wire.rest() == b""
            await served.until(served.log)
            assert "my own fault" in served._caplog.text
            assert "test_order.py" in served._caplog.text

    run(main())


def test_an_app_that_never_accepts_is_cancelled_and_answered_504(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        ends: list[type[BaseException]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await asyncio.sleep(1000)
            except BaseException as error:
                ends.append(type(error))
                raise

        async with serve(app, lifespan="off", ws_accept_timeout=0.5) as served:
            response = await served.ask(raw.handshake("/never"))
            assert response.status == 504
            await served.until(lambda: ends == [asyncio.CancelledError])
            assert served.log() == ["WebSocket /never: neither accepted nor denied within 0.5 s (ws_accept_timeout)"]

    run(main())


def test_what_is_sent_after_the_client_has_gone_raises_oserror(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        raised: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            assert (await receive())["type"] == "websocket.connect"
            assert (await receive())["type"] == "websocket.disconnect"
            try:
                await send(SEND)
            except OSError as error:
                raised.append(error)
            await send(CLOSE)  # it is closed, as the app wants it
            assert (await receive())["type"] == "websocket.disconnect"  # as often as it is asked for

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            await client.send(raw.CLOSE, (1001).to_bytes(2, "big"))
            assert await client.closed() == (1001, "")
            await served.until(lambda: raised)

    run(main())


def test_an_app_that_lets_that_error_pass_is_not_reported(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            try:
                while True:
                    await send(SEND)
                    await asyncio.sleep(0)
            finally:
                over.set()

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            client.wire.reset()
            await over.wait()
            assert served.log() == []

    run(main())


def test_a_task_left_behind_can_send_nothing(run: Any, serve: Any, peer: Any) -> None:
    async def main() -> None:
        raised: list[BaseException] = []
        left = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)

            async def late() -> None:
                await asyncio.sleep(0)
                try:
                    await send(SEND)
                except AppProtocolError as error:
                    raised.append(error)

            left.append(asyncio.create_task(late()))

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert await client.end() == (1000, "")
            await served.until(lambda: raised)

    run(main())


def test_receive_can_be_a_task_and_can_be_cancelled_without_loss(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await asyncio.create_task(send(ACCEPT))
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            receive().close()  # never awaited on purpose
            await asyncio.create_task(send(SEND))
            message = await asyncio.wait_for(receive(), 10)
            await asyncio.create_task(send({"type": "websocket.send", "text": message["text"]}))

        async with serve(app, lifespan="off") as served:
            client = await peer(served)
            assert await client.text() == "hello"
            await client.send(raw.TEXT, b"not lost")
            assert await client.text() == "not lost"

    run(main())


def test_a_request_line_survives_an_app_that_spoils_its_scope(run: Any, serve: Any, raw: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.clear()
            raise RuntimeError("now what")

        async with serve(app, lifespan="off", errors=("^a WebSocket whose scope the app has changed: the app failed$",)) as served:
            assert (await served.ask(raw.handshake())).status == 500

    run(main())


def test_the_errors_read_as_sentences() -> None:
    for text in order.WEBSOCKET_EXPECTED:
        assert re.search(r"[a-z]$", text)
