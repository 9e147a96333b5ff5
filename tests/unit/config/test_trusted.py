"""Whose word is taken for who the client is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cavalcade.config import trusted
from cavalcade.config.sources import Resolved, resolve
from cavalcade.config.trusted import Trusted
from cavalcade.errors import ConfigError


@pytest.mark.parametrize(
    ("entries", "peer", "believed"),
    [
        (("loopback",), "127.0.0.1", True),
        (("loopback",), "127.9.9.9", True),
        (("loopback",), "::1", True),
        (("loopback",), "10.0.0.1", False),
        (("loopback",), None, False),
        (("loopback", "unix"), None, True),
        (("private",), "10.42.0.7", True),
        (("private",), "172.31.255.255", True),
        (("private",), "172.32.0.0", False),
        (("private",), "192.168.1.1", True),
        (("private",), "fd00::7", True),
        (("private",), "100.64.0.1", False),
        (("private",), "127.0.0.1", False),
        (("10.1.0.0/16",), "10.1.2.3", True),
        (("10.1.0.0/16",), "10.2.0.0", False),
        (("2001:db8::/32",), "2001:db8::9", True),
        (("203.0.113.5",), "203.0.113.5", True),
        (("203.0.113.5",), "203.0.113.6", False),
        (("*",), "203.0.113.6", True),
        (("*",), None, True),
        (("none",), "127.0.0.1", False),
        (("none",), None, False),
        ((), "127.0.0.1", False),
        (("0.0.0.0/0",), "nonsense", False),
        (("fe80::/10",), "fe80::1%eth0", True),
    ],
)
def test_a_peer_is_believed_or_not(entries: tuple[str, ...], peer: str | None, believed: bool) -> None:
    proxies = Trusted(entries)
    assert [peer in proxies, peer in proxies] == [believed, believed]  # the second from memory


def test_trust_in_every_peer_is_no_trust_in_every_hop() -> None:
    assert not Trusted(("*",)).is_proxy("203.0.113.6")
    assert Trusted(("*", "10.0.0.0/8")).is_proxy("10.0.0.1")


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    proxies = Trusted(("10.0.0.0/8",))
    for number in range(3 * trusted.KEPT):
        assert f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" in proxies
    assert len(proxies._known) <= trusted.KEPT


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("UNIX", "unix"),
        ("Private", "private"),
        ("*", "*"),
    ],
)
def test_an_entry_has_one_canonical_form(text: str, canonical: str) -> None:
    assert trusted.entry(text) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1/8", "is no network: write 10.0.0.0/8, or the address alone"),
        ("nginx", "is not an IP address, a network such as 10.0.0.0/8, or one of loopback, private, unix"),
        ("10.0.0", "is not an IP address"),
        ("127.0.0.1:80", "is not an IP address"),
    ],
)
def test_a_bad_entry_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trusted.entry(text)


def resolved(tmp_path: Path, environ: dict[str, str] | None = None, **given: Any) -> Resolved:
    return resolve(given, cwd=tmp_path, environ=environ or {})


def test_by_default_this_machine_and_unix_sockets_are_trusted_for_what_every_proxy_sets(tmp_path: Path) -> None:
    settings = resolved(tmp_path).settings
    assert settings.trusted_proxies == ("loopback", "unix")
    assert settings.forwarded_headers == ("x-forwarded-for", "x-forwarded-proto")


def test_the_names_that_hands_know_mean_the_same(tmp_path: Path) -> None:
    by_variable = resolved(tmp_path, {"FORWARDED_ALLOW_IPS": "127.0.0.1, 10.0.0.0/8"})
    assert by_variable.settings.trusted_proxies == ("127.0.0.1", "10.0.0.0/8")
    assert by_variable.origins["trusted_proxies"] == "FORWARDED_ALLOW_IPS"
    assert resolved(tmp_path, forwarded_allow_ips="10.0.0.1").settings.trusted_proxies == ("10.0.0.1",)
    on_the_command_line = ("private,unix", "203.0.113.5", "unix")
    assert resolved(tmp_path, trusted_proxies=on_the_command_line).settings.trusted_proxies == ("private", "unix", "203.0.113.5")
    assert resolved(tmp_path, {"FORWARDED_ALLOW_IPS": "*"}, trusted_proxies=("none",)).settings.trusted_proxies == ("none",)


def test_trust_in_everybody_is_said_where_everybody_can_connect(tmp_path: Path) -> None:
    (note,) = resolved(tmp_path, bind=["0.0.0.0:80", "127.0.0.1:81", "unix:/x"], trusted_proxies="*").notes
    assert note.startswith("--trusted-proxies: trusted_proxies * on 0.0.0.0:80: whoever can connect there can pose as any client")
    for bind in ("127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/x"):
        assert resolved(tmp_path, bind=[bind], trusted_proxies="*").notes == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trusted_proxies": "none,unix"}, "--trusted-proxies: trusted_proxies has none and others: keep one of both"),
        ({"forwarded_headers": "forwarded,x-forwarded-for"}, "has forwarded and x-forwarded-for: a proxy sets one of them"),
        ({"forwarded_headers": "x-real-ip"}, '--forwarded-headers: "x-real-ip" is none of x-forwarded-for'),
        ({"trusted_proxies": "none", "bind": ["127.0.0.1:1?proxy_protocol=on"]}, "needs trusted_proxies"),
        ({"mount_path": "api"}, '--mount-path: mount_path "api" must start with "/": write "/api"'),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, **given)
    assert said in str(caught.value)


def test_path_prefixes_have_single_slashes_and_none_at_the_end(tmp_path: Path) -> None:
    settings = resolved(tmp_path, root_path="//a//b/", mount_path="/").settings
    assert (settings.root_path, settings.mount_path) == ("/a/b", "")
