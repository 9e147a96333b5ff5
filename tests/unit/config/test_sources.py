"""Where settings come from, and which source wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cavalcade.config import checks
from cavalcade.config.sources import Resolved, resolve
from cavalcade.config.values import OPTIONS
from cavalcade.errors import ConfigError

Resolve = Callable[..., Resolved]


@pytest.fixture
def settled(tmp_path: Path) -> Resolve:
    """`resolve` in a directory of its own: `pyproject` and `toml` are the texts of its files."""

    def settle(
        cli: Mapping[str, object] | None = None, *, env: Mapping[str, str] | None = None, pyproject: str = "", toml: str = ""
    ) -> Resolved:
        if pyproject:
            (tmp_path / "pyproject.toml").write_text(pyproject)
        if toml:
            (tmp_path / "cavalcade.toml").write_text(toml)
        return resolve(cli or {}, cwd=tmp_path, environ=env or {}, root=tmp_path / "no-cgroups")

    return settle


def problems(settled: Resolve, *args: object, **sources: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settled(*args, **sources)
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_without_any_source_the_defaults_stand(settled: Resolve) -> None:
    resolved = settled()
    assert resolved.settings.workers == 1
    assert resolved.settings.bind == ("127.0.0.1:8000",)
    assert set(resolved.origins.values()) == {"default"}
    assert resolved.notes == []


# What is no value of these, or does nothing without another option.
SAMPLES = {
    "app_dir": ".",
    "root_path": "/x",
    "mount_path": "/x",
    "trusted_proxies": "10.0.0.0/8",
    "forwarded_headers": "forwarded",
    "static": "/x=.",
    "ssl_sni": "a.example=c:k",
    "admin": "127.0.0.1:1",
    "admin_token": "0123456789abcdef",
    "admin_token_file": "token",
    "admin_open": "health",
    "limit_request_head": "64K",
    "log_config": "log.json",
    "access_log_format": "common",
}
NEEDS = {
    "ssl": {"CAVALCADE_SSL_CERTFILE": "c", "CAVALCADE_SSL_CERT_REQS": "required", "CAVALCADE_SSL_CA_CERTS": "c"},
    "admin": {"CAVALCADE_ADMIN": "127.0.0.1:1"},
    "statsd": {"CAVALCADE_STATSD_HOST": "127.0.0.1"},
    "dogstatsd": {"CAVALCADE_STATSD_HOST": "127.0.0.1"},
}
BY_KIND = {"int": "7", "seconds": "7s", "bytes": "7K", "text": "x", "texts": "x"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_its_variable(settled: Resolve, tmp_path: Path, name: str) -> None:
    (tmp_path / "log.json").write_text("{}")
    (tmp_path / "token").write_text(SAMPLES["admin_token"])
    option, variable = OPTIONS[name], f"CAVALCADE_{name.upper()}"
    by_kind = {**BY_KIND, "flag": "no" if option.default else "yes", "choice": option.choices[-1] if option.choices else ""}
    needs = NEEDS.get(name.partition("_")[0], {})
    assert settled(env={**needs, variable: SAMPLES.get(name, by_kind[option.kind])}).origins[name] == variable


def test_each_source_wins_over_those_before_it_and_is_remembered(settled: Resolve) -> None:
    layers: list[tuple[str, dict[str, object]]] = [
        ("WEB_CONCURRENCY", {"env": {"WEB_CONCURRENCY": "2"}}),
        ("pyproject.toml:2", {"pyproject": "[tool.cavalcade]\nworkers = 3\n"}),
        ("cavalcade.toml:1", {"toml": "workers = 4\n"}),
        ("CAVALCADE_WORKERS", {"env": {"WEB_CONCURRENCY": "2", "CAVALCADE_WORKERS": "5"}}),
        ("--workers", {"cli": {"workers": "6"}}),
    ]
    given: dict[str, object] = {}
    for number, (origin, layer) in enumerate(layers, start=2):
        given |= layer
        resolved = settled(**given)
        assert resolved.settings.workers == number
        assert resolved.origins["workers"] == origin


def test_a_config_file_named_by_hand_replaces_cavalcade_toml(settled: Resolve, tmp_path: Path) -> None:
    (tmp_path / "prod.toml").write_text("workers = 7\n")
    toml = "workers = 3\n"
    assert settled({"config": "prod.toml"}, toml=toml).origins["workers"] == "prod.toml:1"
    assert settled(env={"CAVALCADE_CONFIG": "prod.toml"}, toml=toml).settings.workers == 7
    assert problems(settled, {"config": "gone.toml"}) == ['--config: "gone.toml" is not a file']


def test_a_pyproject_named_as_config_is_read_by_its_tool_table(settled: Resolve) -> None:
    pyproject = '[project]\nname = "x"\n[tool.cavalcade]\nworkers = 3\n'
    assert settled({"config": "pyproject.toml"}, pyproject=pyproject).settings.workers == 3


def test_all_problems_of_all_sources_are_reported_at_once_with_file_line_and_advice(settled: Resolve) -> None:
    found = problems(
        settled,
        {"wrokers": "4", "keep_alive": "soon"},
        env={"PORT": "abc", "CAVALCADE_WROKERS": "1", "CAVALCADE_LOG_LEVEL": "loud"},
        pyproject='[project]\nname = "x"\n\n[tool.cavalcade]\nworkers = 0\ntimeout = 3\n',
        toml='port = "80"\n# a comment\nacces_log = true\n"head-timeout" = "x"\n[log]\nlevel = 1\n',
    )
    assert found == [
        'PORT: must be a whole number, not "abc"',
        "pyproject.toml:5: workers must be 1 or more, not 0",
        'pyproject.toml:6: unknown option "timeout"; use request_timeout for an app that hangs, stall_kill for a blocked loop, '
        "body_timeout and write_timeout for clients",
        'cavalcade.toml:1: port must be a number, not the text "80": take the quotes away',
        'cavalcade.toml:3: unknown option "acces_log"; did you mean access_log?',
        'cavalcade.toml:4: head-timeout must be a duration such as 30s, 250ms, 5m or a number of seconds, not "x"',
        "cavalcade.toml:5: options are not in tables: take [log] away and write its keys at the top",
        'CAVALCADE_LOG_LEVEL: must be one of debug, info, warning, error, critical, not "loud"',
        "CAVALCADE_WROKERS: unknown option; did you mean CAVALCADE_WORKERS?",
        "--wrokers: unknown option; did you mean --workers?",
        '--keep-alive: must be a duration such as 30s, 250ms, 5m or a number of seconds, not "soon"',
    ]


def test_a_file_that_is_no_toml_is_one_problem_with_its_line(settled: Resolve) -> None:
    (problem,) = problems(settled, toml="workers = 4\nx = = 2\n")
    assert problem.startswith("cavalcade.toml:2: is not valid TOML: ")


def test_the_error_knows_the_log_format_that_was_asked_for(settled: Resolve) -> None:
    with pytest.raises(ConfigError) as caught:
        settled({"nope": "1"}, toml='log_format = "json"\n')
    assert caught.value.log_format == "json"


def test_an_option_given_twice_in_one_source_is_a_problem(settled: Resolve) -> None:
    (problem,) = problems(settled, toml='keep_alive = "5s"\ntimeout_keep_alive = "6s"\n')
    assert problem == "cavalcade.toml:2: keep_alive is given twice, also by cavalcade.toml:1"


def test_units_work_in_every_source(settled: Resolve) -> None:
    resolved = settled(
        {"keep_alive": "1m"}, env={"CAVALCADE_LIMIT_REQUEST_BODY": "10MB"}, toml='graceful_timeout = "1m30s"\nhead_timeout = 3\n'
    )
    settings = resolved.settings
    assert (settings.keep_alive, settings.limit_request_body) == (60.0, 10_000_000)
    assert (settings.graceful_timeout, settings.head_timeout) == (90.0, 3.0)


def test_an_empty_variable_is_one_that_is_not_set(settled: Resolve) -> None:
    resolved = settled(env={"PORT": "", "WEB_CONCURRENCY": " ", "CAVALCADE_WORKERS": "", "CAVALCADE_BIND": ""})
    assert resolved.settings.workers == 1
    assert resolved.settings.bind == ("127.0.0.1:8000",)


def test_service_links_of_kubernetes_and_build_flags_are_no_options(settled: Resolve) -> None:
    links = {
        "CAVALCADE_PORT": "tcp://10.0.0.7:8000",
        "CAVALCADE_SERVICE_HOST": "10.0.0.7",
        "CAVALCADE_SERVICE_PORT": "8000",
        "CAVALCADE_SERVICE_PORT_HTTP": "8000",
        "CAVALCADE_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "CAVALCADE_PORT_8000_TCP_ADDR": "10.0.0.7",
        "CAVALCADE_PURE": "1",
    }
    assert settled(env=links).settings.port == 8000


def test_files_are_left_alone_when_they_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "cavalcade.toml").write_text("workers = 3\nnonsense = 1\n")
    assert resolve({}, cwd=tmp_path, environ={}, files=False).settings.workers == 1


# -- where to listen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cli", "env", "bind"),
    [
        ({}, {"PORT": "8080"}, ("0.0.0.0:8080",)),
        ({"host": "127.0.0.1"}, {"PORT": "8080"}, ("127.0.0.1:8080",)),
        ({"host": "::1"}, {"PORT": "8080"}, ("[::1]:8080",)),
        ({"port": "9000"}, {"PORT": "8080"}, ("127.0.0.1:9000",)),
        ({"bind": ("unix:/run/x.sock", ":80")}, {"PORT": "8080"}, ("unix:/run/x.sock", "0.0.0.0:80")),
        ({"host": "::", "port": "0"}, {}, ("[::]:0",)),
        ({"bind": ("localhost",)}, {"CAVALCADE_HOST": "10.0.0.1", "CAVALCADE_PORT": "7"}, ("localhost:8000",)),
        ({"port": "9000"}, {"CAVALCADE_BIND": "0.0.0.0:80"}, ("0.0.0.0:9000",)),
        ({"host": "::1"}, {"CAVALCADE_BIND": "0.0.0.0:80"}, ("[::1]:80",)),
        ({"port": "9000"}, {"CAVALCADE_BIND": "0.0.0.0:80,unix:/x"}, ("127.0.0.1:9000",)),
    ],
)
def test_where_to_listen_is_decided_by_the_strongest_source(
    settled: Resolve, cli: dict[str, object], env: dict[str, str], bind: tuple[str, ...]
) -> None:
    assert settled(cli, env=env).settings.bind == bind


def test_bind_and_host_of_equal_rank_contradict_each_other(settled: Resolve) -> None:
    (problem,) = problems(settled, {"bind": ("a:1",), "port": "2", "host": "b"})
    assert problem == "--bind and --host and --port both say where to listen: bind has host and port in one, keep only one of them"


def test_what_an_explicit_bind_overrides_is_told(settled: Resolve) -> None:
    resolved = settled({"bind": ("127.0.0.1:1",)}, env={"PORT": "8080"})
    assert resolved.notes == ["PORT not used: --bind says where to listen"]
    assert resolved.origins["port"] == "not used: bind from --bind"


def test_the_origin_of_bind_names_what_it_was_made_from(settled: Resolve) -> None:
    assert settled(env={"PORT": "8080"}).origins["bind"] == "PORT"
    assert settled({"host": "::1"}, env={"PORT": "8080"}).origins["bind"] == "--host and PORT"
    assert settled({"port": "1"}).origins["bind"] == "--port"


# -- how many workers ----------------------------------------------------------------------------------------------------


def limited(tmp_path: Path, quota: str) -> Path:
    root = tmp_path / "root"
    for name, text in {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
        "sys/fs/cgroup/cpu.max": f"{quota} 100000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_auto_workers_stay_within_the_cgroup_and_the_reasoning_is_noted(tmp_path: Path) -> None:
    resolved = resolve({"workers": "auto"}, cwd=tmp_path, environ={}, root=limited(tmp_path, "150000"))
    assert resolved.settings.workers == 1
    assert resolved.origins["workers"] == "--workers (auto)"
    (note,) = resolved.notes
    assert note.startswith("workers auto: 1 (")
    assert "cgroup CPU limit 1.5" in note


def test_a_web_concurrency_over_the_limit_is_kept_and_warned_of(tmp_path: Path) -> None:
    resolved = resolve({}, cwd=tmp_path, environ={"WEB_CONCURRENCY": "64"}, root=limited(tmp_path, "100000"))
    assert resolved.settings.workers == 64
    (note,) = resolved.notes
    assert note.startswith("WEB_CONCURRENCY=64 is more than the 1 CPUs this process may use")


def test_a_web_concurrency_within_the_limit_is_not_talked_about(tmp_path: Path) -> None:
    resolved = resolve({}, cwd=tmp_path, environ={"WEB_CONCURRENCY": "1"}, root=limited(tmp_path, "100000"))
    assert (resolved.settings.workers, resolved.notes) == (1, [])


@pytest.mark.parametrize(
    ("asked", "there", "said"), [(True, False, True), (True, True, False), (False, False, False), (None, False, False)]
)
def test_http2_that_was_asked_for_and_cannot_be_spoken_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: bool | None, there: bool, said: bool
) -> None:
    monkeypatch.setattr(checks, "installed", lambda module: there or module != "h2")
    resolved = resolve({"http2": asked}, cwd=tmp_path, environ={})
    assert resolved.settings.http2 is (asked is not False)
    notes = ["--http2: HTTP/2 is not spoken, h2 is not installed here: pip install 'cavalcade[http2]'"]
    assert resolved.notes == (notes if said else [])
