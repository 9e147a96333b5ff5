"""Where metrics are pushed to: `statsd_host`, as gunicorn has it."""

from __future__ import annotations

import re

from cavalcade.config import addresses

PORT = 8125  # StatsD's own, of a host alone


def address(text: str) -> str:
    """The canonical form: "host:port" or "unix:/path"; "" for none. Raises `ValueError`."""
    text = text.strip()
    if not text:
        return ""
    if not text.startswith(("unix:", "fd:")) and not re.search(r"(?<![:\[]):[0-9]+$|\]:[0-9]+$", text):
        text = addresses.join(addresses.host_name(text), PORT)
    bind = addresses.parse(text)
    if bind.kind == "fd" or str(bind) != bind.plain:
        raise ValueError(f'"{text}" is no address of a StatsD server: write HOST:PORT or unix:/path')
    if bind.kind == "tcp" and not bind.port:
        raise ValueError(f'"{text}" has port 0: StatsD listens on {PORT} as a rule')
    return bind.plain
