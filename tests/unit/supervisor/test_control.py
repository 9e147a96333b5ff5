"""The control socket by itself: where it listens, what it understands. What it does is proved with real servers in tests/process."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cavalcade.config.options import Settings
from cavalcade.errors import BindError
from cavalcade.supervisor import events as on
from cavalcade.supervisor import runtime_dir
from cavalcade.supervisor.commands import Answer, Verdict
from cavalcade.supervisor.control import Control
from cavalcade.supervisor.status import Status

Run = Callable[[Any], Any]


class Policy:
    """Stands where the policy is: keeps the events, and answers some at once."""

    def __init__(self) -> None:
        self.events: list[on.Event] = []
        self.control: Control | None = None
        self.verdict: Verdict | None = Verdict.DONE

    def post(self, event: on.Event) -> None:
        self.events.append(event)
        if self.verdict is not None and isinstance(event, on.Reload | on.Scale | on.Recycle):
            assert self.control is not None
            self.control.answer(Answer(event.request, self.verdict, "the text", 2, 3, 0.5, "the fix", "the trace"))


def no_metrics(accept: str) -> tuple[bytes, str]:
    raise AssertionError(f"nobody asks for {accept}")


def no_status() -> Status:
    raise AssertionError("nobody asks for it")


@asynccontextmanager
async def control(policy: Policy, setting: str, code: int = 0) -> AsyncIterator[Control]:
    policy.control = Control(Settings(app="main:app", control=setting), {}, policy.post, no_status, no_metrics)
    await policy.control.start()
    try:
        yield policy.control
    finally:
        await policy.control.stop(code)


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
        ("GET /", 404),
        ("POST /workers/x/recycle", 405),
        ("POST /workers//recycle", 405),
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
        assert waiting[0].result() == (503, {"verdict": "stopping", "text": "The server stops."})
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
            await Control(Settings(control=str(tmp_path / "nowhere" / "c.sock")), {}, print, no_status, no_metrics).start()

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
