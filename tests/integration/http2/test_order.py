"""What an app may send when over HTTP/2, where it has two messages more: early hints and trailers."""

from __future__ import annotations

from typing import Any

import pytest

from cavalcade.errors import AppProtocolError
from cavalcade.testing.http2 import GET

START = {"type": "http.response.start", "status": 200, "headers": []}
PROMISE = {**START, "trailers": True}
PIECE = {"type": "http.response.body", "body": b"piece", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}
HINT = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>"]}
WANTS_TRAILERS = [*GET, (b"te", b"trailers")]
TRAILERS = {"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")]}
MORE_TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-first", b"0")], "more_trailers": True}

# State: what has been sent; what completes it.
STATES: dict[str, tuple[list[Any], list[Any]]] = {
    "nothing": ([], [START, END]),
    "hinted": ([HINT], [START, END]),
    "started": ([START], [END]),
    "promised": ([PROMISE], [END, TRAILERS]),
    "body": ([START, PIECE], [END]),
    "body, promised": ([PROMISE, PIECE], [END, TRAILERS]),
    "trailers due": ([PROMISE, PIECE, END], [TRAILERS]),
    "trailers begun": ([PROMISE, END, MORE_TRAILERS], [TRAILERS]),
    "complete": ([START, END], []),
    "complete, with trailers": ([PROMISE, END, TRAILERS], []),
}
MESSAGES = {"start": START, "piece": PIECE, "end": END, "hint": HINT, "trailers": TRAILERS, "more trailers": MORE_TRAILERS}
LEGAL = {
    *((state, message) for state in ("nothing", "hinted") for message in ("start", "hint")),
    *((state, message) for state in ("started", "promised", "body", "body, promised") for message in ("piece", "end", "hint")),
    *((state, message) for state in ("trailers due", "trailers begun") for message in ("trailers", "more trailers")),
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("state", STATES)
def test_every_pair_of_state_and_message(run: Any, serve: Any, speak: Any, state: str, message: str) -> None:
    async def main() -> None:
        raised: list[BaseException] = []
        before, after = STATES[state]

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for one in before:
                await send(one)
            try:
                await send(MESSAGES[message])
            except BaseException as error:
                raised.append(error)
            rest = after if raised else {"start": [END], "end": after[1:], "trailers": []}.get(message, after)
            for one in rest:
                await send(one)

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            answer = await client.ask(1, WANTS_TRAILERS)
            assert (answer.status, answer.reset) == (200, None)
            assert answer.body.endswith(b"end")
            hints = [*before, *([MESSAGES[message]] if not raised and PIECE not in before else [])].count(HINT)  # too late behind the head
            assert [head[b"link"] for head in answer.interim] == [b"</b>"] * hints
            assert bool(raised) != ((state, message) in LEGAL)
            assert all(isinstance(error, AppProtocolError) for error in raised)
            promised = PROMISE in before
            assert (answer.trailers is not None) == promised
            if answer.trailers is not None:
                assert answer.trailers[-1] == (b"x-sum", b"1")

    run(main())


def test_an_app_that_breaks_its_promise_of_trailers_is_reset(run: Any, serve: Any, speak: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(PROMISE)
            await send(END)

        async with serve(app, lifespan="off", errors=("without the http.response.trailers",)) as served:
            client = await speak(served)
            answer = await client.ask(1, GET)
            assert (answer.status, answer.body, answer.reset) == (200, b"end", 2)

    run(main())


@pytest.mark.parametrize("headers", [[(b":status", b"200")], [("a", b"b")], [(b"a", b"b\r\nc")], 5])
def test_trailers_that_may_not_be_are_the_apps_error(run: Any, serve: Any, speak: Any, headers: Any) -> None:
    async def main() -> None:
        raised: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(PROMISE)
            await send(END)
            with pytest.raises(AppProtocolError) as error:
                await send({"type": "http.response.trailers", "headers": headers})
            raised.append(error.value)

        async with serve(app, lifespan="off", errors=("without the http.response.trailers",)) as served:
            client = await speak(served)
            assert (await client.ask(1, GET)).reset == 2
            assert len(raised) == 1

    run(main())


@pytest.mark.parametrize("fields", [WANTS_TRAILERS, GET, [(b":method", b"HEAD"), *WANTS_TRAILERS[1:]]])
def test_trailers_are_left_out_where_there_is_no_body_or_nobody_asked(run: Any, serve: Any, speak: Any, fields: Any) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in (PROMISE, END, TRAILERS):
                await send(message)

        async with serve(app, lifespan="off") as served:
            client = await speak(served)
            answer = await client.ask(1, fields)
            assert (answer.status, answer.ended, bool(answer.trailers)) == (200, True, fields is WANTS_TRAILERS)

    run(main())
