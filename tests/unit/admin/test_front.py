"""The admin listeners by themselves: where they listen, who may ask, what they understand. What they do is proved with real servers in
tests/process."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cavalcade import limits
from cavalcade.admin.front import Front
from cavalcade.config.options import Settings
from cavalcade.errors import BindError, StartupError
from cavalcade.observe import logs
from cavalcade.supervisor import events as on
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.commands import Answer, Verdict
from cavalcade.supervisor.desk import Desk
from cavalcade.supervisor.inspector import Inspection
from cavalcade.supervisor.journal import Journal
from cavalcade.supervisor.status import Status, WorkerStatus

Run = Callable[[Any], Any]

WORKERS = (1, 12)


class Policy:
    """Stands where the policy is: keeps the events, and answers some at once."""

    def __init__(self) -> None:
        self.events: list[on.Event] = []
        self.front: Front | None = None
        self.verdict: Verdict | None = Verdict.DONE

    def post(self, event: on.Event) -> None:
        self.events.append(event)
        if self.verdict is not None and isinstance(event, on.Reload | on.Scale | on.Recycle | on.Drain):
            assert self.front is not None
            self.front.answer(Answer(event.request, self.verdict, "the text", 2, 3, 0.5, "the fix", "the trace"))

    def status(self) -> Status:
        return status_of(WORKERS)


def status_of(worker_ids: Sequence[int]) -> Status:
    """A status of a server that serves."""
    workers = [WorkerStatus(number, 4000 + number, 1, "ready", 1.0, 0, 0, 0) for number in worker_ids]
    return Status(
        *("0.1.0", "pure Python", "main:app", "main:app", 4000, 1.0, ["http://127.0.0.1:8000"], "serving", True, False, 1, 0, None),
        *(len(workers), len(workers), workers, 0, 0, {}),
    )


def no_metrics(accept: str) -> tuple[bytes, str]:
    return f"for {accept}".encode(), "text/x-metrics"


async def nobody(worker_id: int, limit: int) -> Inspection | None:
    return None


def refuse_level(name: str) -> None:
    logs.level(name)


def new_front(policy: Policy, settings: Settings) -> Front:
    ask = (policy.post, policy.status, no_metrics, nobody, refuse_level)
    desk = Desk(lambda: settings, {"app": "APP"}, {}, Journal(), *ask, renew_certificates=None)
    return Front(desk)


@asynccontextmanager
async def control(policy: Policy, setting: str, code: int = 0, **options: Any) -> AsyncIterator[Front]:
    policy.front = new_front(policy, Settings(app="main:app", control=setting, **options))
    await policy.front.start(alone=True)
    try:
        yield policy.front
    finally:
        await policy.front.stop(code)


async def ask(path: Path, line: str) -> tuple[int, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), msgspec.json.decode(body)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("POST /reload", on.Reload(1)),
        ("POST /reload/?wait=1", on.Reload(1)),
        ("POST /scale?workers=4", on.Scale(1, 4)),
        ("POST /scale?workers=+2", on.Scale(1, 2, relative=True)),
        ("POST /scale?workers=%2B2", on.Scale(1, 2, relative=True)),
        ("POST /scale?workers=-1", on.Scale(1, -1, relative=True)),
        ("POST /scale?wait=0&workers=0", on.Scale(1, 0)),
        ("POST /workers/all/recycle", on.Recycle(1)),
        ("POST /workers/12/recycle", on.Recycle(1, 12)),
        ("POST /workers/12/restart", on.Recycle(1, 12)),
        ("POST /scale?n=4", on.Scale(1, 4)),
        ("POST /drain", on.Drain(1)),
        ("POST /drain?off=1", on.Drain(1, off=True)),
        ("POST /stop?wait=0", on.Stop()),
    ],
)
def test_a_request_becomes_an_event(tmp_path: Path, run: Run, line: str, event: on.Event) -> None:
    async def main() -> None:
        policy = Policy()
        async with control(policy, str(tmp_path / "c.sock")):
            status, reply = await ask(tmp_path / "c.sock", line)
        assert policy.events == [event]
        assert (status, reply["verdict"]) == ((202, "begun") if isinstance(event, on.Stop) else (200, "done"))

    run(main())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /scale", 400),
        ("POST /scale?workers=", 400),
        ("POST /scale?workers=four", 400),
        ("POST /scale?workers=+-4", 400),
        ("POST /scale?workers=4.5", 400),
        ("POST /scale?workers=99999999999999", 400),
        ("POST /scale?workers=%D9%A4", 400),
        ("GET /reload", 405),
        ("DELETE /status", 405),
        ("POST /", 405),
        ("POST /workers/x/recycle", 404),
        ("POST /workers//recycle", 404),
        ("POST /workers/13/recycle", 404),
        ("POST /workers/-1/recycle", 404),
        ("GET /workers/13/stack", 404),
        ("GET /workers/99999999999999999999/stack", 404),
        ("GET /workers/1/stack?limit=many", 400),
        ("GET /logs?lines=-1", 400),
        ("GET /logs?level=loud", 400),
        ("POST /log-level", 400),
        ("POST /log-level?level=loud", 400),
        ("POST /certs/reload", 400),
        ("GET /../etc/passwd", 404),
        ("GET /static/index.html", 404),
        ("POST /nothing", 404),
    ],
)
def test_what_makes_no_sense_is_said_so_and_no_event(tmp_path: Path, run: Run, line: str, status: int) -> None:
    async def main() -> None:
        policy = Policy()
        async with control(policy, str(tmp_path / "c.sock")):
            got, reply = await ask(tmp_path / "c.sock", line)
        assert (got, reply["verdict"]) == (status, "rejected")
        assert policy.events == []

    run(main())


@pytest.mark.parametrize(
    ("verdict", "status"), [(Verdict.DONE, 200), (Verdict.REJECTED, 400), (Verdict.FAILED, 409), (Verdict.STOPPING, 503)]
)
def test_each_verdict_has_its_status_and_the_whole_answer_is_in_the_body(tmp_path: Path, run: Run, verdict: Verdict, status: int) -> None:
    async def main() -> None:
        policy = Policy()
        policy.verdict = verdict
        async with control(policy, str(tmp_path / "c.sock")):
            got, reply = await ask(tmp_path / "c.sock", "POST /reload")
        assert got == status
        assert reply == {
            "verdict": verdict.value,
            "text": "the text",
            "fix": "the fix",
            "trace": "the trace",
            "generation": 2,
            "workers": 3,
            "seconds": 0.5,
        }

    run(main())


def test_who_waits_at_the_end_is_answered_before_it(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        policy = Policy()
        policy.verdict = None
        async with asyncio.TaskGroup() as tasks, control(policy, str(tmp_path / "c.sock"), code=3):
            waiting = [tasks.create_task(ask(tmp_path / "c.sock", line)) for line in ("POST /reload", "POST /stop")]
            while len(policy.events) < 2:
                await asyncio.sleep(0)
        assert waiting[0].result() == (503, {"verdict": "stopping", "text": "The server stops.", "seconds": 0.0})
        assert waiting[1].result() == (200, {"verdict": "done", "text": "stopped, exit code 3"})

    run(main())


def test_the_socket_is_for_its_user_alone_and_removed_at_the_end(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with control(Policy(), str(tmp_path / "c.sock")):
            assert stat.S_IMODE((tmp_path / "c.sock").stat().st_mode) == 0o600
        assert not (tmp_path / "c.sock").exists()

    run(main())


def test_a_path_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(BindError, match="does not exist"):
            await new_front(Policy(), Settings(control=str(tmp_path / "nowhere" / "c.sock"))).start(alone=True)

    run(main())


def test_without_any_directory_of_our_own_there_is_one_warning_and_no_socket(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    places = [tmp_path / "nowhere" / "cavalcade", tmp_path / "open"]
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: places)
    monkeypatch.setattr(logging.getLogger("cavalcade"), "propagate", True)

    async def main() -> None:
        async with control(Policy(), "auto") as nothing:
            assert nothing.path is None

    run(main())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("no control socket, so `cavalcade status`, `reload` and `scale` cannot reach this server: ")
    assert f"{places[0]}: No such file or directory" in line
    assert f"{places[1]} is open to others (mode 755, not 700)" in line


def test_a_directory_whose_path_is_too_long_for_a_socket_gives_way_to_the_next(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [long, tmp_path / "c"])

    async def main() -> None:
        async with control(Policy(), "auto") as it:
            assert it.path is not None
            assert it.path.parent == tmp_path / "c"

    run(main())


# -- over TCP ----------------------------------------------------------------------------------------------------------------

TOKEN = "a-token-of-enough-letters"


async def ask_tcp(url: str, line: str, *fields: str) -> tuple[int, str]:
    """One request, with these fields and no other; its status and all of the answer."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write("\r\n".join([f"{line} HTTP/1.1", "Connection: close", *fields, "", ""]).encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer


BEARER = f"Authorization: Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        ("GET /status", ["Host: localhost", BEARER], 200),
        ("GET /status", ["Host: localhost:9000", f"authorization: bearer {TOKEN}"], 200),
        ("GET /status", ["Host: 10.1.2.3:80", BEARER], 200),
        ("GET /status", ["Host: [::1]:80", BEARER], 200),
        ("GET /status", ["Host: shop.internal", BEARER], 200),
        ("HEAD /status", ["Host: localhost", BEARER], 200),
        ("GET /status", ["Host: localhost"], 401),
        ("GET /nothing", ["Host: localhost"], 401),
        ("GET /status", ["Host: localhost", f"Authorization: Bearer {TOKEN}x"], 401),
        ("GET /status", ["Host: localhost", f"Authorization: Basic {TOKEN}"], 401),
        ("GET /status?token=" + TOKEN, ["Host: localhost"], 401),
        ("POST /reload", ["Host: localhost"], 401),
        ("GET /status", ["Host: evil.example", BEARER], 421),
        ("GET /status", ["Host: 127.0.0.1.evil.example", BEARER], 421),
        ("GET /readyz", ["Host: evil.example"], 421),
        ("POST /reload", ["Host: localhost", BEARER], 403),
        ("POST /stop", ["Host: localhost", BEARER], 403),
        ("GET /readyz", ["Host: localhost"], 200),
        ("POST /reload", ["Host: localhost", BEARER, "Content-Length: 999999"], 413),
        ("GET /" + "x" * 20_000, ["Host: localhost", BEARER], 414),
        ("GET /status", ["Host: localhost", BEARER, "X-Long: " + "x" * 20_000], 431),
        ("GET /status", ["Host: localhost", "Host: localhost", BEARER], 400),
        ("GET /status", [BEARER], 400),
    ],
)
def test_over_tcp_only_who_knows_the_token_looks_and_nobody_steers(run: Run, line: str, fields: list[str], status: int) -> None:
    async def main() -> None:
        policy = Policy()
        options = {"admin": "127.0.0.1:0", "admin_token": TOKEN, "admin_hosts": ("shop.internal",), "admin_open": ("health",)}
        async with control(policy, "off", **options) as front:
            got, answer = await ask_tcp(front.url, line, *fields)
        assert got == status, answer
        assert policy.events == []
        assert TOKEN not in answer

    run(main())


def test_over_tcp_who_knows_the_token_steers_where_that_was_asked_for(run: Run) -> None:
    async def main() -> None:
        policy = Policy()
        async with control(policy, "off", admin="127.0.0.1:0", admin_token=TOKEN, admin_write=True) as front:
            assert (await ask_tcp(front.url, "POST /reload", "Host: localhost", BEARER))[0] == 200
            assert (await ask_tcp(front.url, "POST /reload", "Host: localhost"))[0] == 401
        assert policy.events == [on.Reload(1)]

    run(main())


def test_a_token_that_was_made_is_for_its_user_alone_and_removed_at_the_end(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [tmp_path / "nowhere" / "x", tmp_path / "c"])

    async def main() -> None:
        async with control(Policy(), "off", admin="127.0.0.1:0") as front:
            (file,) = (tmp_path / "c").iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            token = file.read_text().strip()
            assert (await ask_tcp(front.url, "GET /status", "Host: localhost", f"Authorization: Bearer {token}"))[0] == 200
            assert (await ask_tcp(front.url, "GET /status", "Host: localhost"))[0] == 401
        assert list((tmp_path / "c").iterdir()) == []

    run(main())


def test_without_a_place_for_a_token_none_is_made(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_dir, "candidates", lambda environ: [tmp_path / "nowhere" / "x"])

    async def main() -> None:
        with pytest.raises(StartupError, match="no token was given, and one that is made cannot be kept anywhere"):
            await new_front(Policy(), Settings(control="off", admin="127.0.0.1:0")).start(alone=True)

    run(main())


def test_of_many_connections_those_that_are_too_many_are_closed_and_the_others_answered(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADMIN_CONNECTIONS", 4)

    async def main() -> None:
        async with control(Policy(), "off", admin="127.0.0.1:0", admin_token=TOKEN) as front:
            host, _, port = front.url.removeprefix("http://").rpartition(":")
            opened = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
            assert [await reader.read() for reader, _ in opened[4:]] == [b"", b""]
            reader, writer = opened[0]
            writer.write(f"GET /status HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            for _, writer in opened:
                writer.close()

    run(main())


# -- streams -----------------------------------------------------------------------------------------------------------------


class Streams:
    """Clients of streams, each on a connection of its own, which are closed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Streams:
        return self

    async def __aexit__(self, *error: object) -> None:
        for reader in list(self._writers):
            await self.leave(reader)

    async def open(self, target: str, *fields: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        self._writers[reader] = writer
        writer.write("\r\n".join([f"GET {target} HTTP/1.0", *fields, "", ""]).encode())
        await reader.readuntil(b"\r\n\r\n")
        return reader

    async def leave(self, reader: asyncio.StreamReader) -> None:
        writer = self._writers.pop(reader)
        writer.close()
        await writer.wait_closed()


async def next_event(reader: asyncio.StreamReader, name: str) -> Any:
    while True:
        block = await reader.readuntil(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines())
        if fields.get("event") == name:
            return msgspec.json.decode(fields["data"])


def test_events_tell_how_the_server_is_and_what_happens_and_end_with_it(tmp_path: Path, run: Run) -> None:
    log = logging.getLogger("cavalcade.test-events")

    async def main() -> None:
        policy = Policy()
        async with Streams(tmp_path / "c.sock") as streams:
            async with control(policy, str(tmp_path / "c.sock")) as front:
                journal = front._desk.journal
                log.addHandler(journal)
                log.warning("worker 1 died", extra={"event": "death"})
                events = await streams.open("/events")
                logs = await streams.open("/logs?follow=1&lines=1&level=warning")
                assert (await next_event(events, "entry"))["text"] == "worker 1 died"
                assert (await next_event(events, "status"))["stage"] == "serving"
                assert (await next_event(logs, "entry"))["text"] == "worker 1 died"
                log.warning("not for the feed")
                log.error("reload refused", extra={"event": "reload", "fix": "the fix"})
                said = await next_event(events, "entry")
                assert (said["number"], said["level"], said["text"], said["fix"]) == (3, "error", "reload refused", "the fix")
                assert [(await next_event(logs, "entry"))["number"] for _ in range(2)] == [2, 3]
                again = await streams.open("/events?after=1")
                assert (await next_event(again, "entry"))["number"] == 3
                same = await streams.open("/events", f"Last-Event-ID: {os.getpid()}-1")
                assert (await next_event(same, "entry"))["number"] == 3
                other = await streams.open("/events", "Last-Event-ID: 999999999-1")  # of the server before an upgrade
                assert (await next_event(other, "entry"))["number"] == 1
                log.removeHandler(journal)
            for stream in (events, logs, again, same, other):
                await next_event(stream, "bye")
                assert await stream.read() == b""

    run(main())


def test_streams_have_so_many_places_and_a_client_that_leaves_frees_its_own(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADMIN_STREAMS", 2)

    async def main() -> None:
        async with control(Policy(), str(tmp_path / "c.sock")) as front, Streams(tmp_path / "c.sock") as streams:
            first = await streams.open("/events")
            second = await streams.open("/logs?follow=1")
            await next_event(first, "status")
            status, reply = await ask(tmp_path / "c.sock", "GET /events")
            assert (status, reply["text"]) == (503, "There are 2 streams of events already.")
            assert (await ask(tmp_path / "c.sock", "GET /logs"))[0] == 200
            await streams.leave(second)
            while front._places.full:
                await asyncio.sleep(0)
            third = await streams.open("/events")
            await next_event(third, "status")

    run(main())
