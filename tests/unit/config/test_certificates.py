"""The options of TLS: their many names and words, what may not be given alone, what is never shown."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from cavalcade.config.certificates import certificate_for, split_certificate
from cavalcade.config.options import Settings
from cavalcade.config.sources import resolve
from cavalcade.config.values import OPTIONS, show
from cavalcade.errors import ConfigError

CERT = {"ssl_certfile": "cert.pem"}


def settings(tmp_path: Path, **options: Any) -> Settings:
    return resolve(options, cwd=tmp_path, environ={}).settings


def problems(tmp_path: Path, environ: dict[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(options, cwd=tmp_path, environ=environ or {})
    return caught.value.problems


@pytest.mark.parametrize("word", ["required", "2", 2, ssl.CERT_REQUIRED, "CERT_REQUIRED", " Required "])
def test_client_certificates_are_asked_for_in_everybodys_words(word: Any, tmp_path: Path) -> None:
    found = settings(tmp_path, cert_reqs=word, ca_certs="ca.pem", certfile="cert.pem", keyfile="key.pem")
    assert (found.ssl_cert_reqs, found.ssl_ca_certs, found.ssl_certfile, found.ssl_keyfile) == ("required", "ca.pem", "cert.pem", "key.pem")


@pytest.mark.parametrize(("word", "version"), [("1.2", "1.2"), (1.3, "1.3"), ("TLSv1.3", "1.3"), ("tls1.2", "1.2")])
def test_versions_are_written_in_many_ways(word: Any, version: str, tmp_path: Path) -> None:
    assert settings(tmp_path, **CERT, ssl_minimum_version=word).ssl_minimum_version == version


def test_versions_that_are_broken_are_not_offered(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, **CERT, ssl_minimum_version="1.0")
    assert problem.startswith('--ssl-minimum-version: must be one of 1.2, 1.3, not "1.0"')


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ssl_keyfile": "k"}, "--ssl-keyfile: ssl_keyfile does nothing without ssl_certfile: HTTPS needs a certificate"),
        ({"ssl_ciphers": "x"}, "--ssl-ciphers: ssl_ciphers does nothing without ssl_certfile: HTTPS needs a certificate"),
        ({"ssl_cert_reqs": "1"}, "--ssl-cert-reqs: ssl_cert_reqs does nothing without ssl_certfile: HTTPS needs a certificate"),
        ({**CERT, "ssl_cert_reqs": "optional"}, "ssl_cert_reqs needs ssl_ca_certs"),
        ({**CERT, "ssl_ca_certs": "chain.pem"}, "to send a chain, put it behind the certificate in ssl_certfile"),
        ({**CERT, "ssl_crl": "crl.pem"}, "ssl_crl needs ssl_ca_certs"),
        ({**CERT, "ssl_sni": ("a=x", "A.=y")}, "ssl_sni a is given twice"),
        ({**CERT, "ssl_sni": ("a.example",)}, 'write HOST=CERTFILE:KEYFILE, with a host name or *.domain before the "="'),
        ({**CERT, "ssl_sni": ("*=x",)}, "write HOST=CERTFILE:KEYFILE"),
        ({"ssl_version": "17"}, "unknown option; use ssl_minimum_version"),
        ({"ssl_client_verify": ""}, "unknown option; use ssl_cert_reqs required"),
    ],
)
def test_what_would_do_nothing_or_means_something_else_is_said(options: Any, problem: str, tmp_path: Path) -> None:
    (found,) = problems(tmp_path, **options)
    assert problem in found


def test_certificates_by_host_have_one_form(tmp_path: Path) -> None:
    assert certificate_for(" API.example.com. = /a b/c.pem : /a b/c.key ") == "api.example.com=/a b/c.pem:/a b/c.key"
    assert split_certificate("*.example.com=x.pem") == ("*.example.com", "x.pem", "")
    found = resolve({}, cwd=tmp_path, environ={"CAVALCADE_SSL_CERTFILE": "c", "CAVALCADE_SSL_SNI": "a=x:y,b=z"}).settings
    assert found.ssl_sni == ("a=x:y", "b=z")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    found = settings(tmp_path, **CERT, ssl_keyfile_password="hush")
    assert found.ssl_keyfile_password == "hush"
    assert "hush" not in repr(found)
    assert show(OPTIONS["ssl_keyfile_password"], "hush") == "********"
    assert show(OPTIONS["ssl_keyfile_password"], "") == ""
    (tmp_path / "cavalcade.toml").write_text('ssl_certfile = "c"\nssl_keyfile_password = 12345\n')
    (problem,) = problems(tmp_path)
    assert problem == "cavalcade.toml:2: ssl_keyfile_password must be a text in quotes"
    (problem,) = problems(tmp_path / "..", ssl_keyfile_password="hu\0sh", **CERT)
    assert "sh" not in problem.removeprefix("--ssl-keyfile-password")
