"""`cavalcade deploy`: what it prints, writes and refuses. That the files are good is what tests/proxies/ shows, with their tools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cavalcade.cli.main import main
from cavalcade.deploy.targets import TARGETS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an app, and an environment that configures nothing."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "main.py").write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith("CAVALCADE_") or name in ("PORT", "WEB_CONCURRENCY", "FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name)
    return folder


def text_of(capsys: Capture, *words: str) -> str:
    assert main(["deploy", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, *words: str) -> str:
    assert main(["deploy", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_prints_files_without_a_placeholder_left(capsys: Capture, target: str) -> None:
    text = text_of(capsys, target, "main:app")
    assert "{{" not in text
    assert f"made by: cavalcade deploy {target} main:app" in text
    assert "drain_delay         10s" in text


def test_the_app_is_found_as_ever_and_notes_go_to_stderr(capsys: Capture) -> None:
    assert main(["deploy", "kubernetes"]) == 0
    captured = capsys.readouterr()
    assert '- "main:app"' in captured.out
    assert "note: Serving main:app, found as" in captured.err
    assert "note: --drain-delay 10s is written" in captured.err


def test_several_apps_stay_in_their_file(capsys: Capture, here: Path) -> None:
    (here / "cavalcade.toml").write_text('[[app]]\napp = "main:app"\n[[app]]\napp = "main:app"\npath = "/old"\n')
    text = text_of(capsys, "nginx")
    assert "made by: cavalcade deploy nginx; make it anew" in text
    assert "\n#   cavalcade --bind 127.0.0.1:8000 --drain-delay" in text


def test_kubernetes_grants_more_than_the_server_takes(capsys: Capture) -> None:
    text = text_of(capsys, "kubernetes", "main:app", "--drain-delay", "20s", "--graceful-timeout", "1m", "--boot-timeout", "2m", "-w", "3")
    assert "terminationGracePeriodSeconds: 85 " in text
    for line in ('- "20s"', '- "60s"', 'requests: {cpu: "3", memory: 1024Mi}', "failureThreshold: 68", "replicas: 3", '- "0.0.0.0:8000"'):
        assert line in text
    assert "preStop:" not in text


def test_systemd_has_the_service_and_its_sockets_each_under_its_name(capsys: Capture, here: Path) -> None:
    text = text_of(capsys, "systemd", "main:app", "--bind", "[::1]:9000", "--bind", "unix:/run/shop/a.sock?mode=666", "--stall-kill", "1m")
    first, second = text.split("# ==> shop.socket <==\n")
    assert first.startswith("# ==> shop.service <==\n# systemd unit of main:app")
    for line in ("TimeoutStartSec=75s", "TimeoutStopSec=45s", "WatchdogSec=90s", f"WorkingDirectory={here}", "KillMode=mixed"):
        assert f"\n{line}\n" in first
    assert "cavalcade main:app --bind '[::1]:9000' --bind" not in first, "systemd is no shell"
    assert "ListenStream=[::1]:9000\nListenStream=/run/shop/a.sock\n" in second
    assert "\nSocketMode=0666\n" in second


def test_what_a_unit_would_expand_is_written_twice(capsys: Capture) -> None:
    text = text_of(capsys, "systemd", "main:app", "--root-path", "/a b$c%d", "--name", "shop")
    assert ' --root-path "/a b$$c%%d"' in text


@pytest.mark.parametrize(
    ("proxy", "lines"),
    [
        (
            "nginx",
            ["keepalive_timeout 4s;", "server 198.18.0.1:80 max_fails", "server unix:/a.sock max_fails", "client_max_body_size 1024;"],
        ),
        (
            "haproxy",
            ["pool-purge-delay 4s", "server shop-1 198.18.0.1:80", "server shop-2 /a.sock", "retries 3", "timeout http-request 10s"],
        ),
        ("caddy", ["keepalive 4s", "reverse_proxy 198.18.0.1:80 unix//a.sock {", "max_size 1024"]),
        ("envoy", ["idle_timeout: 4s", 'socket_address: { address: "198.18.0.1", port_value: 80 }', 'pipe: { path: "/a.sock" }']),
    ],
)
def test_a_proxy_is_shorter_of_patience_than_the_server_and_knows_every_instance(capsys: Capture, proxy: str, lines: list[str]) -> None:
    options = ("--drain-delay", "5s", "--limit-request-body", "1KiB", "--upstream", "198.18.0.1:80", "--upstream", "unix:/a.sock")
    text = text_of(capsys, proxy, "main:app", *options)
    for line in lines:
        assert line in text
    # How the servers are to be started stands in the file: the numbers are theirs too.
    numbers = "--drain-delay 5s --graceful-timeout 30s --keep-alive 75s --limit-request-body 1KiB"
    assert f"#   cavalcade main:app {numbers} --trusted-proxies ADDRESS_OF_THIS_PROXY --bind ADDRESS\n" in text


HERE = ("--upstream", "127.0.0.1:1", "--upstream", "unix:/a")
SAID = ("--upstream", "h:1", "--trusted-proxies", "private")


@pytest.mark.parametrize("words", [HERE, SAID], ids=["on this machine", "said"])
def test_whom_the_servers_believe_is_left_alone_where_it_fits_or_is_said(capsys: Capture, words: tuple[str, ...]) -> None:
    assert "ADDRESS_OF_THIS_PROXY" not in text_of(capsys, "nginx", "main:app", *words)


def test_haproxy_speaks_the_proxy_protocol_where_a_server_wants_it(capsys: Capture) -> None:
    text = text_of(capsys, "haproxy", "main:app", "--bind", "0.0.0.0:9000?proxy_protocol=on")
    assert "server shop-1 127.0.0.1:9000 send-proxy-v2 check-send-proxy\n" in text


def test_files_are_written_and_never_over_others_unless_forced(capsys: Capture, here: Path) -> None:
    assert text_of(capsys, "systemd", "main:app", "--output", "etc/units").split() == ["etc/units/shop.service", "etc/units/shop.socket"]
    (here / "etc/units/shop.service").write_text("mine")
    (here / "etc/units/shop.socket").unlink()
    said = refused(capsys, "systemd", "main:app", "-o", "etc/units")
    assert "etc/units/shop.service is there already." in said
    assert "--force" in said
    assert not (here / "etc/units/shop.socket").exists(), "all or none"
    text_of(capsys, "systemd", "main:app", "-o", "etc/units", "--force")
    assert (here / "etc/units/shop.service").read_text().startswith("# systemd unit")


def test_a_directory_that_cannot_be_made_is_said_so(capsys: Capture, here: Path) -> None:
    said = refused(capsys, "nginx", "main:app", "-o", "main.py/there")
    assert "cannot be written: Not a directory." in said
    assert "--output with another directory" in said


@pytest.mark.parametrize(
    ("words", "cause", "fix"),
    [
        ([], "Files for what?", "cavalcade deploy TARGET [APP]"),
        (["kubernets"], 'There is no target "kubernets".', "Did you mean kubernetes?"),
        (["k8s", "main:app"], 'There is no target "k8s".', "Did you mean kubernetes?"),
        (["main:app"], 'There is no target "main:app".', "an APP comes after the target"),
        (["nginx", "main:app", "--image", "x"], "--image means nothing to nginx.", "It is for kubernetes"),
        (["docker", "main:app", "--upstream", "a:1"], "--upstream means nothing to docker.", "It is for nginx, haproxy, caddy, envoy"),
        (["nginx", "main:app", "--force"], "--force is for --output", "--output DIR"),
        (["nginx", "main:app", "--wrkers", "2"], "--wrkers: unknown option", ""),
        (["nginx", "main:app", "--upstream", "8000"], "--upstream: ", "once for each instance"),
        (["nginx", "main:app", "--upstream", "a:1", "--upstream", "a:1"], "a:1 is given twice", ""),
        (["nginx", "main:app", "--upstream", "unix:/a b"], "cannot be written into these files", ""),
        (["nginx", "main:app", "--upstream", "a:1?proxy_protocol=on"], "wants the PROXY protocol", "Or use haproxy"),
        (["nginx", "main:app", "--upstream", "fd://3"], "no address that others can be told of", "host:port"),
        (["caddy", "main:app", "--listen", "unix:/a"], "Caddy takes a host and a port here", ""),
        (["haproxy", "main:app", "--listen", "a:b"], "--listen: ", "host:port"),
        (["envoy", "main:app", "--upstream", "host:1", "--upstream", "unix:/a"], "Envoy cannot have a host name", "IP address"),
        (["kubernetes", "main:app", "--bind", "unix:/a"], "A container is reached on one port", "--bind 0.0.0.0:8000"),
        (["kubernetes", "main:app", "--control", "off"], "Health is asked over the control socket", "--control off"),
        (["systemd", "main:app", "--control", "off"], "asks over the control socket", "--control off"),
        (["systemd", "main:app", "--bind", "shop.example:80"], "systemd listens on IP addresses only", "IP:port"),
        (["docker", "main:app", "--app-dir", "/tmp"], "app_dir /tmp is a place on this machine", "relative"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_makes_no_sense_is_refused_with_a_cause_and_a_fix(capsys: Capture, words: list[str], cause: str, fix: str) -> None:
    said = refused(capsys, *words)
    assert cause in said
    assert fix in said


def test_loopback_is_of_no_use_in_a_container_and_is_replaced_with_a_note(capsys: Capture) -> None:
    assert main(["deploy", "docker", "main:app", "--bind", "127.0.0.1:9000"]) == 0
    captured = capsys.readouterr()
    assert '"--bind", "0.0.0.0:9000"' in captured.out
    assert "EXPOSE 9000" in captured.out
    assert "note: 127.0.0.1:9000 cannot be reached from outside of a container: 0.0.0.0:9000 is written" in captured.err


@pytest.fixture
def certificate(here: Path) -> str:
    (here / "cert.pem").touch()
    return "cert.pem"


def test_a_server_that_speaks_https_is_for_containers_and_systemd_only(capsys: Capture, certificate: str) -> None:
    assert "The server speaks HTTPS" in refused(capsys, "nginx", "main:app", "--ssl-certfile", certificate)
    assert main(["deploy", "docker", "main:app", "--ssl-certfile", certificate]) == 0
    captured = capsys.readouterr()
    assert '"--ssl-certfile", "cert.pem"' in captured.out
    assert "note: cert.pem (ssl_certfile) must be in the image or in a volume" in captured.err


def test_a_secret_is_not_written(capsys: Capture, certificate: str) -> None:
    words = ("--ssl-certfile", certificate, "--ssl-keyfile-password", "hunter2")
    assert main(["deploy", "kubernetes", "main:app", *words]) == 0
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert "password" not in captured.out
    assert "ssl_keyfile_password is a secret and is not written: give the service CAVALCADE_SSL_KEYFILE_PASSWORD" in captured.err


def test_help_names_the_targets_and_every_option(capsys: Capture) -> None:
    text = text_of(capsys, "--help")
    for word in (*TARGETS, "--upstream", "--output", "--force", "--drain-delay", "Exit codes"):
        assert word in text
