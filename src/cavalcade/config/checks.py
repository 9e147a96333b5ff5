"""What one value alone cannot tell: options that only make sense together. Every check returns its problems, so that all of them can be
shown at once.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cavalcade.config.addresses import parse
from cavalcade.config.options import Settings


def path_prefix(text: str) -> str:
    """A path prefix in its canonical form: no slash at its end, none twice; "" for the root."""
    return re.sub(r"/{2,}", "/", text).rstrip("/")


def _check_trust(settings: Settings, complain: Callable[[str, str], None]) -> None:
    trusted, believed = settings.trusted_proxies, settings.forwarded_headers
    if "none" in trusted and len(trusted) > 1:
        complain("trusted_proxies", "has none and others: keep one of both")
    both = [name for name in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host") if name in believed]
    if "forwarded" in believed and both:
        complain("forwarded_headers", f"has forwarded and {both[0]}: a proxy sets one of them, and hands the other on as a client sent it")
    if "none" in trusted:
        for bind in settings.bind:
            if parse(bind).proxy_protocol:
                complain("bind", f"{bind} needs trusted_proxies: whose PROXY protocol headers are to be believed")


def together(settings: Settings, origins: Mapping[str, str], cwd: Path) -> list[str]:
    """The problems of values that were read well one by one."""
    problems: list[str] = []

    def complain(name: str, text: str) -> None:
        problems.append(f"{origins[name]}: {name} {text}")

    if not (cwd / settings.app_dir).is_dir():
        complain("app_dir", f'"{settings.app_dir}" is not a directory')
    if settings.log_config and not (cwd / settings.log_config).is_file():
        complain("log_config", f'"{settings.log_config}" is not a file')
    if settings.pid and not (parent := (cwd / settings.pid).parent).is_dir():
        complain("pid", f'"{settings.pid}" cannot be written: {parent} is not a directory')
    elif settings.pid and not os.access(parent, os.W_OK):
        complain("pid", f'"{settings.pid}" cannot be written: no permission in {parent}')
    if settings.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        complain("loop", "uvloop is not installed here: pip install uvloop, or choose asyncio")
    for name, prefix in (("root_path", settings.root_path), ("mount_path", settings.mount_path)):
        if prefix and not prefix.startswith("/"):
            complain(name, f'"{prefix}" must start with "/": write "/{prefix.strip("/")}"')
    _check_trust(settings, complain)
    if settings.limit_request_line > settings.limit_request_head:
        complain("limit_request_line", "is more than limit_request_head, which counts the whole head")
    plain = [parse(bind).plain for bind in settings.bind]
    doubles = {bind for bind in plain if plain.count(bind) > 1 and not bind.endswith(":0")}
    for bind in sorted(doubles):
        complain("bind", f"{bind} is given twice")
    return problems
