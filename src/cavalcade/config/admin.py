"""The admin address: where the running server is asked over TCP, by whom, and for what (docs/admin.md)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from cavalcade.config import addresses
from cavalcade.config.options import Settings

OPEN = ("health", "metrics")
TOKEN_CHARS = 16  # fewer can be guessed over a network
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what an Authorization header can carry
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_RANDOM = "python3 -c 'import secrets; print(secrets.token_urlsafe())'"


def address(text: str) -> str:
    """The canonical form of an address to listen on; "" for none. Raises `ValueError`."""
    if not text.strip():
        return ""
    bind = addresses.parse(text.strip())
    if bind.kind != "tcp":
        raise ValueError(f'"{text}" is no TCP address: write 127.0.0.1:9000; a unix socket is there already, see control')
    if bind.proxy_protocol:
        raise ValueError(f'"{text}": proxy_protocol is for bind only')
    return bind.plain


def is_loopback(host: str) -> bool:
    """Can only this machine connect to it?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def open_word(text: str) -> str:
    """One of what may be answered without a token. Raises `ValueError`."""
    word = text.strip().lower()
    if word not in OPEN:
        raise ValueError(f'must be of {", ".join(OPEN)}, not "{text}"')
    return word


def host_name(text: str) -> str:
    """A name under which the admin address is asked. Raises `ValueError`."""
    name = text.strip().lower().rstrip(".")
    if not _NAME.fullmatch(name):
        raise ValueError(f'"{text}" is not a host name: write it without scheme and port')
    return name


def read_token(settings: Settings, cwd: Path) -> str:
    """The token that is asked for; "" where none was given. Raises `ValueError` without the token in it."""
    token = settings.admin_token
    if settings.admin_token_file:
        try:
            token = (cwd / settings.admin_token_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f'"{settings.admin_token_file}" cannot be read: {reason}') from None
        if not token:
            raise ValueError(f'"{settings.admin_token_file}" is empty')
    if token and not _TOKEN.fullmatch(token):
        raise ValueError("has characters that no header can carry: letters, digits and punctuation of ASCII only")
    if token and len(token) < TOKEN_CHARS:
        raise ValueError(f"is shorter than {TOKEN_CHARS} characters, and could be guessed: {_RANDOM}")
    return token


def check(settings: Settings, complain: Callable[[str, str], None], cwd: Path) -> None:
    """What only shows when the options are looked at together."""
    if not settings.admin:
        for name in ("admin_token", "admin_token_file", "admin_write", "admin_open", "admin_hosts"):
            if getattr(settings, name):
                complain(name, "does nothing without admin, the address to listen on: admin 127.0.0.1:9000")
        return
    name = "admin_token_file" if settings.admin_token_file else "admin_token"
    if settings.admin_token and settings.admin_token_file:
        complain(name, "and admin_token both give the token: keep one of them")
        return
    try:
        token = read_token(settings, cwd)
    except ValueError as problem:
        complain(name, str(problem))
        return
    bind = addresses.parse(settings.admin)
    if not token and not is_loopback(bind.host):
        fix = f"give admin_token or admin_token_file ({_RANDOM}), or use 127.0.0.1"
        complain("admin", f"{settings.admin} can be reached from other machines, and there is no token: {fix}")
    if bind.port and settings.admin in [addresses.parse(each).plain for each in settings.bind]:
        complain("admin", f"{settings.admin} is what the app listens on as well: use another port")
