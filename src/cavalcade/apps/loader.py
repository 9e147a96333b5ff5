"""Imports the app, finds it in its module, and says what is wrong in words when it cannot be served.

This runs user code, so it runs in a worker (or in a nursery that preloads, or in `cavalcade check`), never in the supervisor.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from cavalcade.apps import frames, nature
from cavalcade.apps.frames import user_frames
from cavalcade.apps.nature import Look, Nature
from cavalcade.config import app_tables
from cavalcade.config.options import AppTable, Settings
from cavalcade.errors import AppLoadError, CavalcadeError
from cavalcade.types import App, ASGIApp, Interface

__all__ = ["LoadedApp", "Part", "Reference", "SeveralApps", "being_imported", "load", "parse", "usable", "user_frames"]

APP_NAMES = ("app", "api", "application", "asgi_app")
FACTORY_NAMES = ("create_app", "make_app", "get_app", "build_app", "app_factory", "factory")

# Import names whose package has another name, for the advice on what to install.
_DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "MySQLdb": "mysqlclient",
    "multipart": "python-multipart",
    "PIL": "Pillow",
    "psycopg2": "psycopg2-binary",
    "sklearn": "scikit-learn",
    "socketio": "python-socketio",
    "yaml": "PyYAML",
}

_importing = ""


@dataclass(frozen=True)
class LoadedApp:
    """An app that can be called. `name` is the full reference that was found; `notes` is what the operator ought to hear."""

    app: App | SeveralApps
    name: str
    kind: str
    import_s: float
    notes: tuple[str, ...] = ()
    interface: Interface = "asgi"


@dataclass(frozen=True)
class Part:
    """One app of several: its table, the app, and the settings that are its own."""

    table: AppTable
    loaded: LoadedApp
    settings: Settings
    name: str  # for messages: app[2] (main:app at /api)


@dataclass(frozen=True)
class SeveralApps:
    """What is served where there are `[[app]]` tables: it cannot be called, its parts can."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Reference:
    """`module:attribute.path(arguments)` taken apart. `path` is empty where only a module was named; `arguments` is None
    where there is no call."""

    module: str
    path: tuple[str, ...] = ()
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __str__(self) -> str:
        return f"{self.module}:{'.'.join(self.path)}" if self.path else self.module


def being_imported() -> str:
    """The app whose module is being imported right now, or "": a `cavalcade.run()` at that time lacks its guard."""
    return _importing


def parse(text: str) -> Reference:
    """Read `module`, `module:attr`, `module:dotted.attr` or `module:make("literal")`. Raises `AppLoadError`."""
    module, colon, expression = text.strip().partition(":")
    problem = AppLoadError(f'"{text}" is not a name of an app.', fix="Write module:attribute, for example main:app")
    if not module or not all(part.isidentifier() for part in module.split(".")) or (colon and not expression):
        raise problem
    if not colon:
        return Reference(module)
    try:
        node = ast.parse(expression.strip(), mode="eval").body
        arguments = None
        if isinstance(node, ast.Call):
            positional = tuple(ast.literal_eval(each) for each in node.args)
            named = {each.arg: ast.literal_eval(each.value) for each in node.keywords if each.arg}
            arguments, node = (positional, named), node.func
    except (SyntaxError, ValueError):
        raise problem from None
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise problem
    return Reference(module, (node.id, *path), arguments)


def load(settings: Settings) -> LoadedApp:
    """Import the app that the settings name, or all of them.

    Raises `AppLoadError` whatever the user's code does, `SystemExit` included; `KeyboardInterrupt` passes.
    """
    if settings.apps:
        return _load_several(settings)
    reference = parse(settings.app)
    directory = str(Path(settings.app_dir).resolve())
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)
    frames.claim(reference.module.partition(".")[0])
    started = time.perf_counter()
    module = _import(reference, directory, settings)
    notes: list[str] = []
    if reference.path:
        item = _attribute(module, reference)
    else:
        reference, item = _search(module, reference)
        notes.append(f"{module.__name__} names no app; serving {reference}. Pin it: cavalcade {reference}")
    item, kind = _made(item, reference, settings, notes)
    app, interface = _checked_as(item, nature.look(item), str(reference), settings)
    notes += _unused(settings, interface)
    return LoadedApp(app, str(reference), kind, time.perf_counter() - started, tuple(notes), interface)


def _load_several(settings: Settings) -> LoadedApp:
    """Import the apps of all tables, in their order."""
    parts: list[Part] = []
    notes: list[str] = []
    for number, table in enumerate(settings.apps, start=1):
        part_settings = app_tables.alone(settings, table)
        name = f"app[{number}] ({table})"
        try:
            loaded = load(part_settings)
        except AppLoadError as error:
            raise AppLoadError(f"{name}: {error.cause}", fix=error.fix, trace=error.trace) from None
        notes += [f"{name}: {note}" for note in loaded.notes]
        parts.append(Part(table, loaded, part_settings, name))
    kinds = ", ".join(f"{part.loaded.kind.removesuffix(' (WSGI)')}{', WSGI' * (part.loaded.interface == 'wsgi')}" for part in parts)
    spent = sum(part.loaded.import_s for part in parts)
    return LoadedApp(SeveralApps(tuple(parts)), "; ".join(map(str, settings.apps)), kinds, spent, tuple(notes))


def usable(item: object, name: str, settings: Settings) -> LoadedApp:
    """The same checks for an app that is already an object. Raises `AppLoadError`."""
    looked = nature.look(item)
    if looked.nature is Nature.FACTORY:
        raise AppLoadError(f"{name} is a function without arguments, not an app.", fix="Call it, and pass on what it returns.")
    app, interface = _checked_as(item, looked, name, settings)
    return LoadedApp(app, name, looked.kind, 0.0, tuple(_unused(settings, interface)), interface)


# -- import --------------------------------------------------------------------------------------------------------------


def _import(reference: Reference, directory: str, settings: Settings) -> ModuleType:
    """Import the module. A border: user code may raise anything here."""
    global _importing
    _importing = str(reference)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(reference.module)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as exc:
        if frames.count_user_frames(exc) == 0 and _is_part(exc.name, reference.module):
            raise _missing_module(reference, exc.name or "", directory) from None
        raise _import_failed(reference, exc, directory, settings) from None
    except BaseException as exc:  # noqa: BLE001  (SystemExit and worse are the app's failure, not ours)
        raise _import_failed(reference, exc, directory, settings) from None
    finally:
        _importing = ""


def _is_part(name: str | None, module: str) -> bool:
    return name is not None and (name == module or module.startswith(name + "."))


def _missing_module(reference: Reference, missing: str, directory: str) -> AppLoadError:
    parent, _, last = missing.rpartition(".")
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        cause = f'No module named "{missing}": {parent} is a single file, not a package ({_place(sys.modules.get(parent))}).'
        path = (last, *reference.path) if last != "py" else reference.path
        return AppLoadError(cause, fix=f"cavalcade {Reference(parent, path)}")
    places = [Path(place) for place in sys.modules[parent].__path__] if parent else [Path(directory)]
    names = _modules_in(places)
    cause = f'No module named "{missing}" in {", ".join(map(str, places))}  (python: {sys.executable})'
    rest = reference.module[len(missing) :]
    attribute = f":{'.'.join(reference.path)}" if reference.path else ""
    fixes = [f"Did you mean {parent + '.' if parent else ''}{near}{rest}{attribute}?" for near in _near(last, names)[:1]]
    if not parent:
        children = sorted(Path(directory).glob("*/"))
        holders = [each.name for each in children if (each / f"{last}.py").is_file() or (each / last / "__init__.py").is_file()]
        fixes += [f"It is in {name}/: cavalcade {reference} --app-dir {name}" for name in holders]
    if not fixes:
        shown = ", ".join(sorted(names)[:12])
        fixes.append(f"Modules there: {shown}." if shown else "There is no module at all. Name its directory with --app-dir.")
    return AppLoadError(cause, fix="\n".join(fixes))


def _import_failed(reference: Reference, exc: BaseException, directory: str, settings: Settings) -> AppLoadError:
    """The module is there, and its code failed. Says where and with what."""
    trace = user_frames(exc, whole=settings.traceback)
    where = _where(exc, directory)
    if isinstance(exc, CavalcadeError):  # cavalcade.run() in the app's own module
        return AppLoadError(exc.cause, fix=exc.fix, trace=trace)
    if isinstance(exc, SystemExit):
        cause = f"{reference.module} called sys.exit({exc.code!r}) while it was imported{where}."
        return AppLoadError(cause, fix='Put what runs a program under: if __name__ == "__main__":', trace=trace)
    what = _what(exc)
    if isinstance(exc, SyntaxError):
        place = f"{_short(exc.filename, directory)} line {exc.lineno}" if exc.filename else reference.module
        return AppLoadError(f"{place} is not valid Python: {exc.msg}.", trace=trace)
    if isinstance(exc, ModuleNotFoundError):
        line = frames.last_user_line(exc)
        statement = f"  {line.line}" if line is not None and line.line else ""
        place = where.removeprefix(" at ") or "its import"
        cause = f"{reference.module} was found, but {place} failed:{statement}  ({what}; python: {sys.executable})"
        alone = frames.count_user_frames(exc) == 1 and not settings.traceback
        return AppLoadError(cause, fix=_missing_import(exc.name or "", reference, directory), trace="" if alone else trace)
    fix = ""
    if isinstance(exc, ImportError) and "attempted relative import" in str(exc):
        package = Path(directory).name
        fix = f"Import it as part of its package: cavalcade {package}.{reference} --app-dir {Path(directory).parent}"
    return AppLoadError(f"Importing {reference.module} failed{where}: {what}", fix=fix, trace=trace)


def _missing_import(missing: str, reference: Reference, directory: str) -> str:
    """What to do about a module that the app imports and that is not there."""
    top = missing.partition(".")[0]
    if top == Path(directory).name:
        return f"{top} is the directory itself; run from above it: cavalcade {top}.{reference} --app-dir {Path(directory).parent}"
    if top in sys.modules:  # the package is there, a part of it is not
        spec = importlib.util.find_spec(top)
        places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
        near = _near(missing.rpartition(".")[2], _modules_in(places))
        return f"Did you mean {missing.rpartition('.')[0]}.{near[0]}?" if near else f"{top} is installed, but not this part of it."
    near = _near(top, _modules_in([Path(directory)]))
    if near:
        return f"Did you mean {near[0]}?"
    return f"Is this the right virtual environment?  pip install {_DISTRIBUTIONS.get(top, top)}"


# -- the attribute -------------------------------------------------------------------------------------------------------


def _attribute(module: ModuleType, reference: Reference) -> object:
    item: object = module
    for depth, name in enumerate(reference.path):
        try:
            item = getattr(item, name)
        except AttributeError:
            owner = f"module {module.__name__}" if depth == 0 else f"{module.__name__}:{'.'.join(reference.path[:depth])}"
            raise _missing_attribute(item, owner, name, reference, depth) from None
    return item


def _missing_attribute(owner: object, label: str, name: str, reference: Reference, depth: int) -> AppLoadError:
    place = f" ({_place(owner)})" if isinstance(owner, ModuleType) else ""
    cause = f'"{reference}": {label}{place} has no attribute "{name}".'
    candidates = _candidates(owner)
    if candidates:
        cause += f" It does define: {', '.join(f'{each} ({kind})' for each, kind in candidates)}."
    names = [each for each in dir(owner) if not each.startswith("_")]
    close = _near(name, [each for each, _ in candidates]) or ([candidates[0][0]] if len(candidates) == 1 else _near(name, names))
    prefix = ".".join(reference.path[:depth])
    fixes = [f"cavalcade {reference.module}:{prefix + '.' if prefix else ''}{close[0]}"] if close else []
    if isinstance(owner, ModuleType) and hasattr(owner, "__path__"):
        near_module = _near(name, _modules_in([Path(place) for place in owner.__path__]))
        if near_module and near_module[0] == name:
            fixes = [f"{name} is a module of the package: cavalcade {reference.module}.{name}"]
    return AppLoadError(cause, fix="\n".join(fixes))


def _candidates(owner: object) -> list[tuple[str, str]]:
    """What in a module looks like an app, the likeliest first: names with their kinds."""
    found: list[tuple[int, str, str]] = []
    for name, item in list(vars(owner).items()) if hasattr(owner, "__dict__") else []:
        if name.startswith("_") or isinstance(item, ModuleType):
            continue
        looked = nature.look(item)
        if nature.is_framework(item):
            found.append((0, name, looked.kind))
        elif name in APP_NAMES and looked.nature in (Nature.ASGI, Nature.ASGI2, Nature.WSGI):
            found.append((1, name, looked.kind))
        elif name in FACTORY_NAMES and looked.nature is Nature.FACTORY:
            found.append((2, name, looked.kind))
        elif (
            looked.nature is Nature.ASGI
            and looked.kind == "function"
            and getattr(item, "__module__", "") == getattr(owner, "__name__", None)
        ):
            found.append((3, name, looked.kind))
    found.sort(key=lambda each: (each[0], APP_NAMES.index(each[1]) if each[1] in APP_NAMES else len(APP_NAMES)))
    return [(name, kind) for _, name, kind in found[:6]]


def _search(module: ModuleType, reference: Reference) -> tuple[Reference, object]:
    """The app of a module that was named without an attribute."""
    for name in APP_NAMES:
        item = getattr(module, name, None)
        if item is not None and not isinstance(item, ModuleType) and nature.look(item).nature is not Nature.OTHER:
            return Reference(reference.module, (name,)), item
    apps = [name for name, item in vars(module).items() if not name.startswith("_") and nature.is_framework(item)]
    if len(apps) == 1:
        return Reference(reference.module, (apps[0],)), getattr(module, apps[0])
    if apps:
        cause = f"Module {module.__name__} ({_place(module)}) defines several apps: {', '.join(apps)}."
        raise AppLoadError(cause, fix="Say which: " + "  or  ".join(f"cavalcade {reference.module}:{name}" for name in apps[:3]))
    for name in FACTORY_NAMES:
        item = getattr(module, name, None)
        if item is not None and nature.look(item).nature is Nature.FACTORY:
            return Reference(reference.module, (name,)), item
    cause = f"Module {module.__name__} ({_place(module)}) defines no app: looked for {', '.join(APP_NAMES)} and {', '.join(FACTORY_NAMES)}."
    raise AppLoadError(cause, fix=f"Name it: cavalcade {reference.module}:attribute")


# -- the object ----------------------------------------------------------------------------------------------------------


def _made(item: object, reference: Reference, settings: Settings, notes: list[str]) -> tuple[object, str]:
    """The app itself: factories are called. Returns it with its kind."""
    looked = nature.look(item)
    if reference.arguments is not None:
        positional, named = reference.arguments
        return _call(item, reference, settings, *positional, **named)
    if settings.factory:
        if nature.is_framework(item):
            cause = f"{reference} is a {looked.kind} app, not a factory."
            raise AppLoadError(cause, fix=f"Leave --factory out: cavalcade {reference}")
        return _call(item, reference, settings)
    if looked.nature is Nature.FACTORY:
        made = _call(item, reference, settings)
        notes.append(f"{reference} is a factory: called it, and serving the {made[1]} app it made. Say so with --factory.")
        return made
    return item, looked.kind


def _call(factory: object, reference: Reference, settings: Settings, *positional: Any, **named: Any) -> tuple[object, str]:
    """What a factory returns. A border: it is user code."""
    if not callable(factory):
        raise AppLoadError(f"{reference} is not a factory but {_a(nature.kind_of(factory))}, which cannot be called.")
    needed = [] if positional or named else nature.needed_arguments(factory)
    if needed:
        cause = f"The factory {reference} needs arguments: {', '.join(needed)}."
        raise AppLoadError(cause, fix="Give them defaults, or write a function without arguments that calls it.")
    try:
        made = factory(*positional, **named)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001  (SystemExit and worse are the app's failure, not ours)
        where = _where(exc, str(Path(settings.app_dir).resolve()))
        cause = f"The factory {reference} failed{where}: {_what(exc)}"
        raise AppLoadError(cause, trace=user_frames(exc, whole=settings.traceback)) from None
    if made is None:
        raise AppLoadError(f"The factory {reference} returned None.", fix="Does it end with: return app")
    if hasattr(made, "cr_frame"):
        made.close()
        raise AppLoadError(
            f"{reference} is an async function: a factory must not be.", fix="Make it a plain def; do async work in the lifespan."
        )
    return made, nature.kind_of(made)


def _checked_as(item: object, looked: Look, name: str, settings: Settings) -> tuple[App, Interface]:
    """The object as an ASGI 3 or WSGI app. Raises `AppLoadError` where it is neither, or not the one that was asked for."""
    wanted = settings.interface
    if wanted == "asgi" and not looked.sure:
        return cast(ASGIApp, item), "asgi"
    if looked.nature is Nature.WSGI or (wanted == "wsgi" and looked.nature is Nature.ASGI and not nature.is_async(item)):
        if wanted == "asgi":
            raise AppLoadError(f"{name} is a WSGI app ({_plain(looked)}), and --interface asgi was asked for.", fix=_asgi_fix(looked))
        if settings.lifespan == "on":
            raise AppLoadError(f"{name} is a WSGI app ({_plain(looked)}): WSGI has no lifespan.", fix="Leave --lifespan on out.")
        return cast(App, item), "wsgi"
    if wanted == "wsgi" and looked.nature in (Nature.ASGI, Nature.ASGI2):
        raise AppLoadError(f"{name} is an ASGI app ({looked.kind}), and --interface wsgi was asked for.", fix="Leave --interface out.")
    if looked.nature is Nature.ASGI:
        return cast(ASGIApp, item), "asgi"
    if looked.nature is Nature.ASGI2:
        return nature.adapt(item), "asgi"
    if looked.nature is Nature.ROUTER:
        fix = "Serve the app that includes it: app = FastAPI(); app.include_router(...)" if looked.kind == "APIRouter" else ""
        raise AppLoadError(f"{name} is {_a(looked.kind)}, not an app.", fix=fix or "Serve the app that it is registered with.")
    if looked.nature is Nature.CLASS:
        raise AppLoadError(
            f"{name} is a class, not an app made from it.", fix="Make one: app = TheClass(), and serve that; or pass --factory."
        )
    if looked.nature is Nature.ASYNC_FACTORY:
        raise AppLoadError(f"{name} is an async function without arguments: a factory must not be async.", fix="Make it a plain def.")
    if looked.nature is Nature.FACTORY:
        raise AppLoadError(f"{name} made another factory, not an app.", fix="Return the app itself.")
    if looked.takes:
        known = "an ASGI app takes (scope, receive, send), a WSGI app (environ, start_response), a factory nothing"
        cause = f"{name} is {_a(looked.kind)} that takes {looked.takes}; {known}."
        fix = "Give its arguments defaults, or write a function without arguments that calls it." if looked.kind == "function" else ""
        raise AppLoadError(cause, fix=fix)
    fix = f"Name the app in it: cavalcade {name.replace(':', '.')}:app" if looked.kind == "module" else ""
    raise AppLoadError(f"{name} is {_a(looked.kind)}, not an app.", fix=fix or "Name an app: a FastAPI, Starlette, Flask or Django app.")


def _asgi_fix(looked: Look) -> str:
    if looked.kind.startswith("Django"):
        return "Serve the project's asgi.py: cavalcade PROJECT.asgi:application, or leave --interface out."
    return "Leave --interface out: it is served as WSGI then."


def _plain(looked: Look) -> str:
    return looked.kind.removesuffix(" (WSGI)")


def _unused(settings: Settings, interface: Interface) -> list[str]:
    """What was asked for and has no meaning for this app."""
    if interface == "asgi" and settings.threads != Settings().threads:
        return [f"--threads {settings.threads} is not used: it is for WSGI apps, and this is an ASGI app, which runs in the event loop"]
    return []


# -- words ---------------------------------------------------------------------------------------------------------------


def _a(kind: str) -> str:
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _near(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)


def _modules_in(places: Sequence[Path]) -> list[str]:
    names: set[str] = set()
    for place in places:
        if place.is_dir():
            names |= {each.stem for each in place.glob("*.py") if each.stem.isidentifier()}
            names |= {each.parent.name for each in place.glob("*/__init__.py")}
    return sorted(names - {"__init__"})


def _place(module: object) -> str:
    return str(getattr(module, "__file__", None) or "no file")


def _what(exc: BaseException) -> str:
    """The exception in one line; the traceback has all of it."""
    lines = str(exc).strip().splitlines()
    if not lines:
        return type(exc).__name__
    return f"{type(exc).__name__}: {lines[0]}{' ...' if len(lines) > 1 else ''}"


def _where(exc: BaseException, directory: str) -> str:
    line = frames.last_user_line(exc)
    return "" if line is None else f" at {_short(line.filename, directory)} line {line.lineno}"


def _short(file: str, directory: str) -> str:
    return str(Path(file).relative_to(directory)) if Path(file).is_relative_to(directory) else file
