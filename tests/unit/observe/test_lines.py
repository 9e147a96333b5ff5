"""LineWriter: whole lines, never waiting, whatever the reader does."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cavalcade import limits
from cavalcade.observe.lines import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def read_all(fd: int) -> bytes:
    """What is in a pipe now."""
    os.set_blocking(fd, False)
    got = b""
    while True:
        try:
            data = os.read(fd, 1 << 20)
        except BlockingIOError:
            return got
        if not data:
            return got
        got += data


def test_a_line_goes_out_at_once(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write(b"hello\n")
    assert read_all(pipe[0]) == b"hello\n"
    writer.close()


def test_the_descriptor_itself_stays_blocking(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write(b"hello\n")
    assert os.get_blocking(pipe[1])
    writer.close()


@pytest.mark.parametrize("ask_first", [False, True], ids=["reopened", "polled"])
def test_a_full_pipe_neither_blocks_nor_loses_what_fits_the_limit(pipe: tuple[int, int], ask_first: bool) -> None:
    writer = LineWriter(pipe[1])
    if ask_first:
        writer._ask_first, writer._fd = True, pipe[1]  # as where there is no /proc
    batch = b"".join(b"line %06d of a batch\n" % number for number in range(1000))
    for _ in range(20):
        writer.write(batch)
    assert writer.kept_bytes > 0
    assert writer.dropped == 0
    got = b""
    while writer.kept_bytes:
        got += read_all(pipe[0])
        writer.flush()
    got += read_all(pipe[0])
    assert got == batch * 20
    writer.close()


def test_over_the_limit_whole_lines_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    line = b"x" * 99 + b"\n"
    written = 3 * limits.LOG_KEPT_BYTES // len(line)
    for _ in range(written):
        writer.write(line)
    assert writer.kept_bytes <= limits.LOG_KEPT_BYTES
    got = b""
    while writer.kept_bytes:
        got += read_all(pipe[0])
        writer.flush()
    got += read_all(pipe[0])
    lines = got.splitlines(keepends=True)
    assert set(lines) == {line}
    assert len(lines) + writer.dropped == written
    assert writer.dropped > 0
    writer.close()


def test_a_closed_pipe_is_survived_and_named(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    os.close(pipe[0])
    writer.write(b"one\ntwo\n")
    assert writer.dropped == 2
    assert writer.trouble == "Broken pipe"
    writer.close()


def test_a_pipe_that_had_no_reader_from_the_start_is_survived(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = LineWriter(pipe[1])
    writer.write(b"one\n")
    assert (writer.dropped, writer.trouble) == (1, "Broken pipe")
    writer.close()


def test_a_full_disk_is_survived_and_named() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        writer = LineWriter(fd)
        writer.write(b"one\n")
        assert (writer.dropped, writer.trouble) == (1, "No space left on device")
        writer.close()
    finally:
        os.close(fd)


def test_a_descriptor_that_was_never_open_is_survived() -> None:
    writer = LineWriter(-1)
    writer.write(b"one\n")
    assert writer.dropped == 1
    writer.close()


def test_a_socket_is_written_without_waiting() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = LineWriter(ours.fileno())
        writer.write(b"hello\n")
        assert theirs.recv(100) == b"hello\n"
        for _ in range(100):
            writer.write(b"y" * 9999 + b"\n")
        assert writer.kept_bytes > 0
        writer.close()


def test_a_file_is_written_where_its_offset_stands(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, b"from print\n")
        writer = LineWriter(fd)
        writer.write(b"ours\n")
        os.write(fd, b"from print again\n")
        writer.close()
    finally:
        os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"from print\nours\nfrom print again\n"


def test_patience_waits_for_a_reader_that_comes(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], patience_s=30.0)
    line = b"z" * 999 + b"\n"
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(pipe[0], 1 << 16):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(1000):
        writer.write(line)
    assert (writer.kept_bytes, writer.dropped) == (0, 0)
    writer.close()
    os.close(pipe[1])
    reader.join()
    assert b"".join(got) == line * 1000


def test_patience_is_used_up_once_not_for_every_line(pipe: tuple[int, int]) -> None:
    waits = 0

    class Counting(LineWriter):
        def _wait(self) -> bool:
            nonlocal waits
            waits += not self.trouble
            return super()._wait()

    writer = Counting(pipe[1], patience_s=0.01)
    for _ in range(300):
        writer.write(b"w" * 999 + b"\n")
    assert writer.trouble == "nobody reads it"
    assert waits == 1
    writer.close()


@pytest.mark.slow
def test_lines_of_several_processes_never_mix_in_a_pipe(pipe: tuple[int, int]) -> None:
    children = []
    for letter in b"ABC":
        pid = os.fork()
        if not pid:
            writer = LineWriter(pipe[1])
            for _ in range(40):
                writer.write((bytes([letter]) * 80 + b"\n") * 100)
            while writer.kept_bytes:
                writer.flush()
            os._exit(0)
        children.append(pid)
    os.close(pipe[1])
    got = b""
    while data := os.read(pipe[0], 1 << 16):
        got += data
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    lines = got.splitlines()
    assert len(lines) == 3 * 40 * 100
    assert {len(line) for line in lines} == {80}
    assert all(len(set(line)) == 1 for line in lines)
