"""Where the settings come from: each source overrides those before it.

    default < PORT and WEB_CONCURRENCY < [tool.cavalcade] in pyproject.toml < cavalcade.toml or --config FILE
    < CAVALCADE_* environment variables < command line (or the arguments of `cavalcade.run`)

Every source is read to the end and every problem kept, so that one run shows all of them. Each value remembers where it came
from; `cavalcade config show` prints that. Nothing here reads `os.environ` or the current directory by itself.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cavalcade.config import addresses, admin, app_tables, certificates, checks, cpus, static_mounts, statsd, trusted
from cavalcade.config.options import Settings
from cavalcade.config.trusted import Trusted
from cavalcade.config.values import OPTIONS, Option, advise, find, quote, read
from cavalcade.errors import ConfigError

ENV_PREFIX = "CAVALCADE_"
CONFIG_FILE = "cavalcade.toml"

# Ours, but no options: the file to read, and what setup.py listens to, which images leave set.
_NO_OPTIONS = frozenset(f"{ENV_PREFIX}{name}" for name in ("CONFIG", "PURE", "REQUIRE_COMPILED", "UPGRADE_FD"))

# Kubernetes and Docker links put these into every container that can see a service named "cavalcade".
_SERVICE_LINK = re.compile(r"CAVALCADE_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)\w*)")
_SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://")


class Level(enum.IntEnum):
    """The sources, the weakest first."""

    DEFAULT = 0
    PLATFORM = 1
    PYPROJECT = 2
    FILE = 3
    ENVIRONMENT = 4
    ARGUMENT = 5


@dataclass(frozen=True)
class Given:
    """One value that somebody gave, already read, and how its place is shown to people."""

    value: Any
    level: Level
    origin: str


@dataclass(frozen=True)
class Resolved:
    """The effective settings, where each came from, and what the operator ought to hear about how they were found."""

    settings: Settings
    origins: dict[str, str]
    notes: list[str]


def flag_of(name: str) -> str:
    """How an option is written on the command line; the default for where an argument came from."""
    if name == "app":
        return "APP"
    return name if name.startswith("-") else f"--{name.replace('_', '-')}"


@dataclass
class _Reading:
    """What has been read so far: the winning value of each option, the problems, the notes."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, name: str, raw: object, level: Level, origin: str, written: Callable[[str], str] = str) -> None:
        """Read one value. A problem is kept, not raised."""
        option = find(name)
        # A file has many keys, so its problems name the key; every other origin is the name.
        in_file = level in (Level.PYPROJECT, Level.FILE)
        if option is None:
            hint = advise(name, written, ("config",) if level is Level.ARGUMENT else ())
            self.problems.append(f"{origin}: unknown option{f' {quote(name)}' if in_file else ''}{'; ' + hint if hint else ''}")
            return
        before = self.given.get(option.name)
        if before is not None and before.level == level:
            self.problems.append(f"{origin}: {option.name} is given twice, also by {before.origin}")
            return
        try:
            value = _normal(option, read(option, raw, typed=in_file))
        except ValueError as problem:
            self.problems.append(f"{origin}: {f'{name} ' if in_file else ''}{problem}")
            return
        if before is not None and isinstance(before.value, tuple) and option.name == "app":
            self.notes.append(f"{before.origin}: the [[app]] tables are not used: {origin} says what to serve")
        self.given[option.name] = Given(value, level, origin)

    def take_apps(self, raw: list[Any], level: Level, shown: str, origin: str, lines: list[int]) -> None:
        """Read `[[app]]` tables, which stand for `app`; `lines` are where they begin, if that could be told."""
        placed = len(lines) == len(raw)
        tables, problems = app_tables.read_tables(raw, lambda number: f"{shown}:{lines[number - 1]}" if placed else origin)
        self.problems += problems
        if tables:
            self.given["app"] = Given(tables, level, origin)


def _normal(option: Option, value: Any) -> Any:
    """The canonical form of values that have several."""
    if option.name == "bind":
        return tuple(str(addresses.parse(item)) for item in value)
    if option.name in ("trusted_proxies", "forwarded_headers"):  # of the command line each may be several, with commas
        read_one = trusted.entry if option.name == "trusted_proxies" else trusted.header
        words = [word for item in value for word in item.replace(",", " ").split()]
        return tuple(dict.fromkeys(read_one(word) for word in words))
    if option.name == "admin":
        return admin.address(value)
    if option.name == "statsd_host":
        return statsd.address(value)
    if option.name in ("admin_open", "admin_hosts"):
        one = admin.open_word if option.name == "admin_open" else admin.host_name
        return tuple(dict.fromkeys(one(word) for item in value for word in item.replace(",", " ").split()))
    if option.name == "static":
        return tuple(static_mounts.canonical(item) for item in value)
    if option.name == "ssl_sni":
        return tuple(certificates.certificate_for(item) for item in value)
    if option.name == "host":
        return addresses.host_name(value)
    if option.name in ("root_path", "mount_path"):
        return trusted.path_prefix(value)
    return value


def resolve(
    cli: Mapping[str, object],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    origin_of: Callable[[str], str] = flag_of,
    root: Path = Path("/"),
    files: bool = True,
) -> Resolved:
    """Read every source and settle what the server runs with: `workers` is a number, `bind` is filled.

    `cli` holds option names and raw values, None for what was not given, and "config" for the file to read; `origin_of` says
    how a name of it is shown to people; `root` stands in for the machine's root directory in tests of CPU limits; `files` says
    whether TOML files are read.

    Raises `ConfigError` with all problems; its `log_format` is the one that was asked for as far as it could be told.
    """
    reading = _Reading()
    arguments = {name: raw for name, raw in cli.items() if raw is not None}
    config = arguments.pop("config", None) or environ.get(f"{ENV_PREFIX}CONFIG")
    _read_platform(reading, environ)
    if files:
        _read_files(reading, cwd, None if config is None else str(config))
    _read_environment(reading, environ)
    for name, raw in arguments.items():
        reading.take(name, raw, Level.ARGUMENT, origin_of(name), origin_of)

    values: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}
    origins = dict.fromkeys(OPTIONS, "default")
    for name, given in reading.given.items():
        values[name], origins[name] = given.value, given.origin
    if isinstance(values["app"], tuple):
        values["apps"], values["app"] = values["app"], ", ".join(table.app for table in values["app"])
    _settle_addresses(reading, values, origins)
    _settle_workers(reading, values, origins, root)
    values["static"] = tuple(static_mounts.placed(item, cwd) for item in values["static"])
    if trusted.ANY in values["trusted_proxies"]:
        _note_trust_in_all(reading, values, origins)
    if values["http2"] and origins["http2"] != "default" and not checks.installed("h2"):
        reading.notes.append(f"{origins['http2']}: HTTP/2 is not spoken, h2 is not installed here: pip install 'cavalcade[http2]'")
    settings = Settings(**values)
    problems = reading.problems + checks.together(settings, origins, cwd)
    if problems:
        raise ConfigError(problems, log_format=settings.log_format)
    return Resolved(settings, origins, reading.notes)


# -- the sources -------------------------------------------------------------------------------------------------------


def _read_platform(reading: _Reading, environ: Mapping[str, str]) -> None:
    for option in OPTIONS.values():
        for variable in option.info.env:
            if raw := environ.get(variable, "").strip():
                reading.take(option.name, raw, Level.PLATFORM, variable)


def _read_environment(reading: _Reading, environ: Mapping[str, str]) -> None:
    for variable, raw in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable in _NO_OPTIONS:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if _SERVICE_LINK.fullmatch(variable) or (name == "port" and _SERVICE_LINK_PORT.match(raw)):
            continue
        option = find(name)
        if option is None:
            reading.take(name, raw, Level.ENVIRONMENT, variable, lambda near: ENV_PREFIX + near.upper())
        elif raw.strip() or option.kind == "text":  # `WORKERS=${WORKERS:-}` of a compose file means: not set
            reading.take(name, raw, Level.ENVIRONMENT, variable)


def _read_files(reading: _Reading, cwd: Path, config: str | None) -> None:
    project = cwd / "pyproject.toml"
    named = None if config is None else cwd / config
    if project.is_file() and named != project:
        _read_file(reading, project, "pyproject.toml", Level.PYPROJECT, ("tool", "cavalcade"))
    if named is not None and config is not None:
        if not named.is_file():
            reading.problems.append(f'--config: "{config}" is not a file')
            return
        table = ("tool", "cavalcade") if named.name == "pyproject.toml" else ()
        _read_file(reading, named, config, Level.FILE, table)
    elif (cwd / CONFIG_FILE).is_file():
        _read_file(reading, cwd / CONFIG_FILE, CONFIG_FILE, Level.FILE, ())


def _read_file(reading: _Reading, path: Path, shown: str, level: Level, table: tuple[str, ...]) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = tomllib.loads(text)
    except OSError as problem:
        reading.problems.append(f"{shown}: cannot be read: {problem.strerror}")
        return
    except UnicodeDecodeError:
        reading.problems.append(f"{shown}: is not UTF-8")
        return
    except tomllib.TOMLDecodeError as problem:
        line = re.search(r"\(at line (\d+)", str(problem))
        reading.problems.append(f"{shown}{':' + line[1] if line else ''}: is not valid TOML: {problem}")
        return
    for name in table:
        content = content.get(name, {}) if isinstance(content, dict) else {}
    if not isinstance(content, dict):
        reading.problems.append(f"{shown}: {'.'.join(table)} must be a table, not {quote(content)}")
        return
    lines = _key_lines(text)
    for key, raw in content.items():
        line_number = lines.get((*table, key))
        origin = shown if line_number is None else f"{shown}:{line_number}"
        if key == "app" and isinstance(raw, list):
            reading.take_apps(raw, level, shown, origin, _table_lines(text, (*table, key)))
        elif isinstance(raw, dict) and find(key) is None:
            reading.problems.append(f"{origin}: options are not in tables: take [{key}] away and write its keys at the top")
        else:
            reading.take(key, raw, level, origin)


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of each key and table. tomllib keeps no positions, so the text is looked through again; keys in inline
    tables are not found, and an origin then has no line."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?", line):
            table = _key(header[1])
            lines.setdefault(table, number)
        elif pair := re.match(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""", line):
            lines.setdefault(table + _key(pair[1]), number)
    return lines


def _table_lines(text: str, name: tuple[str, ...]) -> list[int]:
    """The lines on which the tables of an array begin."""
    headers = ((number, re.match(r"\s*\[\[([^\[\]]+)\]\]", line)) for number, line in enumerate(text.splitlines(), start=1))
    return [number for number, header in headers if header and _key(header[1]) == name]


def _key(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


# -- what follows from several values ----------------------------------------------------------------------------------


def _settle_addresses(reading: _Reading, values: dict[str, Any], origins: dict[str, str]) -> None:
    """`bind` from `bind`, `host`, `port` and PORT: the source with the higher rank wins."""
    bind, host, port = (reading.given.get(name) for name in ("bind", "host", "port"))
    if bind is not None and not bind.value:
        bind = None
    halves = [given for given in (host, port) if given is not None]
    base = addresses.Bind("tcp")
    explicit = [given for given in halves if given.level > Level.PLATFORM]
    if bind is not None:
        equal = [given for given in explicit if given.level == bind.level]
        if equal:
            others = " and ".join(given.origin for given in equal)
            reading.problems.append(
                f"{bind.origin} and {others} both say where to listen: bind has host and port in one, keep only one of them"
            )
        above = [given for given in explicit if given.level > bind.level]
        below = [given for given in halves if given.level < bind.level]
        if below:
            reading.notes.append(f"{_names(below)} not used: {bind.origin} says where to listen")
        if not above:
            origins["host"] = origins["port"] = f"not used: bind from {bind.origin}"
            return
        only = addresses.parse(bind.value[0])
        if len(bind.value) == 1 and only.kind == "tcp":  # `--port 9000` over `bind = "0.0.0.0:8000"` moves the port and keeps the rest
            base = only
            for name, given, half in (("host", host, only.host), ("port", port, only.port)):
                if given not in above:
                    values[name], origins[name] = half, bind.origin
        reading.notes.append(f"bind from {bind.origin} is replaced by {_names(above)}")
    elif port is not None and port.level == Level.PLATFORM and host is None:
        # A platform that sets PORT routes to the container's outer interface.
        values["host"], origins["host"] = "0.0.0.0", port.origin
    values["bind"] = (str(dataclasses.replace(base, host=values["host"], port=values["port"])),)
    sources = dict.fromkeys(origins[name] for name in ("host", "port"))
    origins["bind"] = " and ".join(origin for origin in sources if origin != "default" or len(sources) == 1)


def _names(givens: list[Given]) -> str:
    return " and ".join(given.origin for given in givens)


def _note_trust_in_all(reading: _Reading, values: dict[str, Any], origins: dict[str, str]) -> None:
    """Where others than this machine's programs can connect, it should have been meant."""
    binds = [addresses.parse(bind) for bind in values["bind"]]
    public = [bind.plain for bind in binds if bind.kind == "tcp" and bind.host not in Trusted(("loopback",)) and bind.host != "localhost"]
    if public:
        reading.notes.append(
            f"{origins['trusted_proxies']}: trusted_proxies * on {', '.join(public)}: whoever can connect there can pose as any client; "
            "safe only where none but your proxy can"
        )


def _settle_workers(reading: _Reading, values: dict[str, Any], origins: dict[str, str], root: Path) -> None:
    """`workers = "auto"` becomes a number; a WEB_CONCURRENCY that the CPU limits cannot feed is kept, and said."""
    if values["workers"] == "auto":
        limits = cpus.count(root)
        values["workers"] = min(limits.count, int(OPTIONS["workers"].info.maximum or limits.count))
        origins["workers"] += " (auto)"
        reading.notes.append(f"workers auto: {values['workers']} ({limits.reason})")
    elif origins["workers"] == "WEB_CONCURRENCY":
        limits = cpus.count(root)
        if values["workers"] > limits.count:
            much = f"WEB_CONCURRENCY={values['workers']} is more than the {limits.count} CPUs this process may use"
            reading.notes.append(f"{much} ({limits.reason}); workers auto fits")
