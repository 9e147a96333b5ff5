"""Where the servers are installed: for each CPython one environment with the peers, and one for each build of Cavalcade.

They are made once and kept in `.venv-bench`; the peers' again when peers.txt has changed, ours when a source has. Cavalcade's have the
versions of FastAPI, uvloop and all else that the peers' has.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from speed.process import BENCH

ROOT = BENCH.parent
HOME = ROOT / ".venv-bench"
PEERS_FILE = BENCH / "peers.txt"
OUR_EXTRAS = ("fastapi", "h2")
BUILDS = {"compiled": {"CAVALCADE_REQUIRE_COMPILED": "1"}, "pure": {"CAVALCADE_PURE": "1"}}

VERSION = "import platform; print(platform.python_implementation(), platform.python_version())"
NAME = re.compile(r"[\w-]*")
PACKAGES = """
import importlib.metadata as m, json, re
print(json.dumps({re.sub("[-_.]+", "-", each.name).lower(): each.version for each in m.distributions()}))
"""


@dataclass
class Environments:
    """Those of one CPython."""

    version: str
    pythons: dict[str, str] = field(default_factory=dict)  # by "peers", "compiled", "pure"
    packages: dict[str, dict[str, str]] = field(default_factory=dict)  # versions, by environment
    reasons: dict[str, str] = field(default_factory=dict)  # why an environment or a package could not be installed

    @property
    def series(self) -> str:
        """As in "3.13"."""
        return self.version.rpartition(".")[0]


class NotInstalled(Exception):
    """What pip said."""


class Place:
    """One environment. It is `fresh` when what it was made from differs from last time; `done` when all is installed."""

    def __init__(self, python: str, folder: Path, stamp: str) -> None:
        self.folder, self.stamp = folder, stamp
        self.python = folder / "bin" / "python"
        marker = folder / "stamp"
        self.fresh = not marker.exists() or marker.read_text() != stamp
        if not self.python.exists():
            run([python, "-m", "venv", str(folder)])

    def pip(self, *requirements: str, **env: str) -> None:
        run([str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], **env)

    def done(self) -> None:
        (self.folder / "stamp").write_text(self.stamp)


def run(command: list[str], **env: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise NotInstalled(errors[-1].strip() if errors else f"exit code {done.returncode}")


def prepare(python: str, builds: set[str], say: Callable[[str], None]) -> Environments:
    """Install what is not there yet. What cannot be installed is in `reasons`. Raises `SystemExit` for an interpreter that does not do."""
    try:
        implementation, version = subprocess.check_output([python, "-c", VERSION], text=True).split()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise SystemExit(f"bench: {python} does not run: {error}") from error
    if implementation != "CPython" or tuple(map(int, version.split(".")[:2])) < (3, 11):
        raise SystemExit(f"bench: {python} is {implementation} {version}; it takes CPython 3.11 or newer")
    found = Environments(version)
    # The peers come first, and always: ours take their versions from them.
    for name in ("peers", *(build for build in BUILDS if build in builds)):
        try:
            install = install_peers if name == "peers" else install_ours
            place = install(found, python, name, say)
            found.pythons[name] = str(place.python)
            found.packages[name] = json.loads(subprocess.check_output([place.python, "-c", PACKAGES], text=True))
        except NotInstalled as error:
            found.reasons[name] = f"its environment could not be made: {error}"
            say(f"{name}: {found.reasons[name]}")
    return found


def install_peers(found: Environments, python: str, name: str, say: Callable[[str], None]) -> Place:
    place = Place(python, HOME / found.series / name, fingerprint(PEERS_FILE))
    kept = place.folder / "reasons.json"
    if place.fresh:
        say(f"installing the peers for CPython {found.version}")
        reasons = {}
        requirements = [line for line in PEERS_FILE.read_text().splitlines() if line and not line.startswith("#")]
        try:
            place.pip("--upgrade", *requirements)
        except NotInstalled:
            # One that cannot be installed must not keep the others away.
            for requirement in requirements:
                try:
                    place.pip("--upgrade", requirement)
                except NotInstalled as error:
                    reasons[NAME.findall(requirement)[0].replace("_", "-")] = f"it could not be installed: {error}"
        kept.write_text(json.dumps(reasons))
        if not reasons:  # or it is tried again next time
            place.done()
    found.reasons |= json.loads(kept.read_text())
    return place


def install_ours(found: Environments, python: str, name: str, say: Callable[[str], None]) -> Place:
    versions = found.packages.get("peers", {})
    pins = "".join(f"{package}=={version}\n" for package, version in sorted(versions.items()) if package not in ("pip", "setuptools"))
    sources = [path for pattern in ("*.py", "*.pxd") for path in (ROOT / "src").rglob(pattern)]
    place = Place(python, HOME / found.series / name, fingerprint(ROOT / "pyproject.toml", ROOT / "setup.py", *sources, text=pins))
    if place.fresh:
        say(f"installing Cavalcade, {name}, for CPython {found.version}, about a minute")
        constraints = place.folder / "constraints.txt"
        constraints.write_text(pins)
        place.pip("-c", str(constraints), str(ROOT), *OUR_EXTRAS, **BUILDS[name])
        place.done()
    return place


def fingerprint(*paths: Path, text: str = "") -> str:
    """Changes when any of these does."""
    digest = hashlib.sha256(text.encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
