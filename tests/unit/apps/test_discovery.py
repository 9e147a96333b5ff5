"""Guessing the app from source files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cavalcade.apps.discovery import discover, from_path, module_of
from cavalcade.errors import UsageError

Project = Callable[..., Path]

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "app", "directory"),
    [
        ({"main.py": FASTAPI}, "main:app", "."),
        ({"app.py": FASTAPI}, "app:app", "."),
        ({"api.py": FASTAPI, "main.py": FASTAPI}, "main:app", "."),
        ({"app/main.py": FASTAPI}, "main:app", "app"),
        ({"app/main.py": FASTAPI, "app/__init__.py": ""}, "app.main:app", "."),
        ({"app/api.py": FASTAPI, "app/__init__.py": ""}, "app.api:app", "."),
        ({"app/main.py": "from app.db import x\n" + FASTAPI, "app/db.py": ""}, "app.main:app", "."),
        ({"app/main.py": "from .db import x\n" + FASTAPI, "app/db.py": ""}, "app.main:app", "."),
        ({"app/main.py": "import app\n" + FASTAPI}, "main:app", "app"),
        ({"src/main.py": FASTAPI}, "main:app", "src"),
        ({"asgi.py": "application = get_asgi_application()\n"}, "asgi:application", "."),
        ({"manage.py": "", "site/__init__.py": "", "site/asgi.py": "application = get_asgi_application()\n"}, "site.asgi:application", "."),
        ({"wsgi.py": "from shop import create\napp = create()\n"}, "wsgi:app", "."),
        ({"wsgi.py": "app = Flask(__name__)\n", "src/asgi.py": FASTAPI}, "asgi:app", "src"),
        ({"app.py": "from flask import Flask\napp = Flask(__name__)\n", "wsgi.py": "from app import app\n"}, "app:app", "."),
        ({"manage.py": "", "site/__init__.py": "", "site/wsgi.py": "application = get_wsgi_application()\n"}, "site.wsgi:application", "."),
        (
            {
                "manage.py": "",
                "site/__init__.py": "",
                "site/asgi.py": "application = get_asgi_application()\n",
                "site/wsgi.py": "application = get_wsgi_application()\n",
            },
            "site.asgi:application",
            ".",
        ),
    ],
)
def test_the_places_of_fastapi_run_are_searched(project: Project, files: dict[str, str], app: str, directory: str) -> None:
    root = project(files)
    guess = discover(root, {})
    assert (guess.app, guess.directory) == (app, (root / directory).resolve())


def test_a_main_without_an_app_does_not_hide_one_further_on(project: Project) -> None:
    guess = discover(project({"main.py": "print('hello')\n", "app/main.py": FASTAPI}), {})
    assert (guess.app, guess.how) == ("main:app", "FastAPI app in app/main.py")


@pytest.mark.parametrize(
    ("code", "app"),
    [
        ("api = FastAPI()\napp = 3\n", "main:api"),
        ("shop = FastAPI()\n", "main:shop"),
        ("shop: FastAPI = fastapi.FastAPI(title='x')\n", "main:shop"),
        ("shop = FastAPI()\napp = FastAPI()\n", "main:app"),
        ("app = wrap(FastAPI())\n", "main:app"),
        ("from shop import application\n", "main:application"),
        ("from shop import thing as app\n", "main:app"),
        ("try:\n    from shop import app\nexcept ImportError:\n    app = None\n", "main:app"),
        ("if True:\n    app = FastAPI()\n", "main:app"),
        ("async def app(scope, receive, send): ...\n", "main:app"),
        ("def app(environ, start_response): ...\n", "main:app"),
        ("shop = Flask(__name__)\n", "main:shop"),
        ("def create_app(config=None): ...\n", "main:create_app"),
        ("def create_app(config): ...\n", "main"),
        ("def helper():\n    app = FastAPI()\n", "main"),
        ("this is not Python\n", "main"),
    ],
)
def test_the_likeliest_name_in_a_file_is_taken(project: Project, code: str, app: str) -> None:
    assert discover(project({"main.py": code}), {}).app == app


def test_reading_never_runs_the_code(project: Project) -> None:
    assert discover(project({"main.py": "raise SystemExit('imported')\n" + FASTAPI}), {}).app == "main:app"


def test_the_entrypoint_of_fastapi_comes_first(project: Project) -> None:
    root = project({"main.py": FASTAPI, "pyproject.toml": '[tool.fastapi]\nentrypoint = "shop.web:app"\n'})
    guess = discover(root, {})
    assert (guess.app, guess.directory) == ("shop.web:app", root)
    assert guess.how == "[tool.fastapi] entrypoint in pyproject.toml"


def test_nothing_found_says_where_it_looked_and_how_to_name_the_app(project: Project) -> None:
    with pytest.raises(UsageError) as caught:
        discover(project({"notes.txt": ""}), {})
    assert caught.value.exit_code == 2
    assert "looked for main.py, app.py, api.py, app/main.py" in caught.value.cause
    assert "cavalcade module:attribute" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "app", "directory"),
    [
        ("main.py", "main:app", "."),
        ("./main.py:other", "main:other", "."),
        ("web/site.py:app", "site:app", "web"),
        ("pack/inner/main.py", "pack.inner.main:app", "."),
        ("pack/inner", "pack.inner", "."),
    ],
)
def test_a_file_is_turned_into_its_module(project: Project, text: str, app: str, directory: str) -> None:
    files = {
        "main.py": FASTAPI,
        "web/site.py": FASTAPI,
        "pack/__init__.py": "",
        "pack/inner/__init__.py": "",
        "pack/inner/main.py": FASTAPI,
    }
    root = project(files)
    guess = from_path(text, root)
    assert guess is not None
    assert (guess.app, guess.directory) == (app, (root / directory).resolve())


def test_a_module_is_not_taken_for_a_file(project: Project) -> None:
    assert from_path("main:app", project({"main.py": FASTAPI})) is None


def test_a_file_that_is_not_there_is_told(project: Project) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        from_path("gone.py", project({}))


def test_a_directory_named_like_a_library_is_not_a_package(project: Project) -> None:
    root = project({"redis/main.py": "import redis\nimport redis.asyncio\n" + FASTAPI})
    assert module_of(root / "redis/main.py") == ("main", (root / "redis").resolve())


FLASK = "from flask import Flask\napp = Flask(__name__)\n"
DJANGO = {"shop/__init__.py": "", "shop/settings.py": 'WSGI_APPLICATION = "shop.wsgi.application"\n'}
ASGI, WSGI = "application = get_asgi_application()\n", "application = get_wsgi_application()\n"


@pytest.mark.parametrize(
    ("files", "environ", "app", "directory"),
    [
        ({"hello.py": FLASK}, {"FLASK_APP": "hello"}, "hello", "."),
        ({"hello.py": FLASK, "main.py": FASTAPI}, {"FLASK_APP": "hello:app"}, "hello:app", "."),
        ({"hello.py": FLASK}, {"FLASK_APP": "hello.py"}, "hello:app", "."),
        ({"hello.py": FLASK}, {"FLASK_APP": "hello:make('test')"}, "hello:make('test')", "."),
        ({"web/__init__.py": FLASK}, {"FLASK_APP": "web"}, "web", "."),
        ({"src/hello.py": FLASK}, {"FLASK_APP": "src/hello.py:app"}, "hello:app", "src"),
        ({}, {"FLASK_APP": "flask.testing"}, "flask.testing", "."),
        ({"main.py": FASTAPI}, {"FLASK_APP": " "}, "main:app", "."),
        ({**DJANGO, "shop/wsgi.py": WSGI}, {"DJANGO_SETTINGS_MODULE": "shop.settings"}, "shop.wsgi:application", "."),
        ({**DJANGO, "shop/wsgi.py": WSGI, "shop/asgi.py": ASGI}, {"DJANGO_SETTINGS_MODULE": "shop.settings"}, "shop.asgi:application", "."),
        (
            {"shop/settings/prod.py": "", "shop/wsgi.py": WSGI},
            {"DJANGO_SETTINGS_MODULE": "shop.settings.prod"},
            "shop.wsgi:application",
            ".",
        ),
        (
            {"src/shop/settings.py": "", "src/shop/wsgi.py": WSGI},
            {"DJANGO_SETTINGS_MODULE": "shop.settings"},
            "shop.wsgi:application",
            "src",
        ),
        (DJANGO, {"DJANGO_SETTINGS_MODULE": "shop.settings"}, "shop.wsgi:application", "."),
        ({**DJANGO, "shop/wsgi.py": WSGI, "main.py": FASTAPI}, {"DJANGO_SETTINGS_MODULE": "shop.settings"}, "main:app", "."),
    ],
)
def test_the_variables_of_flask_and_django_name_the_app(
    project: Project, files: dict[str, str], environ: dict[str, str], app: str, directory: str
) -> None:
    root = project(files)
    guess = discover(root, environ)
    assert (guess.app, guess.directory) == (app, (root / directory).resolve())
    if app != "main:app":
        assert guess.how == "{}={} in the environment".format(*next(iter(environ.items())))


@pytest.mark.parametrize(
    ("environ", "cause"),
    [
        ({"FLASK_APP": "gone.py"}, "FLASK_APP=gone.py: There is no file"),
        ({"FLASK_APP": "gone:app"}, "FLASK_APP=gone:app: there is no module gone in"),
        ({"FLASK_APP": "no name"}, "FLASK_APP=no name is not a name of an app"),
        ({"DJANGO_SETTINGS_MODULE": "gone.settings"}, "DJANGO_SETTINGS_MODULE=gone.settings: there is no file gone/settings.py in"),
        ({"DJANGO_SETTINGS_MODULE": "shop/settings.py"}, "DJANGO_SETTINGS_MODULE=shop/settings.py is not a name of a module"),
        ({"DJANGO_SETTINGS_MODULE": "shop.settings"}, "DJANGO_SETTINGS_MODULE=shop.settings: there is no asgi.py or wsgi.py with an app"),
    ],
)
def test_a_variable_that_names_nothing_is_an_error_that_says_so(project: Project, environ: dict[str, str], cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        discover(project({"shop/settings.py": ""}), environ)
    assert caught.value.cause.startswith(cause)
    assert caught.value.fix
