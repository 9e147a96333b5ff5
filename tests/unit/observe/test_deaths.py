"""How a death is told, from what is known of it; and the kernel's counters, from files as it writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.observe.deaths import Facts, OomCounters, crash_frames, describe_death, describe_loss

CRASH = """\
Stack (most recent call first):
  File "/srv/app/old.py", line 1 in earlier
Fatal Python error: Segmentation fault

Current thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/srv/app/main.py", line 12 in handler

Extension modules: _a, _b (total: 2)
"""


@pytest.mark.parametrize(
    ("status", "facts", "killed", "said"),
    [
        (-9, Facts(oom=False), "", "was killed by SIGKILL, not by us, and not by the kernel for memory: somebody has sent it"),
        (-9, Facts(oom=None), "", "was killed by SIGKILL, not by us: somebody has sent it"),
        (-9, Facts(oom=True), "", "was killed by SIGKILL, by the kernel: out of memory"),
        (-11, Facts(oom=False), "", "was killed by SIGSEGV: it crashed in C code"),
        (1, Facts(oom=False), "", "exited with status 1 by itself: something in it called os._exit() or ended the process"),
        (-6, Facts(), "its loop was blocked for 30.1 s (stall_kill)", "was killed by us: its loop was blocked for 30.1 s (stall_kill)"),
        (None, Facts(), "", "ended (its exit status is not known)"),
    ],
)
def test_every_kind_of_death_has_a_sentence_of_its_own(status: int | None, facts: Facts, killed: str, said: str) -> None:
    assert describe_death(status, facts, killed=killed) == said


def test_the_loss_names_memory_work_done_and_requests() -> None:
    facts = Facts(rss=84 * 2**20, requests=1234, in_flight=2, paths=("GET /a", "GET /b"))
    assert describe_loss(facts) == "84 MiB, 1234 requests served, 2 in flight lost (GET /a, GET /b)"
    assert describe_loss(Facts(requests=1, in_flight=3, paths=("GET /a",))) == "1 request served, 3 in flight lost (GET /a, ...)"
    assert describe_loss(Facts()) == "0 requests served, none in flight at its last beat"


def test_only_a_crash_is_shown_not_what_was_asked_for_before_it() -> None:
    trace = crash_frames(CRASH)
    assert trace.splitlines() == [
        "Most recent call first:",
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        '  File "/srv/app/main.py", line 12 in handler',
    ]
    assert crash_frames(CRASH.partition("Fatal")[0]) == ""


STAT = "7 (cavalcade: work) S 6 6 6 0 -1 {} 1 2 3 4"  # proc_pid_stat(5) up to the flags, and a little more


def counters(tmp_path: Path, cgroup: str, file: str, text: str) -> tuple[OomCounters, Path]:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(cgroup)
    (proc / "7" / "stat").write_text(STAT.format(0x400040))
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text(text)
    return OomCounters(groups, proc), groups / file


@pytest.mark.parametrize(
    ("cgroup", "file", "text"),
    [
        (
            "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu:/\n0::/\n",
            "memory/docker/abc/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
        ("4:memory:/docker/abc\n", "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
        ("0::/kubepods/x\n", "kubepods/x/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"),
        ("0::/../x\n", "memory.events", "oom 3\noom_kill {}\n"),
    ],
    ids=["v1", "v1 seen from inside", "v2", "v2 seen from inside"],
)
def test_a_kill_for_memory_is_told_by_the_counter_that_has_grown_and_explains_one_death(
    tmp_path: Path, cgroup: str, file: str, text: str
) -> None:
    oom, path = counters(tmp_path, cgroup, file, text.format(2))
    oom.watch(7)
    assert oom.take(7) is False
    oom.watch(7)
    path.write_text(text.format(3))
    assert oom.take(7) is True
    oom.watch(7)
    assert oom.take(7) is False


@pytest.mark.parametrize("dead", ["dying", "reaped"])
def test_a_process_that_is_dying_is_looked_for_where_it_was_before(tmp_path: Path, dead: str) -> None:
    oom, path = counters(tmp_path, "4:memory:/docker/abc\n", "memory/docker/abc/memory.oom_control", "oom_kill 0\n")
    (tmp_path / "cgroup/memory/memory.oom_control").write_text("oom_kill 0\n")
    oom.watch(7)
    path.write_text("oom_kill 1\n")
    # From here on the kernel shows it in the root, where nothing was counted.
    (tmp_path / "proc/7/cgroup").write_text("4:memory:/\n")
    (tmp_path / "proc/7/stat").write_text(STAT.format(0x40044C)) if dead == "dying" else (tmp_path / "proc/7/stat").unlink()
    oom.watch(7)
    assert oom.take(7) is True


def test_where_nobody_counts_nothing_is_claimed(tmp_path: Path) -> None:
    oom = OomCounters(tmp_path, tmp_path)
    oom.watch(7)
    assert oom.take(7) is None
