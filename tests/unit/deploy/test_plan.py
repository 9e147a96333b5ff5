"""The numbers that a server and the tools around it must agree on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cavalcade import limits
from cavalcade.config.addresses import parse
from cavalcade.config.sources import resolve
from cavalcade.config.values import OPTIONS, read
from cavalcade.deploy import plan as plans
from cavalcade.deploy.plan import Plan, reachable, seconds
from cavalcade.errors import UsageError


def make(tmp_path: Path, environ: dict[str, str] | None = None, **options: Any) -> tuple[Plan, list[str]]:
    return plans.make(resolve({"app": "main:app", **options}, cwd=tmp_path, environ=environ or {}), cwd=tmp_path)


DELAYS = ["0", "200ms", "1s", "10s", "5m"]
GRACES = ["0", "500ms", "30s", "1h"]
KEEPS = ["500ms", "2s", "75s", "1d"]


@pytest.mark.parametrize(("drain", "grace", "keep"), list(itertools.product(DELAYS, GRACES, KEEPS)))
def test_whatever_is_asked_for_the_proxy_gives_up_first_and_the_manager_last(tmp_path: Path, drain: str, grace: str, keep: str) -> None:
    plan, _ = make(tmp_path, drain_delay=drain, graceful_timeout=grace, keep_alive=keep)
    assert 0 < plan.upstream_idle < plan.keep_alive
    if plan.drain_delay:
        assert plan.upstream_idle < plan.drain_delay
    assert plan.stop > plan.drain_delay + plan.graceful_timeout + limits.KILL_AFTER_S
    assert plan.stop == int(plan.stop), "a number of whole seconds for Kubernetes"
    assert plan.boot > plan.resolved.settings.boot_timeout
    for value in (plan.upstream_idle, plan.drain_delay, plan.graceful_timeout, plan.keep_alive):
        assert read(OPTIONS["keep_alive"], seconds(value), typed=False) == pytest.approx(value, abs=0.001)


def test_a_drain_delay_that_nobody_has_asked_for_is_written_and_said(tmp_path: Path) -> None:
    plan, notes = make(tmp_path)
    assert plan.drain_delay == 10.0
    assert plan.arguments(plan.binds)[-6:] == ["--drain-delay", "10s", "--graceful-timeout", "30s", "--keep-alive", "75s"]
    assert notes == ["--drain-delay 10s is written, for nobody has said; --drain-delay 0 for none"]


def test_no_drain_delay_is_kept_and_said_where_somebody_wants_none(tmp_path: Path) -> None:
    plan, notes = make(tmp_path, drain_delay="0")
    assert plan.drain_delay == 0.0
    assert "--drain-delay 0s" in " ".join(plan.arguments(()))
    assert notes == ["drain_delay is 0: a server that stops takes no new connections while others may still send some"]


def test_what_only_this_shell_says_is_written_and_what_a_file_says_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "cavalcade.toml").write_text('log_level = "debug"\ndrain_delay = "7s"\nworkers = 3\n')
    environ = {"CAVALCADE_MAX_REQUESTS": "1000", "CAVALCADE_MAX_MEMORY": "512M"}
    plan, _ = make(tmp_path, environ, access_log=False, bind=("127.0.0.1:9000", "unix:/run/a.sock"), name="shop")
    words = " ".join(plan.arguments(plan.binds))
    assert words == (
        "main:app --bind 127.0.0.1:9000 --bind unix:/run/a.sock --drain-delay 7s --graceful-timeout 30s --keep-alive 75s "
        "--name shop --max-requests 1000 --max-memory 512MiB --no-access-log"
    )


def test_workers_auto_is_as_many_as_the_cpus_there_not_here(tmp_path: Path) -> None:
    plan, _ = make(tmp_path, workers="auto")
    assert "--workers auto" in " ".join(plan.arguments(()))


@pytest.mark.parametrize(
    ("folder", "asked", "name"),
    [
        ("shop", "", "shop"),
        ("My Shop_2", "", "my-shop-2"),
        ("2nd", "", "app-2nd"),
        ("on", "", "app-on"),
        ("…", "", "app"),
        ("shop", "The API", "the-api"),
        ("x" * 90, "", "x" * 40),
    ],
)
def test_names_are_what_kubernetes_takes(tmp_path: Path, folder: str, asked: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    plan, _ = make(tmp_path / folder, name=asked)
    assert plan.name == name


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"keep_alive": "0"}, "keep_alive is 0"),
        ({"bind": "fd://3"}, "A descriptor"),
        ({"bind": "127.0.0.1:0"}, "Port 0 is another port at every start"),
        ({"bind": "unix:/run/a\nb.sock"}, "A line break"),
    ],
)
def test_what_nothing_can_stand_in_front_of_is_refused(tmp_path: Path, options: dict[str, str], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        make(tmp_path, **{name: (value,) if name == "bind" else value for name, value in options.items()})


def test_an_address_is_reached_from_the_same_machine() -> None:
    texts = ["0.0.0.0:80", "[::]:80", "[2001:db8::1]:80", "host:1", "unix:/run/a.sock?mode=660"]
    assert [str(reachable(parse(text))) for text in texts] == [
        "127.0.0.1:80",
        "[::1]:80",
        "[2001:db8::1]:80",
        "host:1",
        "unix:/run/a.sock",
    ]
