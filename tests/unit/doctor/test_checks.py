"""Each check of the doctor, on facts that it is to find, and on a machine where all is well."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cavalcade.config.cpus import Cpus
from cavalcade.config.options import Settings
from cavalcade.doctor import checks
from cavalcade.doctor.facts import Facts
from cavalcade.doctor.findings import Gravity

MIB = 1 << 20
WELL = Facts(
    settings=Settings(bind=("127.0.0.1:8000",), workers=4, keep_alive=4000.0, graceful_timeout=8.0),
    cpus=Cpus(4, 4, None),
    somaxconn=4096,
    memory_total=16000 * MIB,
    rss=100 * MIB,
)


def found(settings: dict[str, Any] | None = None, **facts: Any) -> list[tuple[str, Gravity]]:
    changed = dataclasses.replace(WELL, settings=dataclasses.replace(WELL.settings, **(settings or {})), **facts)
    return [(finding.check, finding.gravity) for finding in checks.all_of(changed)]


def test_nothing_is_found_where_all_is_well() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("settings", "facts", "check", "gravity"),
    [
        ({"preload": True}, {"forked_threads": "poller, exporter"}, "preload", Gravity.PROBLEM),
        ({"trusted_proxies": ("*",)}, {"public": True}, "proxy-trust", Gravity.PROBLEM),
        ({}, {"public": True}, "proxy-trust", Gravity.NOTE),
        ({}, {"tls_warnings": ["TLS: the certificate a.pem (a.example) has expired on 2026-01-01"]}, "certificate", Gravity.PROBLEM),
        ({"workers": 4}, {"rss": 100 * MIB, "memory_limit": 300 * MIB}, "memory", Gravity.PROBLEM),
        ({"workers": 4}, {"rss": 100 * MIB, "memory_limit": 500 * MIB}, "memory", Gravity.ADVICE),
        ({"workers": 4}, {"rss": 5000 * MIB}, "memory", Gravity.PROBLEM),
        ({}, {"first_process": ["/bin/sh", "-c", "cavalcade main:app"]}, "shell", Gravity.PROBLEM),
        ({}, {"debug": True}, "debug", Gravity.ADVICE),
        ({}, {"asyncio_debug": True}, "debug", Gravity.ADVICE),
        ({}, {"descriptors": (1024, 524288)}, "descriptors", Gravity.ADVICE),
        ({}, {"somaxconn": 128}, "backlog", Gravity.ADVICE),
        ({"workers": 9}, {}, "cpus", Gravity.ADVICE),
        ({}, {"cpus": Cpus(1, 64, 1.5)}, "cpus", Gravity.ADVICE),
        ({"keep_alive": 5.0}, {}, "keep-alive", Gravity.ADVICE),
        ({"keep_alive": 60.0}, {}, "keep-alive", Gravity.ADVICE),
        ({"keep_alive": 75.0}, {}, "keep-alive", Gravity.NOTE),
        ({"keep_alive": 0.0}, {}, "keep-alive", Gravity.NOTE),
        ({}, {"build_kind": "pure Python"}, "build", Gravity.ADVICE),
        ({}, {"has_uvloop": False}, "uvloop", Gravity.ADVICE),
        ({}, {"has_h2": False}, "http2", Gravity.NOTE),
        ({}, {"import_s": 12.0}, "import", Gravity.ADVICE),
        ({"graceful_timeout": 30.0}, {}, "stop", Gravity.NOTE),
        ({"log_format": "text"}, {}, "logs", Gravity.NOTE),
        ({}, {"starved": 1}, "machine", Gravity.NOTE),
        ({}, {"complaints": [("something is odd", "make it even")]}, "log", Gravity.ADVICE),
    ],
)
def test_it_is_found(settings: dict[str, Any], facts: dict[str, Any], check: str, gravity: Gravity) -> None:
    assert found(settings, **facts) == [(check, gravity)]


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"trusted_proxies": ("*",)}, {}),  # on the loopback interface nobody else can say anything
        ({"trusted_proxies": ("10.0.0.0/8",)}, {"public": True}),
        ({"loop": "asyncio"}, {"has_uvloop": False}),
        ({"http2": False}, {"has_h2": False}),
        ({}, {"descriptors": (-1, -1)}),
        ({}, {"somaxconn": None}),
        ({}, {"first_process": ["/sbin/init"]}),
        ({}, {"first_process": ["/bin/sh", "-c", "nginx"]}),
        ({"workers": 1}, {"memory_limit": 600 * MIB}),
    ],
)
def test_it_is_left_alone(settings: dict[str, Any], facts: dict[str, Any]) -> None:
    assert found(settings, **facts) == []


def test_every_finding_has_a_fix_and_the_keep_alive_names_those_that_are_longer() -> None:
    bad = dataclasses.replace(WELL, settings=dataclasses.replace(WELL.settings, keep_alive=75.0), public=True, somaxconn=128, has_h2=False)
    findings = list(checks.all_of(bad))
    assert all(finding.fix for finding in findings)
    [told] = [finding.text for finding in findings if finding.check == "keep-alive"]
    assert "Heroku (90 s)" in told
    assert "ALB" not in told
