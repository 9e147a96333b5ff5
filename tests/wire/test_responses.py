"""Response framing, straight from the engine: every way in which a response may be framed, read back by h11 as a second opinion."""

from __future__ import annotations

from itertools import product
from typing import Any

import h11
import pytest

from cavalcade.errors import AppProtocolError
from cavalcade.wire.h1 import H1
from cavalcade.wire.h1_response import Rules
from cavalcade.wire.sink import Head


class Silent:
    def on_request(self, head: Head) -> None:
        pass

    def on_body(self, chunk: bytes) -> None:
        raise AssertionError

    def on_end(self) -> None:
        raise AssertionError


def engine_for(method: str, version: str, fields: str = "") -> H1:
    engine = H1(Silent(), Rules(server=b"s"))
    engine.feed(f"{method} / HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode())
    return engine


def bytes_of(engine: H1, status: int, headers: Any, pieces: list[bytes]) -> bytes:
    """All that goes onto the wire, as a connection writes it."""
    engine.start_response(status, headers)
    if len(pieces) == 1:
        return engine.respond(pieces[0])
    out = []
    for number, piece in enumerate(pieces):
        before, after = engine.frame(len(piece), number < len(pieces) - 1)
        out += [before, b"" if engine.response_bodiless else piece, after]
    return b"".join(out)


METHODS = ("GET", "HEAD")
VERSIONS = (("1.1", ""), ("1.1", "Connection: close\r\n"), ("1.0", ""), ("1.0", "Connection: keep-alive\r\n"))
STATUSES = (200, 204, 304, 404)
BODIES = ([b""], [b"hello"], [b"he", b"llo"], [b"", b"hello", b""], [b"he", b"", b"llo", b""])


@pytest.mark.parametrize("length", [False, True], ids=["no length", "length"])
@pytest.mark.parametrize("pieces", BODIES, ids=str)
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("method", "version"), list(product(METHODS, VERSIONS)), ids=str)
def test_h11_reads_what_we_write(method: str, version: tuple[str, str], status: int, pieces: list[bytes], length: bool) -> None:
    engine = engine_for(method, *version)
    body = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(body))] if length else []
    data = bytes_of(engine, status, headers, pieces)
    assert engine.response_short() == 0

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if not engine.keep_alive:
        client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage)
    bodiless = method == "HEAD" or status in (204, 304)
    assert got == (b"" if bodiless else body)
    assert client.trailing_data[0] == b""
    # We and the client agree on whether the connection goes on.
    assert (client.our_state is h11.MUST_CLOSE) == (not engine.keep_alive) or version[0] == "1.0"
    connection = dict(response.headers).get(b"connection")
    assert connection == (b"close" if not engine.keep_alive else b"keep-alive" if version[0] == "1.0" else None)
    fields = [name for name, _ in response.headers]
    assert fields.count(b"content-length") + fields.count(b"transfer-encoding") <= 1
    if status == 204:
        assert b"content-length" not in fields
    if version[0] == "1.0":
        assert b"transfer-encoding" not in fields


def test_a_response_that_is_refused_leaves_nothing_behind() -> None:
    engine = engine_for("GET", "1.1")
    for bad in ([(b"x", b"\n")], [(b"connection", b"close"), (b"content-length", b"1"), (b"content-length", b"2")], [(b"x\r", b"")]):
        with pytest.raises(AppProtocolError):
            engine.start_response(200, bad)
        assert not engine.head_due
        assert engine.keep_alive
    assert bytes_of(engine, 200, [], [b"ok"]) == b"HTTP/1.1 200 OK\r\nserver: s\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"], [b"", b"abcd"]], ids=str)
def test_a_body_longer_than_its_length_never_goes_out_whole(pieces: list[bytes]) -> None:
    engine = engine_for("GET", "1.1")
    with pytest.raises(AppProtocolError, match="4 bytes instead of 3"):
        bytes_of(engine, 200, [(b"content-length", b"3")], pieces)


@pytest.mark.parametrize(("pieces", "short"), [([b""], 3), ([b"ab"], 1), ([b"a", b"b"], 1), ([b"abc"], 0), ([b"abc", b""], 0)], ids=str)
def test_a_body_shorter_than_its_length_is_found_out(pieces: list[bytes], short: int) -> None:
    engine = engine_for("GET", "1.1")
    bytes_of(engine, 200, [(b"content-length", b"3")], pieces)
    assert engine.response_short() == short


@pytest.mark.parametrize("status", [100, 101, 199, 1000, 99, 0, -1, True, 200.0, "200", None])
def test_a_status_that_cannot_go_out(status: Any) -> None:
    with pytest.raises(AppProtocolError, match="status"):
        engine_for("GET", "1.1").start_response(status, [])


def test_a_status_without_a_phrase_keeps_its_space() -> None:
    assert bytes_of(engine_for("GET", "1.1"), 799, [], [b""]).startswith(b"HTTP/1.1 799 \r\n")
