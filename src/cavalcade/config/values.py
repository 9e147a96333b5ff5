"""One value at a time: from the text or TOML value somebody wrote to the value of the option, and back for people.

`OPTIONS` is `Settings` seen as a table; the command line, the sources and `config show` all go through it. Where the
field's type is `Seconds` or `Bytes` a number may carry a unit; `KiB` and `K` are 1024 bytes (as nginx has it), `KB` is 1000
(as SI has it).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from cavalcade.config.options import OptionInfo, Settings, Unit, info

Kind = Literal["flag", "int", "seconds", "bytes", "choice", "text", "texts"]

MASK = "********"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_BYTES |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

# Names that hands know from gunicorn, uvicorn, hypercorn and granian, and what to do about them here.
FOREIGN: Mapping[str, str] = {
    "worker_class": "not needed: every worker has an event loop, and serves WSGI apps in its threads",
    "k": "not needed: every worker has an event loop, and serves WSGI apps in its threads",
    "worker_connections": "not needed: a worker has no fixed number of connections",
    "http": "not needed: there is one HTTP/1.1 parser",
    "timeout": "use request_timeout for an app that hangs, stall_kill for a blocked loop, body_timeout and write_timeout for clients",
    "timeout_worker_healthcheck": "use boot_timeout",
    "keepalive": "use keep_alive",
    "uds": "use bind unix:/path",
    "address": "use bind",
    "chdir": "use app_dir",
    "working_dir": "use app_dir",
    "proxy_headers": "on for the peers in trusted_proxies; trusted_proxies none turns it off",
    "proxy_allow_ips": "use trusted_proxies",
    "proxy_allow_from": "use trusted_proxies",
    "proxy_protocol": "say it of the address: bind host:port?proxy_protocol=on",
    "secure_scheme_headers": "use forwarded_headers: x-forwarded-proto or forwarded",
    "forwarder_headers": "not needed: see forwarded_headers",
    "fd": "use bind fd://N",
    "umask": "for the socket file use bind unix:/path?mode=660",
    "uds_permissions": "use bind unix:/path?mode=660",
    "pythonpath": "use app_dir, or set PYTHONPATH",
    "wsgi_app": "use app",
    "use_colors": "use log_format text or plain; NO_COLOR and FORCE_COLOR are honoured too",
    "error_logfile": "log lines go to stderr; use log_config for files",
    "errorlog": "log lines go to stderr; use log_config for files",
    "daemon": "not offered: let systemd or a container keep it in the background",
    "limit_request_field_size": "use limit_request_head: the bytes of the whole head",
    "h11_max_incomplete_event_size": "use limit_request_head",
    "ssl_version": "use ssl_minimum_version",
    "ssl_client_verify": "use ssl_cert_reqs required",
    "do_handshake_on_connect": "not needed: a handshake never holds up anybody else",
    "suppress_ragged_eofs": "not needed: a client may leave without a word",
    "insecure_bind": "not offered: with ssl_certfile every address speaks TLS",
    "quic_bind": "not offered: there is no HTTP/3 here",
    "workers_count": "use workers",
    "processes": "use workers",
}


@dataclass(frozen=True)
class Option:
    """One field of `Settings` with its type taken apart. `auto` says that the word auto is a value of a number."""

    name: str
    info: OptionInfo
    default: Any
    kind: Kind
    choices: tuple[str, ...] = ()
    auto: bool = False

    @property
    def metavar(self) -> str:
        """What stands for the value in `--help`."""
        if self.info.metavar:
            return self.info.metavar
        if self.kind == "choice":
            return "|".join(self.choices)
        words = {"int": "N|auto" if self.auto else "N", "seconds": "TIME", "bytes": "SIZE", "texts": "ADDRESS"}
        return words.get(self.kind, "TEXT")


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    about = info(field)
    if get_origin(hint) is Annotated:
        unit = next(extra for extra in get_args(hint)[1:] if isinstance(extra, Unit))
        return Option(field.name, about, field.default, "seconds" if unit.name == "s" else "bytes")
    if get_origin(hint) is Literal:
        return Option(field.name, about, field.default, "choice", choices=get_args(hint))
    if get_origin(hint) in (types.UnionType, typing.Union):
        return Option(field.name, about, field.default, "int", auto=True)
    kinds: dict[Any, Kind] = {bool: "flag", int: "int", str: "text"}
    return Option(field.name, about, field.default, kinds.get(hint, "texts"))


def _table() -> dict[str, Option]:
    hints = typing.get_type_hints(Settings, include_extras=True)
    return {field.name: _option(field, hints[field.name]) for field in dataclasses.fields(Settings)}


OPTIONS: Mapping[str, Option] = _table()
ALIASES: Mapping[str, str] = {alias: option.name for option in OPTIONS.values() for alias in option.info.aliases}


def find(name: str) -> Option | None:
    """The option of this name or alias, with dashes or underscores; None where there is none."""
    plain = name.replace("-", "_").lower()
    return OPTIONS.get(ALIASES.get(plain, plain))


def advise(name: str, written: Callable[[str], str] = str, also: Iterable[str] = ()) -> str:
    """What somebody who wrote this unknown option name most likely wants: "did you mean workers?", or "".

    `written` turns an option's name into what belongs in its place: a flag, a variable.
    """
    plain = name.lstrip("-").replace("-", "_").lower()
    if plain in FOREIGN:
        return FOREIGN[plain]
    near = difflib.get_close_matches(plain, [*OPTIONS, *ALIASES, *also], n=1, cutoff=0.65)
    return f"did you mean {written(near[0])}?" if near else ""


def read(option: Option, raw: object, *, typed: bool) -> object:
    """The option's value out of what was written.

    `typed` is for TOML, where a number is not a text. Raises `ValueError` with what is wrong, without the option's name.
    """
    if option.info.secret and not isinstance(raw, str):
        raise ValueError("must be a text in quotes")  # and it is not quoted here
    if option.kind == "flag":
        value: object = _read_flag(raw, typed)
    elif option.kind == "int":
        value = _read_int(option, raw, typed)
    elif option.kind == "seconds":
        value = _read_seconds(raw)
    elif option.kind == "bytes":
        value = _read_bytes(raw)
    elif option.kind == "choice":
        value = _read_choice(option, raw)
    elif option.kind == "texts":
        value = _read_texts(raw)
    else:
        value = _read_text(raw, option.info.secret)
    if isinstance(value, int | float):
        _check_range(option, value)
    return value


def quote(raw: object) -> str:
    """A value as it was written, short enough for one line."""
    text = repr(raw) if not isinstance(raw, str) else f'"{raw}"'
    return text if len(text) <= 80 else text[:77] + "..."


def _read_flag(raw: object, typed: bool) -> bool:
    if isinstance(raw, bool):
        return raw
    if not typed and isinstance(raw, str) and raw.strip().lower() in _FLAGS:
        return _FLAGS[raw.strip().lower()]
    raise ValueError(f"must be true or false, not {quote(raw)}")


def _read_int(option: Option, raw: object, typed: bool) -> int | str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        text = raw.strip()
        if option.auto and text.lower() == "auto":
            return "auto"
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            if typed:
                raise ValueError(f"must be a number, not the text {quote(raw)}: take the quotes away")
            return int(text)
    raise ValueError(f"must be a whole number{' or auto' if option.auto else ''}, not {quote(raw)}")


def _read_seconds(raw: object) -> float:
    problem = ValueError(f"must be a duration such as 30s, 250ms, 5m or a number of seconds, not {quote(raw)}")
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise problem
        return float(raw)
    if not isinstance(raw, str):
        raise problem
    text = raw.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise problem
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in _DURATION_PART.findall(text))


def _read_bytes(raw: object) -> int:
    problem = ValueError(f"must be a size such as 64KiB, 1M, 10MB or a number of bytes, not {quote(raw)}")
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    match = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or match[2].lower() not in _BYTES:
        raise problem
    size = float(match[1]) * _BYTES[match[2].lower()]
    if not size.is_integer():
        raise problem
    return int(size)


def _read_choice(option: Option, raw: object) -> str:
    # `ssl_cert_reqs = 2` and `ssl_minimum_version = 1.3` are numbers in TOML; the enums of Python's ssl module are numbers too.
    text = str(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else raw
    if isinstance(text, str):
        text = text.strip().lower()
        text = dict(option.info.words).get(text, text)
        if text in option.choices:
            return text
    # TOML and Python people write `lifespan = true`; the option's words for it are on and off.
    if isinstance(raw, bool) and {"on", "off"} <= set(option.choices):
        return "on" if raw else "off"
    near = difflib.get_close_matches(str(raw).lower(), option.choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"must be one of {', '.join(option.choices)}, not {quote(raw)}{hint}")


def _read_texts(raw: object) -> tuple[str, ...]:
    items = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"must be a text or a list of texts, not {quote(raw)}")
    return tuple(item.strip() for item in items if item.strip())


def _read_text(raw: object, secret: bool) -> str:
    if isinstance(raw, str) and "\0" not in raw:
        return raw
    if hasattr(raw, "__fspath__"):
        return str(raw)
    raise ValueError("must be a text" if secret else f"must be a text, not {quote(raw)}")


def _check_range(option: Option, value: float) -> None:
    low, high, same = option.info.minimum, option.info.maximum, type(value)
    if low is not None and value < low:
        raise ValueError(f"must be {show(option, same(low))} or more, not {show(option, value)}")
    if high is not None and value > high:
        raise ValueError(f"must be {show(option, same(high))} or less, not {show(option, value)}")


def visible(option: Option, value: Any) -> Any:
    """The value, or a mask in the place of a secret."""
    return MASK if option.info.secret and value else value


def show(option: Option, value: Any) -> str:
    """A value as a person would write it: `75s`, `64KiB`, `true`, `host:port, unix:/path`. A secret is masked."""
    value = visible(option, value)
    if option.kind == "flag":
        return "true" if value else "false"
    if option.kind == "seconds":
        return f"{value:g}s" if value >= 1 or value <= 0 else f"{value * 1000:g}ms"
    if option.kind == "bytes":
        for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
            if value and value % size == 0:
                return f"{value // size}{unit}"
        return str(value)
    if option.kind == "texts":
        return ", ".join(value)
    return str(value)
