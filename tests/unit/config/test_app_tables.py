"""`[[app]]` tables as they are read: every problem with its table and key, and what stands for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavalcade.config.app_tables import alone
from cavalcade.config.options import AppTable
from cavalcade.config.sources import Resolved, resolve
from cavalcade.errors import ConfigError


def settled(folder: Path, toml: str, name: str = "cavalcade.toml", **cli: object) -> Resolved:
    (folder / name).write_text(toml)
    return resolve(cli, cwd=folder, environ={}, root=folder / "no-cgroups")


def test_tables_are_read_in_their_order_and_named(tmp_path: Path) -> None:
    toml = """
        workers = 2
        [[app]]
        app = "shop:app"
        threads = 4
        [[app]]
        app = "api:make"
        host = ["API.example.org.", "*.example.org"]
        path = "/v1/"
        factory = true
        lifespan = "on"
    """
    resolved = settled(tmp_path, toml)
    api = AppTable(app="api:make", host=("api.example.org", "*.example.org"), path="/v1", factory=True, lifespan="on")
    assert resolved.settings.apps == (AppTable(app="shop:app", threads=4), api)
    assert resolved.settings.app == "shop:app, api:make"
    assert resolved.origins["app"] == "cavalcade.toml:3"
    assert str(api) == "api:make at api.example.org/v1, *.example.org/v1"


def test_the_settings_of_one_alone_are_those_of_its_table_and_the_servers_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "shops").mkdir()
    shop_table = '[[app]]\napp = "shop:make"\npath = "/shop"\nfactory = true\napp_dir = "shops"\n'
    toml = f'workers = 2\nthreads = 3\n{shop_table}[[app]]\napp = "api:app"\n'
    settings = settled(tmp_path, toml).settings
    assert settings.packages == {"shop", "api"}
    shop = alone(settings, settings.apps[0])
    assert (shop.app, shop.apps, shop.factory, shop.app_dir, shop.threads, shop.workers) == ("shop:make", (), True, "shops", 3, 2)
    assert shop.packages == {"shop"}


def test_pyproject_has_them_too_and_an_app_on_the_command_line_is_served_alone(tmp_path: Path) -> None:
    toml = '[[tool.cavalcade.app]]\napp = "shop:app"\n'
    assert settled(tmp_path, toml, "pyproject.toml").settings.apps == (AppTable(app="shop:app"),)
    alone = settled(tmp_path, toml, "pyproject.toml", app="main:app")
    assert (alone.settings.app, alone.settings.apps) == ("main:app", ())
    assert alone.notes == ["pyproject.toml:1: the [[app]] tables are not used: APP says what to serve"]


def test_all_problems_of_all_tables_are_told_at_once(tmp_path: Path) -> None:
    toml = """
        wrokers = 2
        [[app]]
        path = "api"
        [[app]]
        app = "a:app"
        hots = "example.org"
        host = ["example.org:80", "x"]
        [[app]]
        app = "b:app"
        path = "/a/../b"
        threads = -1
        [[app]]
        app = "c:app"
        path = "/c"
        host = "example.org"
        [[app]]
        app = "d:app"
        path = "/c/"
        host = ["other.org", "Example.org"]
        [[app]]
        app = "e:app"
        path = "/e"
        app_dir = "nowhere"
    """
    with pytest.raises(ConfigError) as caught:
        settled(tmp_path, toml)
    assert caught.value.problems == [
        'cavalcade.toml:2: unknown option "wrokers"; did you mean workers?',
        'cavalcade.toml:3: app[1].path "api" must start with "/": write "/api"',
        'cavalcade.toml:3: app[1].app is missing: app = "module:attribute"',
        "cavalcade.toml:5: app[2].hots is unknown; did you mean host?",
        'cavalcade.toml:5: app[2].host "example.org:80" must be a host without a port and a scheme; the ports are those of bind',
        'cavalcade.toml:9: app[3].path "/a/../b" is no path prefix: segments between single slashes, without ., .. and percent-encoding',
        "cavalcade.toml:9: app[3].threads must be 0 or more, not -1",
        "cavalcade.toml:17: app[5] is for example.org at /c, and so is app[4]: keep one of them",
        'cavalcade.toml:3: app[6].app_dir "nowhere" is not a directory',
    ]
