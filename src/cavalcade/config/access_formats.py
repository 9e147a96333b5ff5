"""The formats of access lines: gunicorn's atoms, `%(h)s "%(r)s" %(s)s`, and templates of our own, `{client} {status} {duration_ms}`. What
they may name is listed here; what it is for a request, observe/access_fields.py knows.
"""

from __future__ import annotations

import difflib
import re
import string
from dataclasses import dataclass

# Formats with a name. The first is what gunicorn writes where nobody says.
NAMED = {
    "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
}
ATOMS = {
    "h": "address of the client, without its port",
    "l": "-",
    "u": "user of Basic authentication",
    "t": "date and time",
    "r": "request line",
    "m": "method",
    "U": "path without the query",
    "q": "query",
    "H": "protocol",
    "s": "status",
    "B": "bytes of the response's body",
    "b": "the same, - for 0",
    "f": "Referer",
    "a": "User-Agent",
    "T": "seconds, whole",
    "M": "milliseconds, whole",
    "D": "microseconds, whole",
    "L": "seconds with six decimals",
    "p": "process id, in <>",
}
FIELDS = {
    "time": "date and time with milliseconds",
    "client": "address and port of the client",
    "method": "method",
    "target": "what is asked for, with its query",
    "path": "the same without the query",
    "query": "the query",
    "http_version": "1.0, 1.1 or 2",
    "status": "status; 499 where the client left before the response began",
    "bytes": "bytes of the response's body",
    "received_bytes": "bytes of the request's body that came",
    "duration_s": "from the request's head to the response's end",
    "duration_ms": "the same in milliseconds",
    "ttfb_s": "from the request's head to the response's first byte",
    "ttfb_ms": "the same in milliseconds",
    "queue_s": "from X-Request-Start, which a trusted proxy sets, to the request's head",
    "queue_ms": "the same in milliseconds",
    "worker": "number of the worker",
    "pid": "its process id",
    "request_id": "id of the request, with --request-id",
    "trace_id": "trace id of its traceparent",
    "route": "route as the framework names it: /items/{id} (FastAPI)",
    "client_left": "left where the client was gone before the end of the response",
    "user": "user of Basic authentication",
    "referer": "Referer",
    "user_agent": "User-Agent",
}
# A header field of the request, of the response; a variable of the WSGI environ.
_HEADER_ATOM = re.compile(r"\{([^{}]+)\}([ioe])")
_HEADER_FIELD = re.compile(r"(request|response)\.([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_DIRECTIVE = re.compile(r"%(?:%|\((?P<atom>[^)]*)\)(?P<spec>[-0 ]?\d*(?:\.\d+)?[sdif]))")


@dataclass(frozen=True)
class Piece:
    """What stands before a value, the value's name as it is in ATOMS or FIELDS, and how it is written. `kind` is "", or for header fields
    and variables i, o, e; then the name is theirs."""

    before: str
    name: str
    kind: str
    spec: str
    atom: bool


def parse(text: str) -> tuple[list[Piece], str]:
    """The pieces of a format, and what stands behind the last. Raises `ValueError` with what is wrong."""
    text = NAMED.get(text, text)
    if any(char < " " or char == "\x7f" for char in text):
        raise ValueError("has a line break or another control character in it: an access line is one line")
    pieces, rest = _atoms(text) if "%(" in text else _template(text)
    if not pieces:
        names = ", ".join(NAMED)
        raise ValueError(
            f"names nothing of the request: say {names}, gunicorn's atoms (%(r)s) or a template ({{method}} {{target}} {{status}})"
        )
    return pieces, rest


def _atoms(text: str) -> tuple[list[Piece], str]:
    pieces: list[Piece] = []
    before, place = "", 0
    for match in _DIRECTIVE.finditer(text):
        before += _literal(text[place : match.start()])
        place = match.end()
        if match["atom"] is None:
            before += "%"
            continue
        name, kind = match["atom"], ""
        if header := _HEADER_ATOM.fullmatch(name):
            name, kind = header[1], header[2]
        elif name not in ATOMS:
            known = f"{' '.join(ATOMS)}, {{header}}i, {{header}}o and {{variable}}e"
            raise ValueError(f"has an atom that nobody knows, %({name})s: there are {known}")
        pieces.append(Piece(before, name, kind, "%" + match["spec"], True))
        before = ""
    return pieces, before + _literal(text[place:])


def _literal(text: str) -> str:
    if "%" in text:
        raise ValueError(f'has a % that begins no atom, in "{text.strip()}": write %% for a percent sign')
    return text


def _template(text: str) -> tuple[list[Piece], str]:
    pieces: list[Piece] = []
    held = ""
    try:
        for before, name, spec, conversion in string.Formatter().parse(text):
            held += before
            if name is None:
                continue
            if conversion or "{" in (spec or ""):
                raise ValueError("only {name} and {name:format} are known")
            pieces.append(_field(held, name, spec or ""))
            held = ""
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    return pieces, held


def _field(before: str, name: str, spec: str) -> Piece:
    if header := _HEADER_FIELD.fullmatch(name):
        return Piece(before, header[2], "i" if header[1] == "request" else "o", spec, False)
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(FIELDS)}, request.HEADER and response.HEADER"
        raise ValueError(f"there is no {{{name}}}; {hint}")
    return Piece(before, name, "", spec, False)
