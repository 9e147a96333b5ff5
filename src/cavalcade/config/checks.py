"""What one value alone cannot tell: addresses, and options that only make sense together. Every check returns its
problems, so that all of them can be shown at once.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cavalcade.config.options import Settings

_HOST = re.compile(r"[A-Za-z0-9_.-]+")
_SERVER_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")  # RFC 6066 section 3: a name, never an address


def join(host: str, port: int) -> str:
    """The `bind` form of a host and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int] | None:
    """Host and port of a canonical TCP address; None for a unix socket."""
    if address.startswith("unix:"):
        return None
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def address(text: str) -> str:
    """An address in its canonical form: `host:port`, `[v6]:port` or `unix:/path`.

    `:8000` is every IPv4 interface, and a host alone gets port 8000, as gunicorn has it. Raises `ValueError`.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("///") else path
        if not path or "\0" in path:
            raise ValueError(f'"{text}" has no path: write unix:/run/app.sock')
        return f"unix:{path}"
    if text.startswith("fd://"):
        raise ValueError(f'"{text}": listening on an inherited descriptor is not offered')
    if text.startswith(("http://", "https://", "tcp://")):
        raise ValueError(f'"{text}" is a URL: write {text.split("://", 1)[1].rstrip("/") or "host:port"}')
    if text.startswith("/"):
        raise ValueError(f'"{text}" is a path: write unix:{text}')
    if text.isdigit():
        raise ValueError(f'"{text}" is only a port: write 127.0.0.1:{text}, or :{text} for every interface')
    host, port = _halves(text)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}": the port must be a number from 0 to 65535')
    return join(host_name(host) if host else "0.0.0.0", int(port))


def _halves(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}": write an IPv6 address as [::1]:8000')
        return host, rest[1:] or "8000"
    if text.count(":") > 1:
        raise ValueError(f'"{text}": write an IPv6 address in brackets, [{text}]:8000')
    host, colon, port = text.partition(":")
    return host, port if colon else "8000"


def host_name(text: str) -> str:
    """A host name or IP address, without brackets. Raises `ValueError`."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare.count(":") == 1 and bare.rpartition(":")[2].isdigit():
        raise ValueError(f'"{text}" has a port: give it as port, or both as bind')
    if ":" in bare:
        literal, _, _zone = bare.partition("%")
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            raise ValueError(f'"{text}" is not a host name or IP address') from None
        return bare
    if not _HOST.fullmatch(bare):
        raise ValueError(f'"{text}" is not a host name or IP address')
    return bare


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


def _check_tls(settings: Settings, complain: Callable[[str, str], None]) -> None:
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


def together(settings: Settings, origins: Mapping[str, str], cwd: Path) -> list[str]:
    """The problems of values that were read well one by one."""
    problems: list[str] = []

    def complain(name: str, text: str) -> None:
        problems.append(f"{origins[name]}: {name} {text}")

    if not (cwd / settings.app_dir).is_dir():
        complain("app_dir", f'"{settings.app_dir}" is not a directory')
    if settings.log_config and not (cwd / settings.log_config).is_file():
        complain("log_config", f'"{settings.log_config}" is not a file')
    if settings.pid and not (parent := (cwd / settings.pid).parent).is_dir():
        complain("pid", f'"{settings.pid}" cannot be written: {parent} is not a directory')
    elif settings.pid and not os.access(parent, os.W_OK):
        complain("pid", f'"{settings.pid}" cannot be written: no permission in {parent}')
    if settings.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        complain("loop", "uvloop is not installed here: pip install uvloop, or choose asyncio")
    if settings.root_path and not settings.root_path.startswith("/"):
        complain("root_path", f'"{settings.root_path}" must start with "/": write "/{settings.root_path.strip("/")}"')
    if settings.limit_request_line > settings.limit_request_head:
        complain("limit_request_line", "is more than limit_request_head, which counts the whole head")
    _check_tls(settings, complain)
    doubles = {bind for bind in settings.bind if settings.bind.count(bind) > 1 and not bind.endswith(":0")}
    for bind in sorted(doubles):
        complain("bind", f"{bind} is given twice")
    return problems
