"""`http.response.pathsend` and `http.response.zerocopysend`: what comes over the wire, on plaintext HTTP/1."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest

from cavalcade.errors import AppProtocolError

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
SIZES = [0, 1, 8192, 8193, 65537, 3_000_000]


def start(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers, **more}


def path(where: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(where)}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def zero(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("given", [True, False])
def test_a_path_is_sent_whole_and_the_connection_goes_on(run: Any, serve: Any, files: Any, size: int, method: str, given: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(*[(b"content-length", b"%d" % size)] * given))
        await send(path(files[size]))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            before = descriptors()
            for _ in range(3):
                await client.send(GET.replace(b"GET", method.encode()))
                response = await client.response(method)
                # RFC 9110 section 8.6: of an empty body that is not sent nobody knows that it is empty
                assert response.header("content-length") == (str(size) if size or given or method == "GET" else None)
                assert response.body == (files[size].read_bytes() if method == "GET" else b"")
            assert descriptors() == before
            assert all(f"{size if method == 'GET' else 0}B" in line for line in served.access)

    run(main())


class Calls:
    """How many bytes the calls moved that send files, or read them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved: dict[str, list[int]] = {"sendfile": [], "pread": []}
        for name, moved in self.moved.items():
            monkeypatch.setattr(os, name, self._watched(getattr(os, name), moved))

    def _watched(self, call: Any, moved: list[int]) -> Any:
        def watched(*arguments: Any) -> Any:
            result = call(*arguments)
            moved.append(result if isinstance(result, int) else len(result))
            return result

        return watched


@pytest.mark.parametrize("how", ["path", "zero", "static"])
@pytest.mark.parametrize("secure", [False, True])
def test_in_the_clear_the_kernel_sends_and_elsewhere_little_is_read_at_a_time(
    run: Any, serve: Any, files: Any, authority: Any, monkeypatch: pytest.MonkeyPatch, how: str, secure: bool
) -> None:
    big = files[3_000_000]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if how == "path":
            await send(path(big))
        else:
            with big.open("rb") as file:
                await send(zero(file))

    async def main() -> None:
        options: dict[str, Any] = {"static": [f"/static={big.parent}"]} if how == "static" else {}
        options |= authority.pair.options if secure else {}
        async with serve(app, lifespan="off", **options) as served:
            verify = authority.client() if secure else False
            async with httpx.AsyncClient(base_url=served.url.replace("127.0.0.1", "localhost"), verify=verify) as client:
                calls = Calls(monkeypatch)
                answer = await client.get(f"/static/{big.name}" if how == "static" else "/")
                monkeypatch.undo()
            assert answer.content == big.read_bytes()
            assert sum(calls.moved["sendfile"]) == (0 if secure else 3_000_000)
            assert sum(calls.moved["pread"]) == (3_000_000 if secure else 0)
            assert max(calls.moved["pread"], default=0) <= 65536

    run(main())


def test_a_small_file_is_read_and_any_other_is_sent_by_the_kernel(
    run: Any, serve: Any, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(path(files[int(scope["path"][1:])]))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            for size, moved in ((8192, {"sendfile": [], "pread": [8192]}), (8193, {"sendfile": [8193], "pread": []})):
                with monkeypatch.context() as watching:
                    calls = Calls(watching)
                    await client.send(GET.replace(b"/", b"/%d" % size, 1))
                    assert (await client.response()).body == files[size].read_bytes()
                assert calls.moved == moved

    run(main())


def test_files_that_the_kernel_takes_in_part_go_on_where_it_stopped(run: Any, serve: Any, files: Any) -> None:
    """More of them than the kernel holds, for a client that reads nothing until it has asked for all."""
    count = 8

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(path(files[1_000_000]))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET * count)
            for _ in range(count):
                assert (await client.response()).body == files[1_000_000].read_bytes()
            assert len(served.access) == count
            assert all("1000000B" in line for line in served.access)

    run(main())


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_files_and_pieces_of_a_body_in_any_order(run: Any, serve: Any, files: Any, version: bytes) -> None:
    big = files[3_000_000]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with big.open("rb") as file:
            await send(zero(file, count=100, more_body=True))
            await send(body(b"<", True))
            await send(zero(file, count=100_000, more_body=True))  # from where the first one ended
            await send(zero(file.fileno(), offset=7, count=70_000, more_body=True))
            await send(zero(file, offset=2_900_000, more_body=True))
            await send(zero(file, offset=3_000_000, more_body=True))
        await send(body(b">"))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            await client.send(GET.replace(b"1.1", version) + (GET if version == b"1.1" else b""))
            data = big.read_bytes()
            for _ in range(2 if version == b"1.1" else 1):
                response = await client.response()
                assert response.body == b"".join([data[:100], b"<", data[100:100_100], data[7:70_007], data[2_900_000:], b">"])

    run(main())


def test_a_file_may_be_the_end_of_a_body(run: Any, serve: Any, files: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"<", True))
        with files[65537].open("rb") as file:
            await send(zero(file))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(GET)
                assert (await client.response()).body == b"<" + files[65537].read_bytes()

    run(main())


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (path("/no/such/file"), "No such file or directory"),
        (path("/tmp"), "a directory"),
        (path("/dev/null"), "no regular file"),
        (path("no/such/file"), "No such file or directory"),
        (path(""), "No such file or directory"),
        (path("/nul\0"), "null"),
        ({"type": "http.response.pathsend"}, "NoneType, not str"),
        ({"type": "http.response.pathsend", "path": b"/etc"}, "bytes, not str"),
        (zero(None), "without a descriptor"),
        (zero("a name"), "without a descriptor"),
        (zero(-1), "Bad file descriptor"),
        (zero(True), "without a descriptor"),
        (zero(0), "no regular file"),
        (zero("file", offset=-1), "not a number of bytes"),
        (zero("file", offset=1.5), "not a number of bytes"),
        (zero("file", count=True), "not a number of bytes"),
        (zero("file", count="5"), "not a number of bytes"),
        (zero("file", offset=1, count=65537), "of a file that has 65537"),
    ],
    ids=repr,
)
def test_what_cannot_be_sent_is_the_apps_error_and_it_can_still_answer(
    run: Any, serve: Any, files: Any, message: dict[str, Any], says: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with files[65537].open("rb") as file, pytest.raises(AppProtocolError, match=says):
            await send({**message, "file": file} if message.get("file") == "file" else message)
        await send(body(b"instead"))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect()
            before = 0
            for _ in range(3):
                await client.send(GET)
                assert (await client.response()).body == b"instead"
                assert descriptors() == (before or descriptors())  # a loop opens some of its own when it first turns
                before = descriptors()

    run(main())


def test_a_missing_file_that_nobody_catches_is_a_500(run: Any, serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-length", b"5")))
        await send(path("/no/such/file"))

    async def main() -> None:
        async with serve(app, lifespan="off", errors=("the app failed",)) as served:
            assert (await served.ask(GET)).status == 500

    run(main())


@pytest.mark.parametrize("size", [100, 65537])
def test_a_file_longer_than_the_content_length(run: Any, serve: Any, files: Any, size: int) -> None:
    """A path is cut: the file may have grown since the app looked. A span that the app has chosen is its error."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-length", b"10")))
        if scope["path"] == "/path":
            await send(path(files[65537]))
            return
        with files[65537].open("rb") as file:
            await send(zero(file, count=size))

    async def main() -> None:
        async with serve(app, lifespan="off", errors=("the app failed",)) as served:
            client = await served.connect()
            await client.send(GET.replace(b"/", b"/path", 1))
            assert (await client.response()).body == files[65537].read_bytes()[:10]
            before = descriptors()
            await client.send(GET)
            assert (await client.response()).status == 500
            assert descriptors() == before

    run(main())


def test_a_file_shorter_than_the_content_length_is_a_reset(run: Any, serve: Any, files: Any, truncated: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-length", b"70000")))
        await send(path(files[65537]))

    async def main() -> None:
        async with serve(app, lifespan="off", errors=("65537 bytes instead of 70000",)) as served:
            with pytest.raises(truncated):
                await served.ask(GET)

    run(main())


def test_a_client_that_leaves_in_the_middle_leaves_no_descriptor(run: Any, serve: Any, files: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if scope["path"] == "/small":
            await send(body(b""))
            return
        try:
            for _ in range(50):
                with files[3_000_000].open("rb") as file:
                    await send(zero(file, more_body=True))
        except OSError as error:
            raised.append(error)
            raise

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            first = await served.connect()
            await first.send(GET.replace(b"/", b"/small", 1))
            await first.response()
            before = descriptors()
            for leave in ("reset", "close"):
                client = await served.connect(receive_buffer=4096)
                await client.send(GET)
                await client.until(b"\r\n\r\n")
                getattr(client, leave)()
            await served.until(lambda: len(raised) == 2)
            await served.until(lambda: descriptors() <= before, "no descriptor left")

    run(main())


def test_a_message_before_the_file_is_sent_is_out_of_order(run: Any, serve: Any, files: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with files[3_000_000].open("rb") as file:
            pending = send(zero(file, more_body=True))
        with pytest.raises(AppProtocolError, match="a file is being sent"):
            await send(body(b"too early"))
        await pending
        await send(body(b"end"))

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            await client.send(GET)
            assert (await client.response()).body == files[3_000_000].read_bytes() + b"end"

    run(main())


def test_an_app_that_does_not_wait_for_its_file(run: Any, serve: Any, files: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        send(path(files[3_000_000])).close()

    async def main() -> None:
        async with serve(app, lifespan="off") as served:
            client = await served.connect(receive_buffer=4096)
            for _ in range(2):
                await client.send(GET)
                assert (await client.response()).body == files[3_000_000].read_bytes()

    run(main())
