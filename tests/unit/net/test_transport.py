"""The transport, and tasks that begin at once, on both loops and real sockets."""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import random
import socket
import struct
import termios
from pathlib import Path
from typing import Any

import pytest

from cavalcade import limits
from cavalcade.apps.tasks import Starter
from cavalcade.net.transport import Transport, Turn

WAIT_S = 30


class Recorder:
    """A protocol that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = b""
        self.keep_open = False
        self.broken = False
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Transport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("broken")
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: BaseException | None) -> None:
        self.lost.set_result(error)


async def connect() -> tuple[Transport, Recorder, socket.socket]:
    """A transport that has not started, what it talks to, and the client's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    recorder = Recorder()
    return Transport(Turn(asyncio.get_running_loop()), ours.detach(), recorder), recorder, theirs


async def receive(client: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(WAIT_S):
        while len(data) < count:
            more = await loop.sock_recv(client, 65536)
            assert more, f"it ended after {len(data)} bytes"
            data += more
    return data


def test_a_descriptor_that_is_closed_is_nobodys_socket(run: Any) -> None:
    """Its number may be another connection's a moment later."""

    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            transport.start()
            sock = transport.get_extra_info("socket")
            assert sock.fileno() == transport.fileno() >= 0
            transport.abort()
            await asyncio.wait_for(recorder.lost, WAIT_S)
            await asyncio.sleep(0)
            assert transport.get_extra_info("socket") is None
            assert sock.fileno() == transport.fileno() == -1

    run(main())


@pytest.mark.parametrize("size", [0, 10, limits.READ_BYTES, 3 * limits.READ_MAX_BYTES])
def test_a_reset_is_noticed_and_what_came_before_it_is_read(run: Any, size: int) -> None:
    """libuv tells only once of a socket that was reset."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * size)
            client = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        recorder = Recorder()
        Transport(Turn(loop), ours.fileno(), recorder, ours).start()
        await asyncio.sleep(0)  # it is watched
        # Both before the loop turns: it hears of them at once.
        client.sendall(b"x" * size)
        there = struct.unpack("i", fcntl.ioctl(ours, termios.FIONREAD, bytes(4)))[0]
        assert there > size - limits.READ_MAX_BYTES  # the rest is lost with the client
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert isinstance(await asyncio.wait_for(recorder.lost, WAIT_S), ConnectionResetError)
        assert len(recorder.data) == there

    run(main())


def test_a_reset_is_noticed_by_who_pauses_after_each_read(run: Any) -> None:
    """What libuv told once was cut short by that."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        recorder = Recorder()
        transport = Transport(Turn(loop), ours.fileno(), recorder, ours)
        transport.start()
        await asyncio.sleep(0)  # it is watched
        receive = recorder.data_received

        def pausing(data: bytes) -> None:
            receive(data)
            transport.pause_reading()

        recorder.data_received = pausing  # type: ignore[method-assign]
        client.sendall(b"x" * 1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        async with asyncio.timeout(WAIT_S):
            while not recorder.data:
                await asyncio.sleep(0)
        transport.resume_reading()
        assert isinstance(await asyncio.wait_for(recorder.lost, WAIT_S), ConnectionResetError)

    run(main())


def test_what_a_client_has_sent_already_is_read_at_once(run: Any) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            client.send(b"hello")
            transport.start()
            assert recorder.data == b"hello"
            transport.abort()
            assert await asyncio.wait_for(recorder.lost, WAIT_S) is None

    run(main())


def test_writes_of_one_turn_go_out_together_at_its_end(run: Any) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            transport.start()
            transport.write(b"one ")
            transport.write(b"two")
            with pytest.raises(BlockingIOError):
                client.recv(100)
            assert transport.get_write_buffer_size() == 7
            assert await receive(client, 7) == b"one two"
            transport.close()
            assert await asyncio.wait_for(recorder.lost, WAIT_S) is None

    run(main())


def test_a_slow_client_gets_all_of_it_in_order(run: Any) -> None:
    """Pieces of all sizes, more than the sockets hold: what is written is held, the protocol is told to pause, and told when to go on."""

    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            transport.start()
            rng = random.Random(7)
            pieces = [rng.randbytes(rng.choice((1, 100, 5000, 70_000))) for _ in range(200)]
            for piece in pieces:
                transport.write(piece)
            assert recorder.told == ["made", "pause"]
            assert transport.get_write_buffer_size() > limits.WRITE_HIGH_BYTES
            transport.close()  # behind all of it
            whole = b"".join(pieces)
            assert await receive(client, len(whole)) == whole
            assert await asyncio.wait_for(recorder.lost, WAIT_S) is None
            assert recorder.told == ["made", "pause", "resume"]
            assert client.recv(1) == b""

    run(main())


def test_our_side_ends_behind_what_was_written_and_the_client_may_go_on(run: Any) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        recorder.keep_open = True
        with client:
            transport.start()
            transport.write(b"last")
            transport.write_eof()
            transport.write(b"ignored")
            assert await receive(client, 4) == b"last"
            assert client.recv(1) == b""
            client.send(b"more")
            client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(WAIT_S):
                while "eof" not in recorder.told:
                    await asyncio.sleep(0)
            assert recorder.data == b"more"
            assert not transport.is_closing()
            transport.close()
            await asyncio.wait_for(recorder.lost, WAIT_S)

    run(main())


def test_nothing_is_read_while_that_is_paused(run: Any) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            transport.start()
            transport.pause_reading()
            client.send(b"later")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert recorder.data == b""
            transport.resume_reading()
            async with asyncio.timeout(WAIT_S):
                while not recorder.data:
                    await asyncio.sleep(0)
            transport.close()
            await asyncio.wait_for(recorder.lost, WAIT_S)

    run(main())


def test_a_pause_that_is_over_in_the_same_turn_costs_the_loop_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        with client:
            transport.start()
            loop = asyncio.get_running_loop()
            with monkeypatch.context() as refusing:
                refusing.setattr(loop, "add_reader", None)
                refusing.setattr(loop, "remove_reader", None)
                transport.pause_reading()
                transport.resume_reading()
            client.send(b"next")
            async with asyncio.timeout(WAIT_S):
                while recorder.data != b"next":
                    await asyncio.sleep(0)
            transport.close()
            await asyncio.wait_for(recorder.lost, WAIT_S)

    run(main())


def test_a_file_goes_out_behind_what_is_held_as_far_as_there_is_room(run: Any, tmp_path: Path) -> None:
    content = random.Random(8).randbytes(2_000_000)
    (tmp_path / "file").write_bytes(content)

    async def main() -> None:
        transport, recorder, client = await connect()
        with client, (tmp_path / "file").open("rb") as file:
            transport.start()
            transport.write(b"he")
            transport.write(b"ad")
            assert transport.send_file(file.fileno(), 7, 1000) == 1000
            assert client.recv(4) == b"head"
            assert await receive(client, 1000) == content[7:1007]
            taken = transport.send_file(file.fileno(), 0, len(content))
            assert 0 < taken < len(content)
            transport.write(b"next")  # there is no room for it
            transport.push()
            assert transport.send_file(file.fileno(), 0, 1000) == 0
            assert await receive(client, taken + 4) == content[:taken] + b"next"
            transport.close()
            await asyncio.wait_for(recorder.lost, WAIT_S)

    run(main())


def test_a_protocol_that_fails_ends_its_own_connection_only(run: Any) -> None:
    async def main() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        transport, recorder, client = await connect()
        recorder.broken = True
        with client:
            client.send(b"x")
            transport.start()
            error = await asyncio.wait_for(recorder.lost, WAIT_S)
            assert isinstance(error, RuntimeError)
            assert [failure["exception"] for failure in failures] == [error]
            assert client.recv(1) == b""

    run(main())


def test_a_client_that_is_gone_is_told_of_once(run: Any) -> None:
    async def main() -> None:
        transport, recorder, client = await connect()
        transport.start()
        transport.pause_reading()
        client.close()
        transport.write(b"for nobody")
        transport.write(b"x" * 100_000)
        assert isinstance(await asyncio.wait_for(recorder.lost, WAIT_S), OSError)

    run(main())


name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


def test_a_task_begins_at_once_and_is_the_current_one_from_its_first_step(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon
        seen: list[Any] = []

        async def work() -> None:
            seen.append(asyncio.current_task())
            name.set("mine")
            async with asyncio.timeout(WAIT_S):
                await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            seen.append(name.get())

        done: asyncio.Future[Any] = loop.create_future()

        def begin() -> None:
            task = Starter(loop).start(work(), contextvars.copy_context())
            seen.append("begun")
            task.add_done_callback(done.set_result)

        loop.call_soon(begin)
        task = await asyncio.wait_for(done, WAIT_S)
        assert seen == [task, "begun", task, "mine"]
        assert name.get() == ""
        assert loop.call_soon == call_soon

    run(main())


def test_a_task_that_is_begun_by_another_is_one_of_its_own(run: Any) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def work() -> None:
            seen.append(asyncio.current_task())

        task = Starter(asyncio.get_running_loop()).start(work(), contextvars.copy_context())
        await asyncio.wait_for(task, WAIT_S)
        assert seen == [task]
        assert asyncio.current_task() is not task

    run(main())
