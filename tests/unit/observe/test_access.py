"""Access lines: their facts, their safety, their cost."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest

from cavalcade import limits
from cavalcade.config.options import Settings
from cavalcade.observe import logs
from cavalcade.observe.access import AccessLog, NamedAccessLog
from cavalcade.observe.escape import quoted
from cavalcade.observe.logs import ACCESS_LOGGER, Format, OwnHandler

Make = Callable[[Format], tuple[AccessLog, Callable[[], str]]]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(ACCESS_LOGGER)
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture
def make(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """An access log of a format whose lines go into a pipe, and a function that reads them."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    handlers: list[OwnHandler] = []
    monkeypatch.setattr(logs, "_worker", 3)

    def make(shape: Format) -> tuple[AccessLog, Callable[[], str]]:
        handler = OwnHandler(write_fd, shape, None)
        handlers.append(handler)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
        return AccessLog(Settings()), lambda: os.read(read_fd, 1 << 20).decode()

    yield make
    for handler in handlers:
        handler.dispose()
    os.close(read_fd)
    os.close(write_fd)


ENTRY = ("127.0.0.1:40000", "GET", b"/items?q=1", "1.1", 200, 123, 0.0042)


def test_a_plain_line_has_every_fact(make: Make) -> None:
    log, read = make("plain")
    log.add(*ENTRY)
    log.flush()
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} \[\d+\] 127\.0\.0\.1:40000 "GET /items\?q=1 HTTP/1\.1" 200 123B 4\.2ms\n', read()
    )


def test_a_json_line_has_every_fact(make: Make) -> None:
    log, read = make("json")
    log.add(*ENTRY)
    log.add(*ENTRY)
    log.flush()
    first, second = (json.loads(line) for line in read().splitlines())
    moment = first.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", moment)
    assert first == {
        "level": "info",
        "logger": "cavalcade.access",
        "message": "GET /items?q=1 200",
        "pid": os.getpid(),
        "worker": 3,
        "client": "127.0.0.1:40000",
        "method": "GET",
        "target": "/items?q=1",
        "http_version": "1.1",
        "status": 200,
        "bytes": 123,
        "duration_s": 0.0042,
    }
    assert second["target"] == "/items?q=1"


def test_a_coloured_line_says_the_same_as_a_plain_one(make: Make) -> None:
    log, read = make("text")
    log.add(*ENTRY)
    log.flush()
    coloured = read()
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).endswith('127.0.0.1:40000 "GET /items?q=1 HTTP/1.1" 200 123B 4.2ms\n')


@pytest.mark.parametrize("shape", ["plain", "text", "json"])
def test_a_peer_can_neither_forge_a_line_nor_steer_the_terminal(make: Make, shape: Format) -> None:
    log, read = make(shape)
    log.add("1.2.3.4:5", "GET", b'/a" 200 0B\r\n1.1.1.1 "GET /forged\x1b]0;owned\x07\xc2\x9b2J\xe2\x80\xa8', "1.1", 404, 0, 0.0)
    log.flush()
    said = read()
    assert said.count("\n") == 1
    assert len(said.splitlines()) == 1 or shape == "json"  # JSON may hold U+2028 as it is
    body = re.sub(r"\x1b\[[\d;]*m", "", said) if shape == "text" else said
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", body.replace("\x9b", "") if shape == "json" else body)
    if shape == "json":
        assert json.loads(said)["target"].startswith('/a" 200 0B\r\n')
    else:
        assert '/a\\" 200 0B\\x0d\\x0a1.1.1.1 \\"GET' in said


def test_quoted_is_printable_ascii_and_unambiguous() -> None:
    assert quoted("/plain?x=%20") == "/plain?x=%20"
    assert quoted('"\\') == '\\"\\\\'
    assert quoted("\x00\xff\u20ac\U0001f600") == "\\x00\\xff\\u20ac\\U0001f600"
    assert quoted("/" * 10_000) == "/" * limits.LOG_TARGET_CHARS + "..."


def test_bytes_that_are_no_text_do_not_break_a_json_line(make: Make) -> None:
    log, read = make("json")
    log.add("c", "GET", b"/\xed\xb2\x80", "1.1", 200, 0, 0.0)
    log.flush()
    assert json.loads(read())["target"] == "/\\xed\\xb2\\x80"


def test_numbers_and_texts_that_no_table_holds(make: Make) -> None:
    log, read = make("plain")
    long = b"/" + b"x" * 300
    log.add("c", "GET", long, "1.0", 599, 123_456_789, 12.34567)
    log.add("c", "GET", b"/\xff\x22", "2", 100, 2047, 0.20474)
    log.add("c", "GET", b"", "1.1", 999, 2048, 0.2048)
    log.flush()
    first, second, third = read().splitlines()
    assert first.endswith(f'c "GET {long.decode()} HTTP/1.0" 599 123456789B 12345.7ms')
    assert second.endswith('c "GET /\\\\xff\\" HTTP/2" 100 2047B 204.7ms')
    assert third.endswith('c "GET  HTTP/1.1" 999 2048B 204.8ms')


def test_a_flood_of_targets_is_not_remembered_for_ever(make: Make) -> None:
    log, read = make("plain")
    for turn in range(2):
        for number in range(3000):
            log.add("c", "GET", b"/%d" % number, "1.1", 200, 0, 0.0)
            if number % 100 == 99:
                log.flush()
                assert read().count("\n") == 100, turn
    assert len(log._targets) <= 2048


def test_a_batch_is_one_write(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    log, read = make("plain")
    writes = 0
    real = os.write

    def counted(fd: int, data: bytes) -> int:
        nonlocal writes
        writes += 1
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    for _ in range(30):
        log.add(*ENTRY)
    assert log.pending
    log.flush()
    assert not log.pending
    assert writes == 1
    assert read().count("\n") == 30


def test_a_level_above_info_silences_the_lines(make: Make, logger: logging.Logger) -> None:
    log, read = make("plain")
    logger.setLevel(logging.WARNING)
    log.add(*ENTRY)
    log.flush()
    assert not log.pending
    with pytest.raises(BlockingIOError):
        read()


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_handlers_of_the_user_get_real_records_with_extras(make: Make, logger: logging.Logger) -> None:
    log, read = make("plain")
    kept = Kept()
    logger.handlers[:] = [kept]
    log.add(*ENTRY)
    log.flush()
    (record,) = kept.records
    assert record.getMessage() == '127.0.0.1:40000 - "GET /items?q=1 HTTP/1.1" 200 123B 4.2ms'
    assert record.args == ("127.0.0.1:40000", "GET", "/items?q=1", "1.1", 200)
    facts = {
        name: getattr(record, name) for name in ("client", "method", "target", "http_version", "status", "bytes", "duration_s", "worker")
    }
    assert facts == {
        "client": "127.0.0.1:40000",
        "method": "GET",
        "target": "/items?q=1",
        "http_version": "1.1",
        "status": 200,
        "bytes": 123,
        "duration_s": 0.0042,
        "worker": 3,
    }
    with pytest.raises(BlockingIOError):
        read()


def test_a_handler_of_the_user_that_fails_takes_nothing_down(make: Make, logger: logging.Logger) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("disk on fire")

    log, _ = make("plain")
    logger.handlers[:] = [Broken()]
    own = logging.getLogger("cavalcade")
    kept = Kept()
    own.addHandler(kept)
    try:
        log.add(*ENTRY)
        log.flush()
    finally:
        own.removeHandler(kept)
    assert [record.getMessage() for record in kept.records] == ["a handler of cavalcade.access failed"]


def test_percent_signs_from_the_peer_are_not_format_directives(make: Make, logger: logging.Logger) -> None:
    log, _ = make("plain")
    kept = Kept()
    logger.handlers[:] = [kept]
    log.add("c", "GET", b"/%s%d%n", "1.1", 200, 0, 0.0)
    log.flush()
    assert kept.records[0].getMessage() == 'c - "GET /%s%d%n HTTP/1.1" 200 0B 0.0ms'


def test_add_costs_well_under_a_microsecond_or_three_on_a_slow_machine(make: Make) -> None:
    log, _ = make("plain")
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        for _ in range(2000):
            log.add("127.0.0.1:40000", "GET", b"/items?q=1", "1.1", 200, 123, 0.0042)
        best = min(best, (time.thread_time() - start) / 2000)
        log.pending.clear()
    assert best < 3e-6, f"{best * 1e9:.0f} ns"


@pytest.mark.parametrize("shape", ["plain", "text", "json"])
def test_a_line_with_the_name_of_its_request(make: Make, shape: Format) -> None:
    _, read = make(shape)
    log = NamedAccessLog(Settings())
    for name in ("first", "second"):
        log.request_id = name
        log.add(*ENTRY)
    log.flush()
    first, second = read().splitlines()
    if shape == "json":
        assert [json.loads(line)["request_id"] for line in (first, second)] == ["first", "second"]
    else:
        assert first.endswith(" 123B 4.2ms [first]")
        assert second.endswith(" 123B 4.2ms [second]")


def test_a_handler_of_the_users_gets_the_name_of_the_request(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.setLevel(logging.INFO)
    log = NamedAccessLog(Settings())
    log.request_id = "mine"
    log.add(*ENTRY)
    log.flush()
    (record,) = caplog.records
    assert record.request_id == "mine"
