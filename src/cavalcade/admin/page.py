"""The dashboard: a page, its style and its scripts, as they lie in `page/`. They hold nothing of the server, so who may connect may have
them; what they show they ask for, with the token."""

from __future__ import annotations

from functools import cache
from importlib import resources

from cavalcade.admin.answers import Answer, Asked, reject

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "stream.js": "text/javascript; charset=utf-8",
}

# Nothing but these files, and nothing inline: a line of the log that looks like markup stays a line. No other page may frame this one.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
FIELDS = [
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


async def index(asked: Asked) -> Answer:
    """The page."""
    return _file("index.html")


async def part(asked: Asked) -> Answer:
    """What the page needs: its style or a script."""
    name = asked.words["file"]
    if name not in TYPES:
        return reject(404, f"The page has no {name[:40]}.")
    return _file(name)


def _file(name: str) -> Answer:
    return Answer(200, _read(name), TYPES[name], FIELDS)


@cache
def _read(name: str) -> bytes:
    return resources.files("cavalcade.admin").joinpath("page", name).read_bytes()
