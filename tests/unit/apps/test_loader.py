"""Loading an app: what is served, and what a person reads where it cannot be."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cavalcade.apps import frames, loader
from cavalcade.apps.loader import LoadedApp, Reference, load, parse
from cavalcade.config.options import Settings
from cavalcade.errors import AppLoadError

Project = Callable[..., Path]

ASGI = "async def app(scope, receive, send): ...\n"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Writes files; what is imported from them is forgotten after the test."""
    modules, path, own = set(sys.modules), sys.path[:], set(frames._own_packages)

    def write(**files: str) -> Path:
        for name, text in files.items():
            file = tmp_path / (name.replace("__", "/") + ".py" if not name.endswith("init") else name.replace("__init", "/__init__.py"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return tmp_path

    yield write
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path[:] = path
    frames._own_packages.clear()
    frames._own_packages.update(own)


def opened(directory: Path, app: str, **options: Any) -> LoadedApp:
    return load(Settings(app=app, app_dir=str(directory), **options))


def refused(directory: Path, app: str, **options: Any) -> AppLoadError:
    with pytest.raises(AppLoadError) as caught:
        opened(directory, app, **options)
    assert caught.value.exit_code == 3
    assert loader.being_imported() == ""
    assert "cavalcade/apps" not in caught.value.trace
    assert "importlib" not in caught.value.trace
    return caught.value


# -- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("main", Reference("main")),
        ("main:app", Reference("main", ("app",))),
        ("a.b.c:x.y", Reference("a.b.c", ("x", "y"))),
        ("main:make()", Reference("main", ("make",), ((), {}))),
        ("main:make('prod', debug=True)", Reference("main", ("make",), (("prod",), {"debug": True}))),
    ],
)
def test_a_reference_is_a_module_a_path_and_perhaps_a_call(text: str, reference: Reference) -> None:
    assert parse(text) == reference


@pytest.mark.parametrize("text", ["", ":app", "main:", "main:app[0]", "main:make(x)", "a-b:app", "main:1", "main:app:app", "main.:x"])
def test_what_is_no_reference_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(AppLoadError) as caught:
        parse(text)
    assert "for example main:app" in caught.value.fix


# -- found -----------------------------------------------------------------------------------------------------------------


def test_a_fastapi_app_is_loaded_by_its_name(project: Project) -> None:
    loaded = opened(project(main=FASTAPI), "main:app")
    assert (loaded.name, loaded.kind, loaded.notes) == ("main:app", "FastAPI", ())
    assert loaded.import_s > 0


def test_a_dotted_attribute_is_followed(project: Project) -> None:
    loaded = opened(project(main="class Box:\n    async def run(self, scope, receive, send): ...\nbox = Box()\n"), "main:box.run")
    assert loaded.name == "main:box.run"


def test_a_bare_module_is_searched_and_the_choice_is_told(project: Project) -> None:
    loaded = opened(project(main="application = None\napp = 3\n" + ASGI.replace("app", "api")), "main")
    assert loaded.name == "main:api"
    assert loaded.notes == ("main names no app; serving main:api. Pin it: cavalcade main:api",)


def test_a_bare_module_with_one_framework_app_under_any_name_is_enough(project: Project) -> None:
    assert opened(project(main="from fastapi import FastAPI\nshop = FastAPI()\n"), "main").name == "main:shop"


def test_a_factory_is_called(project: Project) -> None:
    directory = project(main=FASTAPI + "def make(): return app\n")
    assert opened(directory, "main:make", factory=True).kind == "FastAPI"
    assert opened(directory, "main:make()").notes == ()


def test_a_factory_that_nobody_declared_is_called_and_told(project: Project) -> None:
    loaded = opened(project(main=FASTAPI + "def make(): return app\n"), "main:make")
    assert loaded.kind == "FastAPI"
    assert loaded.notes == ("main:make is a factory: called it, and serving the FastAPI app it made. Say so with --factory.",)


def test_a_factory_takes_literal_arguments(project: Project) -> None:
    directory = project(main=ASGI + "seen = []\ndef make(name, *, debug): seen.append((name, debug)); return app\n")
    opened(directory, "main:make('x', debug=True)")
    assert sys.modules["main"].seen == [("x", True)]


def test_an_asgi_2_app_is_adapted(project: Project) -> None:
    code = "class App:\n    def __init__(self, scope): ...\n    async def __call__(self, receive, send): ...\n"
    assert opened(project(main=code), "main:App").app is not sys.modules["main"].App


# -- the module is not there -------------------------------------------------------------------------------------------------


def test_a_missing_module_names_the_directory_the_python_and_a_near_name(project: Project) -> None:
    directory = project(main=ASGI, other="")
    error = refused(directory, "mian:app")
    assert error.cause == f'No module named "mian" in {directory}  (python: {sys.executable})'
    assert error.fix == "Did you mean main:app?"


def test_a_missing_module_without_near_names_lists_what_is_there(project: Project) -> None:
    assert refused(project(main=ASGI, other=""), "zzz:app").fix == "Modules there: main, other."


def test_a_module_one_directory_down_is_pointed_at(project: Project) -> None:
    assert refused(project(src__main=ASGI), "main:app").fix == "It is in src/: cavalcade main:app --app-dir src"


def test_a_dot_in_place_of_a_colon_is_understood(project: Project) -> None:
    error = refused(project(main=ASGI), "main.app")
    assert "main is a single file, not a package" in error.cause
    assert error.fix == "cavalcade main:app"


def test_a_missing_submodule_is_looked_for_in_its_package(project: Project) -> None:
    assert refused(project(shop__init="", shop__main=ASGI), "shop.mian:app").fix == "Did you mean shop.main:app?"


# -- its code fails ------------------------------------------------------------------------------------------------------------


def test_a_missing_import_of_the_app_is_told_apart_and_names_the_package(project: Project) -> None:
    error = refused(project(main="import yaml_not_here\n"), "main:app")
    assert error.cause == (
        "main was found, but main.py line 1 failed:  import yaml_not_here  "
        f"(ModuleNotFoundError: No module named 'yaml_not_here'; python: {sys.executable})"
    )
    assert error.fix == "Is this the right virtual environment?  pip install yaml_not_here"
    assert error.trace == ""


def test_a_missing_import_deeper_down_shows_the_way_there(project: Project) -> None:
    error = refused(project(main="import dbase\n", dbase="import cv2\n"), "main:app")
    assert "dbase.py line 1 failed:  import cv2" in error.cause
    assert error.fix.endswith("pip install opencv-python-headless")
    assert error.trace.count('File "') == 2


def test_a_misspelt_import_of_the_users_own_module_gets_the_near_name(project: Project) -> None:
    assert refused(project(main="import databse\n", database=""), "main:app").fix == "Did you mean database?"


def test_a_missing_part_of_an_installed_package_is_no_reason_to_install_it(project: Project) -> None:
    assert refused(project(main="import fastapi\nimport fastapi.routng\n"), "main:app").fix == "Did you mean fastapi.routing?"
    assert refused(project(other="import fastapi.zzzzz\n"), "other:app").fix == "fastapi is installed, but not this part of it."


def test_an_app_started_from_inside_its_package_is_sent_one_up(project: Project) -> None:
    directory = project(shop__main="from .db import x\n", shop__db="x = 1\n", shop__abs="from shop.db import x\n") / "shop"
    assert refused(directory, "main:app").fix == f"Import it as part of its package: cavalcade shop.main:app --app-dir {directory.parent}"
    assert refused(directory, "abs:app").fix.startswith("shop is the directory itself; run from above it: cavalcade shop.abs:app")


def test_an_exception_at_import_shows_the_users_frames_only(project: Project) -> None:
    error = refused(project(main="import json\nimport work\n", work="def f():\n    json_fails()\nf()\n"), "main:app")
    assert error.cause == "Importing main failed at work.py line 2: NameError: name 'json_fails' is not defined"
    assert [line.strip() for line in error.trace.splitlines() if "File" in line] == [
        f'File "{project()}/main.py", line 2, in <module>',
        f'File "{project()}/work.py", line 3, in <module>',
        f'File "{project()}/work.py", line 2, in f',
    ]


def test_a_syntax_error_is_shown_with_its_line(project: Project) -> None:
    error = refused(project(main="def app(:\n"), "main:app")
    assert error.cause.startswith("main.py line 1 is not valid Python: ")
    assert "def app(:" in error.trace


def test_a_long_exception_message_is_one_line_in_the_cause_and_whole_in_the_trace(project: Project) -> None:
    error = refused(project(main="raise ValueError('first\\nsecond')\n"), "main:app")
    assert error.cause == "Importing main failed at main.py line 1: ValueError: first ..."
    assert "second" in error.trace


def test_sys_exit_at_import_is_a_failure_with_advice(project: Project) -> None:
    error = refused(project(main="import sys\nsys.exit(0)\n"), "main:app")
    assert error.cause == "main called sys.exit(0) while it was imported at main.py line 2."
    assert '__name__ == "__main__"' in error.fix


def test_an_exception_outside_of_exception_is_a_failure_too(project: Project) -> None:
    assert "Stop" in refused(project(main="class Stop(BaseException): ...\nraise Stop\n"), "main:app").cause


def test_ctrl_c_during_import_passes(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(project(main="raise KeyboardInterrupt\n"), "main:app")
    assert loader.being_imported() == ""


def test_a_run_without_a_guard_is_told_to_get_one(project: Project) -> None:
    error = refused(project(main=f"{ASGI}import cavalcade\ncavalcade.run('main:app')\n"), "main:app")
    assert error.cause == "cavalcade.run() was called while main:app was being imported by the server itself."
    assert error.fix == 'Put the call under:  if __name__ == "__main__":'
    assert "main.py" in error.trace


# -- the attribute is not there or is something else ---------------------------------------------------------------------------


def test_a_missing_attribute_lists_what_is_defined_and_the_nearest(project: Project) -> None:
    directory = project(main=FASTAPI + "def create_app(): return app\n")
    error = refused(directory, "main:ap")
    assert error.cause == (
        f'"main:ap": module main ({directory}/main.py) has no attribute "ap". It does define: app (FastAPI), create_app (function).'
    )
    assert error.fix == "cavalcade main:app"


def test_the_only_app_of_a_module_is_offered_however_it_is_named(project: Project) -> None:
    assert refused(project(main="from fastapi import FastAPI\nshop = FastAPI()\n"), "main:app").fix == "cavalcade main:shop"


def test_a_missing_inner_attribute_names_its_owner(project: Project) -> None:
    assert refused(project(main=ASGI), "main:app.inner").cause.startswith('"main:app.inner": main:app has no attribute "inner".')


def test_an_attribute_that_is_a_module_of_the_package_is_told(project: Project) -> None:
    error = refused(project(shop__init="", shop__main=ASGI), "shop:main")
    assert error.fix == "main is a module of the package: cavalcade shop.main"


def test_a_module_without_or_with_several_apps_is_not_guessed_at(project: Project) -> None:
    assert "defines no app" in refused(project(empty="x = 1\n"), "empty").cause
    error = refused(project(two="from fastapi import FastAPI\na = FastAPI()\nb = FastAPI()\n"), "two")
    assert error.cause.endswith("defines several apps: a, b.")
    assert error.fix == "Say which: cavalcade two:a  or  cavalcade two:b"


@pytest.mark.parametrize(
    ("code", "cause", "fix"),
    [
        ("app = 3", "main:app is an int, not an app.", "Name an app"),
        ("app = None", "main:app is a NoneType, not an app.", "Name an app"),
        ("import json as app", "main:app is a module, not an app.", "cavalcade main.app:app"),
        ("class app: ...", "main:app is a class, not an app made from it.", "app = TheClass()"),
        ("from fastapi import FastAPI as app", "main:app is a class, not an app made from it.", "app = TheClass()"),
        ("from fastapi import APIRouter\napp = APIRouter()", "main:app is an APIRouter, not an app.", "include_router"),
        ("async def app(): ...", "main:app is an async function without arguments: a factory must not be async.", "plain def"),
        (
            "def app(request): ...",
            "main:app is a function that takes (request); an ASGI app takes (scope, receive, send), "
            "a WSGI app (environ, start_response), a factory nothing.",
            "defaults",
        ),
        ("def app(): return 3", "main:app is an int, not an app.", "Name an app"),
        ("def app(): return app", "main:app made another factory, not an app.", "Return the app itself."),
    ],
)
def test_the_wrong_kind_of_object_is_named_with_what_to_do(project: Project, code: str, cause: str, fix: str) -> None:
    error = refused(project(main=code + "\n"), "main:app")
    assert error.cause == cause
    assert fix in error.fix


WSGI_APPS = {
    "function": "def app(environ, start_response): ...",
    "flask": "from flask import Flask\napp = Flask(__name__)",
    "django": "from django.core.handlers.wsgi import WSGIHandler\napp = WSGIHandler.__new__(WSGIHandler)",
    "class, made for each request": "class app:\n  def __init__(self, environ, start_response): ...\n  def __iter__(self): ...",
    "object": "class A:\n    def __call__(self, environ, start_response): ...\napp = A()",
    "factory": "def app():\n    return lambda environ, start_response: []",
}


@pytest.mark.parametrize("name", WSGI_APPS)
def test_a_wsgi_app_is_told_from_an_asgi_app(project: Project, name: str) -> None:
    directory = project(main=WSGI_APPS[name] + "\n")
    assert opened(directory, "main:app").interface == "wsgi"
    assert opened(directory, "main:app", interface="wsgi").interface == "wsgi"


@pytest.mark.parametrize("name", WSGI_APPS)
def test_a_wsgi_app_that_is_asked_for_as_asgi_is_refused(project: Project, name: str) -> None:
    error = refused(project(main=WSGI_APPS[name] + "\n"), "main:app", interface="asgi")
    assert "is a WSGI app (" in error.cause
    assert "--interface asgi" in error.cause
    assert "Leave --interface out" in error.fix or "leave --interface out" in error.fix


def test_an_asgi_app_that_is_asked_for_as_wsgi_is_refused(project: Project) -> None:
    directory = project(main="from fastapi import FastAPI\napp = FastAPI()\n")
    assert (
        refused(directory, "main:app", interface="wsgi").cause == "main:app is an ASGI app (FastAPI), and --interface wsgi was asked for."
    )


def test_an_app_that_takes_anything_is_what_it_is_said_to_be(project: Project) -> None:
    directory = project(main="def app(*args): ...\n")
    assert opened(directory, "main:app").interface == "asgi"
    assert opened(directory, "main:app", interface="wsgi").interface == "wsgi"


def test_a_lifespan_cannot_be_asked_of_a_wsgi_app(project: Project) -> None:
    assert "WSGI has no lifespan" in refused(project(main=WSGI_APPS["function"] + "\n"), "main:app", lifespan="on").cause


def test_threads_that_an_asgi_app_does_not_use_are_told(project: Project) -> None:
    directory = project(main="from fastapi import FastAPI\napp = FastAPI()\n")
    assert "--threads 4 is not used" in opened(directory, "main:app", threads=4).notes[0]
    assert opened(project(other=WSGI_APPS["function"] + "\n"), "other:app", threads=4).notes == ()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("def make(n, *, m): ...", "The factory main:make needs arguments: n, m."),
        ("def make(): ...", "The factory main:make returned None."),
        ("def make(): 1 / 0", "The factory main:make failed at main.py line 1: ZeroDivisionError: division by zero"),
        ("def make(): raise SystemExit(1)", "The factory main:make failed at main.py line 1: SystemExit: 1"),
        ("async def make(): ...", "main:make is an async function: a factory must not be."),
        ("make = 3", "main:make is not a factory but an int, which cannot be called."),
        ("from fastapi import FastAPI\nmake = FastAPI()", "main:make is a FastAPI app, not a factory."),
    ],
)
def test_a_declared_factory_that_cannot_be_one_is_refused(project: Project, code: str, cause: str) -> None:
    assert refused(project(main=code + "\n"), "main:make", factory=True).cause == cause


def test_a_ready_object_gets_the_same_checks() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert loader.usable(app, "the app", Settings()).app is app
    with pytest.raises(AppLoadError, match="the app is an int, not an app"):
        loader.usable(3, "the app", Settings())
    with pytest.raises(AppLoadError, match="a function without arguments"):
        loader.usable(lambda: app, "the app", Settings())
