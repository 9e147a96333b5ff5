"""What a client may not send: each gets the Close that RFC 6455 wants, a line in the log, and a connection that ends without a reset."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from cavalcade import limits

KIB = 1024


def close(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


def cases(raw: Any) -> dict[str, tuple[bytes, int, str]]:
    """What is sent, the code that answers it, and what the log says."""
    frame = raw.frame
    return {
        "unmasked": (frame(raw.TEXT, b"hello", mask=None), 1002, "incorrect masking"),
        "an unmasked ping": (frame(raw.PING, b"", mask=None), 1002, "incorrect masking"),
        "rsv1 without an extension": (frame(raw.TEXT, b"hello", rsv=4), 1002, "reserved bits"),
        "rsv2": (frame(raw.BINARY, b"hello", rsv=2), 1002, "reserved bits"),
        "rsv3": (frame(raw.TEXT, b"hello", rsv=1), 1002, "reserved bits"),
        "rsv1 on a ping": (frame(raw.PING, b"hello", rsv=4), 1002, "reserved bits"),
        **{f"opcode {opcode}": (frame(opcode, b"x"), 1002, "invalid opcode") for opcode in (3, 7, 11, 15)},
        "a ping of 126 bytes": (frame(raw.PING, b"x" * 126), 1002, "control frame too long"),
        "a long ping of which only the head comes": (frame(raw.PING, b"x" * 70_000)[:14], 1002, "control frame too long"),
        "a pong of 126 bytes": (frame(raw.PONG, b"x" * 126), 1002, "control frame too long"),
        "a close of 126 bytes": (frame(raw.CLOSE, close(1000, b"x" * 124)), 1002, "control frame too long"),
        "a fragmented ping": (frame(raw.PING, b"x", fin=False), 1002, "fragmented control frame"),
        "a fragmented close": (frame(raw.CLOSE, close(1000), fin=False), 1002, "fragmented control frame"),
        "a continuation of nothing": (frame(raw.CONT, b"x"), 1002, "unexpected continuation frame"),
        "a new message inside of another": (frame(raw.TEXT, b"x", fin=False) + frame(raw.TEXT, b"y"), 1002, "expected a continuation"),
        "binary inside of text": (frame(raw.TEXT, b"x", fin=False) + frame(raw.BINARY, b"y"), 1002, "expected a continuation"),
        "a close inside of a message": (frame(raw.TEXT, b"x", fin=False) + frame(raw.CLOSE, close(1000)), 1002, "incomplete fragmented"),
        "a length in 2 bytes that fits in 7 bits": (b"\x81\xfe\x00\x05mask" + b"12345", 1002, "not encoded in the shortest way"),
        "a length in 8 bytes that fits in 2": (b"\x82\xff" + (300).to_bytes(8, "big") + b"mask" + b"1" * 300, 1002, "shortest way"),
        "text that is not UTF-8": (frame(raw.TEXT, b"ok\xff\xfe"), 1007, "not UTF-8: invalid start byte at position 2"),
        "an overlong encoding": (frame(raw.TEXT, b"\xc0\xaf"), 1007, "not UTF-8"),
        "a surrogate in UTF-8": (frame(raw.TEXT, b"\xed\xa0\x80"), 1007, "not UTF-8"),
        "half a character": (frame(raw.TEXT, "é".encode()[:1]), 1007, "not UTF-8"),
        "not UTF-8 over fragments": (frame(raw.TEXT, b"\xc3", fin=False) + frame(raw.CONT, b"x"), 1007, "not UTF-8"),
        "a close of 1 byte": (frame(raw.CLOSE, b"\x03"), 1002, "close frame too short"),
        **{
            f"close code {code}": (frame(raw.CLOSE, close(code)), 1002, "close code")
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
        },
        "a close reason that is not UTF-8": (frame(raw.CLOSE, close(1000, b"\xff")), 1007, "invalid start byte"),
        "a frame over the limit": (frame(raw.TEXT, b"x" * 9000), 1009, "exceeds limit of 8192 bytes"),
        "the head of one": (b"\x82\xff" + (1 << 62).to_bytes(8, "big"), 1009, "exceeds limit"),
        "the highest length bit": (b"\x82\xff" + (1 << 63).to_bytes(8, "big"), 1009, "exceeds limit"),
        "fragments over the limit": (frame(raw.TEXT, b"x" * 5000, fin=False) + frame(raw.CONT, b"x" * 5000), 1009, "exceeds limit"),
    }


NAMES = sorted(
    cases(type("R", (), {"frame": lambda *a, **k: b"", **dict.fromkeys(["CONT", "TEXT", "BINARY", "CLOSE", "PING", "PONG"], 0)}))
)


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("behind", ["nothing", "a flood"])
def test_a_broken_rule_is_answered_with_its_code(
    run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any, case: str, behind: str
) -> None:
    data, code, why = cases(raw)[case]

    async def main() -> None:
        async with serve(echo, lifespan="off", ws_max_size=8192) as served:
            client = await peer(served)
            await client.send(raw.TEXT, b"before")
            assert await client.text() == "before"
            # What follows is thrown away, and must not reset the connection before the Close is read.
            await client.wire.send(data + (b"\xff" * 200_000 if behind == "a flood" else b""))
            got = (await client.frame()).close
            assert got[0] == code
            assert len(got[1].encode()) <= 123
            client.wire.half_close()
            assert await client.wire.rest() == b""
            assert client.wire.ended == "closed"
            assert (await told.disconnected())["code"] == code
            assert [message.get("text") for message in told if message["type"] == "websocket.receive"] == ["before"]
            (line,) = served.log()
            assert why in line
            assert f"close code {code}" in line
            assert "(WebSocket)" in line
            assert "127.0.0.1" in line

    run(main())


def test_a_flood_of_bad_clients_is_not_a_flood_of_lines(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            for _ in range(20):
                client = await peer(served)
                await client.send(raw.TEXT, b"x", mask=None)
                assert (await client.closed())[0] == 1002
                client.wire.close()
            assert len(served.log()) == 1

    run(main())


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_a_compressed_bomb_is_refused_and_costs_no_memory(run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any) -> None:
    bomb = deflated(b"\0" * (64 * KIB * KIB))  # 64 MiB out of 64 KiB

    async def main() -> None:
        async with serve(echo, lifespan="off", ws_max_size=KIB * KIB) as served:
            client = await peer(served, "/", DEFLATE)
            await client.send(raw.BINARY, bomb, rsv=4)
            assert (await client.closed())[0] == 1009
            client.wire.half_close()
            assert await client.wire.rest() == b""
            assert (await told.disconnected())["code"] == 1009
            assert "exceeds limit" in served.log()[0]

    run(main())


def test_a_bomb_in_fragments_is_refused(run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off", ws_max_size=KIB * KIB) as served:
            client = await peer(served, "/", DEFLATE)
            bomb = deflated(b"\0" * (4 * KIB * KIB))
            pieces = [bomb[at : at + 100] for at in range(0, len(bomb), 100)]
            await client.send(raw.BINARY, pieces[0], rsv=4, fin=False)
            for piece in pieces[1:]:
                await client.send(raw.CONT, piece, fin=False)
            assert (await client.closed())[0] == 1009

    run(main())


def test_many_bombs_in_one_read_are_inflated_one_at_a_time(run: Any, serve: Any, peer: Any, raw: Any) -> None:
    """Each is within the limit; all of them at once would be 32 times that much."""
    size = 2 * KIB * KIB

    async def main() -> None:
        go = asyncio.Event()
        taken: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (message := await receive())["type"] == "websocket.receive":
                taken.append(len(message["bytes"]))
                await send({"type": "websocket.send", "bytes": b"."})

        async with serve(app, lifespan="off") as served:
            client = await peer(served, "/", DEFLATE)
            await client.wire.send(raw.frame(raw.BINARY, deflated(b"\0" * size), rsv=4) * 32)
            (call,) = served.server._context.serving.websockets
            await served.until(lambda: call.starved)
            assert len(call.messages) <= 2  # with the websocket.connect that was taken already, at most
            go.set()
            for _ in range(32):
                assert (await client.frame()).payload == b"."
            assert taken == [size] * 32

    run(main())


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x00", b""])
def test_what_is_no_deflate_is_refused(run: Any, serve: Any, echo: Any, peer: Any, raw: Any, data: bytes) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served, "/", DEFLATE)
            await client.send(raw.TEXT, data, rsv=4)
            got = await client.frame()
            if data == b"\xff" * 20:
                assert got.close[0] == 1002
            else:
                assert got.payload == b""  # an empty message, as zlib sees it

    run(main())


def test_a_compressed_continuation_is_refused(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served, "/", DEFLATE)
            await client.wire.send(raw.frame(raw.TEXT, deflated(b"x"), rsv=4, fin=False) + raw.frame(raw.CONT, b"", rsv=4))
            assert (await client.closed())[0] == 1002

    run(main())


def test_a_flood_of_empty_fragments_ends_where_the_message_does(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served)
            await client.send(raw.TEXT, b"a", fin=False)
            for _ in range(10):
                await client.wire.send(raw.frame(raw.CONT, b"", fin=False) * 1000)
            await client.send(raw.CONT, b"b")
            assert await client.text() == "ab"

    run(main())


def test_a_client_that_pings_and_takes_no_pong_is_made_to_wait(run: Any, serve: Any, echo: Any, peer: Any, raw: Any) -> None:
    """Else the pongs would pile up in memory for as long as it likes."""

    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            client = await peer(served, receive_buffer=4096)
            (call,) = served.server._context.serving.websockets
            flood = raw.frame(raw.PING, b"x" * 125) * 1000
            sending = asyncio.create_task(client.wire.send(flood * 80))
            held = call.pipe.transport.get_write_buffer_size
            await served.until(lambda: call.choked and held() > limits.WRITE_HIGH_BYTES)  # not only for the loop to turn
            size = held()
            await asyncio.sleep(0.05)
            assert held() <= size  # nothing more is read
            assert size < 2 * KIB * KIB
            assert not sending.done()
            for _ in range(80_000):
                assert (await client.frame()).opcode == raw.PONG
            await sending
            await client.send(raw.TEXT, b"still there")
            assert await client.text() == "still there"

    run(main())


def test_http_in_the_middle_of_a_websocket_is_a_broken_frame(run: Any, serve: Any, echo: Any, told: Any, peer: Any, raw: Any) -> None:
    """A request hidden behind an upgrade reaches no app: once switched, the connection never speaks HTTP again."""

    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake() + b"GET /admin HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await wire.head()).status == 101
            assert (await wire.take(2))[0] == 0x88
            assert b"HTTP" not in await wire.rest()
            assert (await told.disconnected())["code"] == 1002
            assert len(served.access) == 1

    run(main())


def test_a_request_behind_a_refused_handshake_is_not_answered(run: Any, serve: Any, echo: Any, raw: Any) -> None:
    """A proxy that believes in an upgrade that was refused would pass a hidden request on (websocket smuggling); it finds a closed
    connection instead."""

    async def main() -> None:
        async with serve(echo, lifespan="off") as served:
            wire = await served.connect()
            await wire.send(raw.handshake().replace(b"Version: 13", b"Version: 9") + b"GET /admin HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await wire.response()).status == 426
            assert await wire.rest() == b""
            assert served.access == []

    run(main())
