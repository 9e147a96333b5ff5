"""Which app is meant where nobody said, found by reading source files, never by importing them: the command line and the
supervisor do not run user code.

The places and names are those of `fastapi run`: `[tool.fastapi] entrypoint`, then main.py, app.py, api.py, the same in app/; then
asgi.py, wsgi.py, and the project package beside a Django manage.py. `app`, `api` and `application` come before other names, and an
asgi.py before a wsgi.py that is as likely.

Two variables of the environment count too. FLASK_APP names the app, so it comes before what files look like; DJANGO_SETTINGS_MODULE only
says which project is meant, and does so where no file has an app.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from cavalcade.apps.loader import APP_NAMES, FACTORY_NAMES, parse
from cavalcade.errors import AppLoadError, UsageError

_FILES = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
_GATEWAYS = ("asgi.py", "wsgi.py")  # in this order: a project that has both loses nothing by the first
_SOURCE_ROOTS = (".", "src")

FLASK_APP = "FLASK_APP"
DJANGO_SETTINGS = "DJANGO_SETTINGS_MODULE"

# What makes an app when it is called, by its name in the framework.
_MAKERS = {
    "FastAPI": "FastAPI",
    "Starlette": "Starlette",
    "Litestar": "Litestar",
    "Quart": "Quart",
    "Sanic": "Sanic",
    "get_asgi_application": "Django",
    "ProtocolTypeRouter": "Django Channels",
    "ASGIApp": "Socket.IO",
    "Flask": "Flask",
    "Bottle": "Bottle",
    "get_wsgi_application": "Django",
}


@dataclass(frozen=True)
class Guess:
    """An app that was found. `directory` is the one to import it from; `how` says where it was found, for people."""

    app: str
    directory: Path
    how: str


@dataclass(frozen=True)
class _Found:
    """The likeliest app in one file: the better the smaller `rank`; `label` says what it is."""

    rank: int
    name: str
    label: str


def discover(directory: Path, environ: Mapping[str, str]) -> Guess:
    """The app of the project in this directory. Raises `UsageError` where there is none, or a variable names one that cannot be."""
    pinned = _fastapi_entrypoint(directory / "pyproject.toml")
    if pinned:
        return Guess(pinned, directory, "[tool.fastapi] entrypoint in pyproject.toml")
    if environ.get(FLASK_APP, "").strip():
        return _flask_app(environ[FLASK_APP].strip(), directory)
    best: tuple[int, Path, _Found] | None = None
    exists: list[Path] = []
    for path in _files(directory):
        exists.append(path)
        found = _best(path)
        # A file that comes first and has no app must not hide one that has; so the rank decides before the place.
        if found is not None and (best is None or found.rank < best[0]):
            best = (found.rank, path, found)
    if best is not None:
        _, path, found = best
        module, root = module_of(path)
        return Guess(f"{module}:{found.name}", root, f"{found.label} in {path.relative_to(directory)}")
    if environ.get(DJANGO_SETTINGS, "").strip():
        return _django_app(environ[DJANGO_SETTINGS].strip(), directory)
    if exists:
        module, root = module_of(exists[0])
        return Guess(module, root, f"the file {exists[0].relative_to(directory)}")
    places = ", ".join(_FILES)
    fix = 'Name it: cavalcade module:attribute, or app = "module:attribute" under [tool.cavalcade] in pyproject.toml'
    raise UsageError(f"No app was named, and none was found in {directory}: looked for {places}, asgi.py and wsgi.py.", fix=fix)


def from_path(text: str, directory: Path) -> Guess | None:
    """The module form of an app named by its file: `main.py`, `app/main.py:app`. None where `text` names no file.

    Raises `UsageError` where it looks like a file that is not there.
    """
    file, _, attribute = text.partition(":")
    if not file.endswith(".py") and "/" not in file:
        return None
    path = directory / file
    if path.is_dir() and (path / "__init__.py").is_file():
        path = path / "__init__.py"
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", fix="Name the app as module:attribute, for example main:app")
    module, root = module_of(path)
    if not attribute:
        found = _best(path)
        attribute = found.name if found is not None else ""
    return Guess(f"{module}:{attribute}" if attribute else module, root, f"the file {file}")


def module_of(path: Path) -> tuple[str, Path]:
    """The dotted name that a file is imported by, and the directory to import it from.

    Packages count: with app/__init__.py the file app/main.py is app.main, imported from above. It is too where it imports from its own
    directory by that name, as in `from app.db import ...`, because then it works no other way.
    """
    path = path.resolve()
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        parts.insert(0, root.name)
        root = root.parent
    if parts == [path.stem] and root.name.isidentifier() and _imports(path, root.name):
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


# -- the environment ---------------------------------------------------------------------------------------------------


def _flask_app(text: str, directory: Path) -> Guess:
    """What `flask run` would serve: a module or file, perhaps with the app or factory in it. Raises `UsageError`."""
    said = f"{FLASK_APP}={text}"
    fix = f"Set it as flask wants it: {FLASK_APP}=module:app, =file.py or =module:create_app(); or name the app: cavalcade module:app"
    try:
        guess = from_path(text, directory)
        if guess is None:
            module = parse(text).module
            if not _exists(module.partition(".")[0], directory):
                raise UsageError(f"{said}: there is no module {module} in {directory}, nor is one installed.", fix=fix)
            guess = Guess(text, directory, "")
    except AppLoadError:
        raise UsageError(f"{said} is not a name of an app.", fix=fix) from None
    except UsageError as error:
        cause = error.cause if error.cause.startswith(said) else f"{said}: {error.cause}"
        raise UsageError(cause, fix=fix) from None
    return Guess(guess.app, guess.directory, f"{said} in the environment")


def _django_app(text: str, directory: Path) -> Guess:
    """The app of the project that has these settings: in the asgi.py or wsgi.py of its package, or where the settings say. Raises
    `UsageError`."""
    said = f"{DJANGO_SETTINGS}={text}"
    fix = "Name the app: cavalcade PROJECT.asgi:application, or PROJECT.wsgi:application"
    parts = text.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UsageError(f"{said} is not a name of a module.", fix=f"Write it with dots, as {DJANGO_SETTINGS}=PROJECT.settings")
    found = _settings_file(parts, directory)
    if found is None:
        cause = f"{said}: there is no file {'/'.join(parts)}.py in {directory}."
        raise UsageError(cause, fix="Run from where manage.py is, or name that directory with --app-dir; or name the app itself.")
    settings, root = found
    folders = [folder for folder in settings.parents if folder.is_relative_to(root)]
    for gateway in _GATEWAYS:
        for folder in folders:
            app = _best(folder / gateway)
            if app is not None:
                module = ".".join((folder / gateway).relative_to(root).with_suffix("").parts)
                return Guess(f"{module}:{app.name}", root, f"{said} in the environment")
        module, _, attribute = _constant(settings, f"{gateway.removesuffix('.py').upper()}_APPLICATION").rpartition(".")
        if module:
            return Guess(f"{module}:{attribute}", root, f"{said} in the environment")
    raise UsageError(f"{said}: there is no asgi.py or wsgi.py with an app beside {settings.relative_to(directory)}.", fix=fix)


def _settings_file(parts: list[str], directory: Path) -> tuple[Path, Path] | None:
    """The file of Django's settings, and the directory that they are imported from."""
    for root in (directory, directory / "src"):
        base = root.joinpath(*parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path, root
    return None


def _exists(name: str, directory: Path) -> bool:
    """Whether a module of this name could be imported; nothing is."""
    return name in sys.builtin_module_names or PathFinder.find_spec(name, [str(directory), *sys.path]) is not None


def _constant(path: Path, name: str) -> str:
    """The text that a file sets this name to at its top level; "" where it does not."""
    tree = _parse(path)
    for statement in _top_level(tree.body) if tree is not None else []:
        if isinstance(statement, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in statement.targets):
            value = statement.value
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    return ""


def _fastapi_entrypoint(path: Path) -> str:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        entrypoint = table["tool"]["fastapi"]["entrypoint"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError):
        return ""  # what is wrong with the file as such, config/sources.py has said
    return entrypoint if isinstance(entrypoint, str) else ""


def _files(directory: Path) -> list[Path]:
    found = [directory / root / name for root in _SOURCE_ROOTS for name in _FILES]
    for name in _GATEWAYS:
        found += [directory / root / place / name for root in _SOURCE_ROOTS for place in (".", "app")]
        if (directory / "manage.py").is_file():
            found += sorted(directory.glob(f"*/{name}"))
    return [path for path in dict.fromkeys(found) if path.is_file()]


# -- reading one file --------------------------------------------------------------------------------------------------


def _best(path: Path) -> _Found | None:
    """The likeliest app that the file defines at its top level; None where nothing looks like one."""
    tree = _parse(path)
    if tree is None:
        return None
    found: list[_Found] = []
    for statement in _top_level(tree.body):
        found += _in_statement(statement)
    return min(found, key=lambda each: (each.rank, _place(each.name)), default=None)


def _parse(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # the import in the worker shows the error with its line


def _top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that run at import, those under `if`, `try` and `with` too."""
    flat: list[ast.stmt] = []
    for statement in body:
        flat.append(statement)
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                flat += _top_level(getattr(statement, inner, []))
    return flat


def _in_statement(statement: ast.stmt) -> list[_Found]:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        maker = _maker(statement.value)
        if maker:
            return [_Found(0 if name in APP_NAMES else 1, name, f"{maker} app") for name in names]
        return [_Found(2, name, "the name") for name in names if name in APP_NAMES]
    if isinstance(statement, ast.AsyncFunctionDef):
        arguments = [argument.arg for argument in statement.args.args]
        if arguments == ["scope", "receive", "send"]:
            return [_Found(0 if statement.name in APP_NAMES else 1, statement.name, "ASGI function")]
    if isinstance(statement, ast.FunctionDef) and [argument.arg for argument in statement.args.args] == ["environ", "start_response"]:
        return [_Found(0 if statement.name in APP_NAMES else 1, statement.name, "WSGI function")]
    if isinstance(statement, ast.FunctionDef) and statement.name in FACTORY_NAMES and not _required(statement.args):
        return [_Found(4, statement.name, "factory")]
    if isinstance(statement, ast.ImportFrom):
        names = [alias.asname or alias.name for alias in statement.names]
        return [_Found(3, name, "imported name") for name in names if name in APP_NAMES]
    return []


def _maker(value: ast.expr | None) -> str:
    if not isinstance(value, ast.Call):
        return ""
    called = value.func
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return _MAKERS.get(name, "")


def _required(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def _place(name: str) -> int:
    return APP_NAMES.index(name) if name in APP_NAMES else len(APP_NAMES)


def _imports(path: Path, package: str) -> bool:
    """Whether the file imports its own directory as a package: relatively, or `from app.db import x` with a db beside it.

    A directory named like a library (redis/main.py with `import redis`) must not be taken for it.
    """
    tree = _parse(path)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)] if tree is not None else []
    for node in imports:
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            return True
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for module in modules:
            top, _, rest = module.partition(".")
            beside = path.parent / rest.partition(".")[0]
            if top == package and rest and (beside.is_dir() or beside.with_suffix(".py").is_file()):
                return True
    return False
