"""Which message an app may send when. What is not in the table is illegal."""

from __future__ import annotations

from cavalcade.errors import AppProtocolError

# What an app has sent so far ...
NOTHING, STARTED, BODY, COMPLETE, TRAILERS, FILE = range(6)  # TRAILERS: all but those, which it has promised; FILE: one is on its way
# ... and what a message then does.
START, WRITE, HINT, END, PATH, SEND_FILE, DEBUG = 1, 2, 7, 8, 9, 10, 11

LEGAL: list[dict[str, int]] = [
    {"http.response.start": START, "http.response.early_hint": HINT, "http.response.debug": DEBUG},  # NOTHING
    {  # STARTED
        "http.response.body": WRITE,
        "http.response.pathsend": PATH,
        "http.response.zerocopysend": SEND_FILE,
        "http.response.early_hint": HINT,
    },
    {"http.response.body": WRITE, "http.response.zerocopysend": SEND_FILE, "http.response.early_hint": HINT},  # BODY
    {},  # COMPLETE
    {"http.response.trailers": END},  # TRAILERS
    {},  # FILE
]

EXPECTED = [
    "http.response.start is expected first",
    "http.response.body, pathsend or zerocopysend is expected after http.response.start",
    "only http.response.body or zerocopysend may follow a piece of the body",
    "the response is already complete (more_body was false)",
    "only http.response.trailers may follow the body: http.response.start has promised them",
    "a file is being sent; await its send() first",
]

# The same for a WebSocket; NOTHING, STARTED, BODY and COMPLETE stand for a denial, which is a plain response.
OPEN, CLOSED = 4, 5
ACCEPT, SEND, CLOSE, DENY = 3, 4, 5, 6

WEBSOCKET_LEGAL: list[dict[str, int]] = [
    {"websocket.accept": ACCEPT, "websocket.close": DENY, "websocket.http.response.start": START},  # NOTHING
    {"websocket.http.response.body": WRITE},  # STARTED
    {"websocket.http.response.body": WRITE},  # BODY
    {},  # COMPLETE
    {"websocket.send": SEND, "websocket.close": CLOSE},  # OPEN
    {},  # CLOSED
]

WEBSOCKET_EXPECTED = [
    "websocket.accept, websocket.close or websocket.http.response.start is expected first",
    "websocket.http.response.body is expected after websocket.http.response.start",
    "only websocket.http.response.body may follow a piece of the body",
    "the WebSocket was denied, and the response is already complete",
    "the WebSocket is accepted: websocket.send or websocket.close is expected",
    "the app has closed the WebSocket already",
]


def violation(sent: int, message: object, expected: list[str] = EXPECTED) -> AppProtocolError:
    """What is wrong with a message that the table does not allow."""
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str):
        return AppProtocolError(f"the app sent {message!r:.80}, which is no ASGI message: a dict with a 'type'")
    return AppProtocolError(f"the app sent {kind!r}: {expected[sent]}")
