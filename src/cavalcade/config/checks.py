"""What one value alone cannot tell: options that only make sense together. Every check returns its problems, so that all of them can be
shown at once.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from cavalcade.config import access_formats, admin, certificates, static_mounts, trusted
from cavalcade.config.addresses import parse
from cavalcade.config.options import Settings


def installed(module: str) -> bool:
    """Can this module be imported here?"""
    return importlib.util.find_spec(module) is not None


def together(settings: Settings, origins: Mapping[str, str], cwd: Path) -> list[str]:
    """The problems of values that were read well one by one."""
    problems: list[str] = []

    def complain(name: str, text: str) -> None:
        problems.append(f"{origins[name]}: {name} {text}")

    if not (cwd / settings.app_dir).is_dir():
        complain("app_dir", f'"{settings.app_dir}" is not a directory')
    for number, table in enumerate(settings.apps, start=1):
        if table.app_dir is not None and not (cwd / table.app_dir).is_dir():
            problems.append(f'{origins["app"]}: app[{number}].app_dir "{table.app_dir}" is not a directory')
    if settings.log_config and not (cwd / settings.log_config).is_file():
        complain("log_config", f'"{settings.log_config}" is not a file')
    if settings.pid and not (parent := (cwd / settings.pid).parent).is_dir():
        complain("pid", f'"{settings.pid}" cannot be written: {parent} is not a directory')
    elif settings.pid and not os.access(parent, os.W_OK):
        complain("pid", f'"{settings.pid}" cannot be written: no permission in {parent}')
    if settings.access_log_format:
        try:
            access_formats.parse(settings.access_log_format)
        except ValueError as problem:
            complain("access_log_format", str(problem))
    if settings.access_logfile != "-" and not (folder := (cwd / settings.access_logfile).parent).is_dir():
        complain("access_logfile", f'"{settings.access_logfile}" cannot be written: {folder} is not a directory')
    if settings.loop == "uvloop" and not installed("uvloop"):
        complain("loop", "uvloop is not installed here: pip install uvloop, or choose asyncio")
    for name, prefix in (("root_path", settings.root_path), ("mount_path", settings.mount_path)):
        if prefix and not prefix.startswith("/"):
            complain(name, f'"{prefix}" must start with "/": write "/{prefix.strip("/")}"')
    trusted.check(settings, complain)
    if not settings.statsd_host:
        for name in ("statsd_prefix", "dogstatsd_tags"):
            if getattr(settings, name):
                complain(name, "does nothing without statsd_host, the address of the StatsD server")
    if settings.limit_request_line > settings.limit_request_head:
        complain("limit_request_line", "is more than limit_request_head, which counts the whole head")
    certificates.check(settings, complain)
    admin.check(settings, complain, cwd)
    static_mounts.check(settings, complain)
    plain = [parse(bind).plain for bind in settings.bind]
    doubles = {bind for bind in plain if plain.count(bind) > 1 and not bind.endswith(":0")}
    for bind in sorted(doubles):
        complain("bind", f"{bind} is given twice")
    return problems
