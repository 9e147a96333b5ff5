"""The options of TLS: the form of `ssl_sni`, and what only makes sense together. The files themselves are net/tls.py's affair."""

from __future__ import annotations

import re
from collections.abc import Callable

from cavalcade.config.options import Settings

_SERVER_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")  # RFC 6066 section 3: a name, never an address

_OF_TLS = (
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_sni",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_crl",
    "ssl_minimum_version",
    "ssl_ciphers",
)


def certificate_for(text: str) -> str:
    """One `ssl_sni`, HOST=CERT or HOST=CERT:KEY, in its canonical form. Raises `ValueError`."""
    host, equals, files = text.partition("=")
    host = host.strip().lower().rstrip(".")
    certfile, _, keyfile = (part.strip() for part in files.partition(":"))
    if not equals or not certfile or not _SERVER_NAME.fullmatch(host):
        raise ValueError(f'"{text}": write HOST=CERTFILE:KEYFILE, with a host name or *.domain before the "="')
    return f"{host}={certfile}:{keyfile}" if keyfile else f"{host}={certfile}"


def split_certificate(text: str) -> tuple[str, str, str]:
    """Host, certificate file and key file ("" where it is the same file) of a canonical `ssl_sni`."""
    host, _, files = text.partition("=")
    certfile, _, keyfile = files.partition(":")
    return host, certfile, keyfile


def check(settings: Settings, complain: Callable[[str, str], None]) -> None:
    """An option of TLS that would do nothing is a server that is less safe than somebody believes."""
    defaults = Settings()
    if not settings.ssl_certfile:
        for name in _OF_TLS:
            if getattr(settings, name) != getattr(defaults, name):
                complain(name, "does nothing without ssl_certfile: HTTPS needs a certificate")
        return
    if settings.ssl_cert_reqs != "none" and not settings.ssl_ca_certs:
        complain("ssl_cert_reqs", "needs ssl_ca_certs: the authorities whose client certificates are good")
    elif settings.ssl_cert_reqs == "none" and settings.ssl_ca_certs:
        hint = "to send a chain, put it behind the certificate in ssl_certfile"
        complain("ssl_ca_certs", f"is for client certificates: set ssl_cert_reqs to optional or required ({hint})")
    if settings.ssl_crl and not settings.ssl_ca_certs:
        complain("ssl_crl", "needs ssl_ca_certs: it is about client certificates")
    hosts = [split_certificate(text)[0] for text in settings.ssl_sni]
    for host in sorted({host for host in hosts if hosts.count(host) > 1}):
        complain("ssl_sni", f"{host} is given twice")
