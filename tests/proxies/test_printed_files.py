"""What `cavalcade deploy` prints passes the checkers of the tools that it is for, whatever the settings are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cavalcade.testing import write_app

pytestmark = pytest.mark.any_build

Printed = Callable[..., Path]
Need = Callable[[str], str]

DEFAULTS: tuple[str, ...] = ()
MANY = (
    *("--workers", "auto", "--drain-delay", "1500ms", "--keep-alive", "20s", "--graceful-timeout", "2m", "--max-memory", "300MiB"),
    *("--bind", "0.0.0.0:9000", "--name", "The Shop: 2", "--log-format", "json", "--no-access-log", "--limit-request-body", "10MiB"),
    *("--root-path", "/a b$c%d'\"", "--stall-kill", "0"),
)
NO_DELAY = ("--drain-delay", "0", "--bind", "[::]:9000", "--control", "/run/shop/c.sock", "--name", "9")
VARIANTS = [pytest.param(DEFAULTS, id="defaults"), pytest.param(MANY, id="many"), pytest.param(NO_DELAY, id="no-delay")]


@pytest.fixture(autouse=True)
def project(tmp_path: Path) -> Path:
    write_app(tmp_path, "async def app(scope, receive, send): ...")
    return tmp_path


def passes(*command: str | Path, cwd: Path) -> str:
    """Run a checker; what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("options", VARIANTS)
def test_kubernetes_validate_finds_no_unknown_field(need: Need, printed: Printed, options: tuple[str, ...]) -> None:
    program = need("kubernetes-validate")
    folder = printed("kubernetes", *options, "--image", "registry.example/shop:1", "--replicas", "2")
    (path,) = folder.iterdir()
    said = passes(program, "--strict", path, cwd=folder)
    assert [said.count(f"resource {kind}/") for kind in ("deployment", "service", "poddisruptionbudget")] == [1, 1, 1]


@pytest.mark.parametrize("manifest", ["requirements.txt", "pyproject.toml", ""])
def test_hadolint_finds_nothing(need: Need, printed: Printed, project: Path, manifest: str) -> None:
    program = need("hadolint")
    if manifest:
        (project / manifest).touch()
    folder = printed("docker", *MANY)
    assert passes(program, "--no-color", folder / "Dockerfile", cwd=folder) == ""
    assert ".env*" in (folder / ".dockerignore").read_text().split()


@pytest.mark.parametrize(
    "options", [*VARIANTS, pytest.param(("--bind", "unix:/run/shop/http.sock", "--bind", "localhost:8000"), id="unix")]
)
def test_systemd_finds_nothing_wrong_with_the_units(need: Need, printed: Printed, options: tuple[str, ...]) -> None:
    program = need("systemd-analyze")
    folder = printed("systemd", *options)
    units = sorted(folder.iterdir())
    assert [path.suffix for path in units] == [".service", ".socket"]
    # A fault that is ignored is only printed; the units of the machine itself are not ours.
    said = passes(program, "verify", "--man=no", *units, cwd=folder)
    assert [line for line in said.splitlines() if units[0].stem in line] == []


ADDRESSES = ("--upstream", "198.18.0.1:8000", "--upstream", "[::1]:8000")
UNIX = ("--upstream", "unix:/run/shop.sock")
NAMES = ("--upstream", "localhost:8001", "--upstream", "localhost:8002", "--listen", "[::1]:8080")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(DEFAULTS, id="one"),
        pytest.param((*MANY, *ADDRESSES, *UNIX, "--listen", "8080"), id="many"),
        pytest.param((*NO_DELAY, *NAMES), id="names"),
    ],
)
@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "envoy", "caddy"])
def test_the_proxies_take_their_files(
    need: Need, printed: Printed, command: Callable[..., list[str]], proxy: str, options: tuple[str, ...]
) -> None:
    need(proxy)
    folder = printed(proxy, *options)
    said = passes(*command(proxy, folder, check=True), cwd=folder)
    warnings = [line for line in said.splitlines() if "warn" in line.lower() or "deprecated" in line.lower()]
    assert [line for line in warnings if "automatic HTTPS" not in line] == []  # that port 80 has none is meant
