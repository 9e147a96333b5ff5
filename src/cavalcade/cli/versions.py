"""What `cavalcade --version` says."""

from __future__ import annotations

import importlib.metadata
import platform

from cavalcade import build


def describe() -> str:
    """Our version and build, and the versions of what we run on."""
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    parts += [f"{name} {_version(name)}" for name in ("uvloop", "httptools")]
    return f"cavalcade {build.VERSION} ({build.describe()})\n{', '.join(parts)}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
