"""Where the kernel keeps the limits of the control groups that this process is in, version 1 and version 2.

Limits nest, so each directory from ours up to the mount is read and the smallest counts. The mount table maps the path in
`/proc/self/cgroup` to a directory: in a container the two do not agree, because the host's path is mounted as the root.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 60  # version 1 says it with the largest number of pages there is


def memory_limit(root: Path = Path("/")) -> int | None:
    """How many bytes the processes of our groups may have together; None for no limit."""
    found: list[int] = []
    for directory, unified in directories(root, controller="memory"):
        text = "".join(lines(directory / ("memory.max" if unified else "memory.limit_in_bytes"))).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:  # "max" is no limit, and the root group has no such file
            found.append(int(text))
    return min(found, default=None)


def directories(root: Path, *, controller: str) -> Iterator[tuple[Path, bool]]:
    """Every directory that may limit this, and whether it is of version 2."""
    for line in lines(root / "proc/self/cgroup"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield from ((directory, True) for directory in _directories(root, "cgroup2", "", path))
        elif controller in controllers.split(","):
            yield from ((directory, False) for directory in _directories(root, "cgroup", controller, path))


def lines(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _directories(root: Path, filesystem: str, controller: str, path: str) -> list[Path]:
    """Our cgroup's directory and those above it, up to where the hierarchy is mounted."""
    for line in lines(root / "proc/self/mountinfo"):
        # proc(5): id parent major:minor root mount-point options [optional fields] - type source super-options
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] != filesystem:
            continue
        if controller and controller not in kind[2].split(","):
            continue
        mount = root / fields[4].lstrip("/")
        ours, top = PurePosixPath(path), PurePosixPath(fields[3])
        inside = ours.relative_to(top) if ours.is_relative_to(top) else PurePosixPath()
        if ".." in inside.parts:  # a cgroup namespace that we were moved out of
            inside = PurePosixPath()
        here = mount / inside
        above = [here, *here.parents]
        return above[: above.index(mount) + 1]
    return []
