"""What is believed of a request that came through proxies: a table of (who is trusted, who says it, what is said) and what comes of it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from cavalcade import limits
from cavalcade.config.trusted import HEADERS, Trusted
from cavalcade.net.forwarded import Forwarding, Origin, read_forwarded, read_node
from cavalcade.types import Address, Headers
from cavalcade.wire.fields import FORWARDING_NAMES

PEER: Address = ("10.0.0.1", 4000)
X = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix")
RFC = ("forwarded", "x-forwarded-prefix")


def link(client: Address | None = PEER, now: float = 100.0, scheme: str = "http") -> Any:
    """As much of a connection as is looked at."""
    peer = "a unix socket" if client is None else f"{client[0]}:{client[1]}"
    return SimpleNamespace(client=client, scheme=scheme, context=SimpleNamespace(now=now), peer=lambda: peer)


def headers(*lines: str) -> Headers:
    pairs = [line.partition(": ") for line in lines]
    return [(b"host", b"test:8000"), *((name.lower().encode(), value.encode("latin-1")) for name, _, value in pairs)]


def origin(trusted: tuple[str, ...], believed: tuple[str, ...], *lines: str, client: Address | None = PEER) -> Origin | None:
    return Forwarding(Trusted(trusted), believed).origin(link(client), headers(*lines))


def test_the_engines_look_for_the_same_names_as_the_options_take() -> None:
    assert tuple(name.decode() for name in FORWARDING_NAMES) == HEADERS


@pytest.mark.parametrize(
    ("trusted", "lines", "client"),
    [
        # one proxy
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7"], ("203.0.113.7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7:5000"], ("203.0.113.7", 5000)),
        ("10.0.0.1", ["X-Forwarded-For: 2001:DB8::7"], ("2001:db8::7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: [2001:db8::7]"], ("2001:db8::7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: [2001:db8::7]:443"], ("2001:db8::7", 443)),
        ("10.0.0.1", ["X-Forwarded-For: ::ffff:203.0.113.7"], ("203.0.113.7", 0)),
        # what the client has put before it never wins
        ("10.0.0.1", ["X-Forwarded-For: 127.0.0.1, 203.0.113.7"], ("203.0.113.7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: 10.0.0.1, 203.0.113.7"], ("203.0.113.7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 203.0.113.7"], ("203.0.113.7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: \x00\xff,,,;\"', 203.0.113.7"], ("203.0.113.7", 0)),
        ("10.0.0.1", ["X-Forwarded-For: unknown, 203.0.113.7"], ("203.0.113.7", 0)),
        # two proxies, by address, by network, on several lines
        ("10.0.0.1,10.0.0.2", ["X-Forwarded-For: 8.8.8.8, 203.0.113.7, 10.0.0.2"], ("203.0.113.7", 0)),
        ("10.0.0.0/8", ["X-Forwarded-For: 203.0.113.7, 10.9.9.9:77,10.0.0.2"], ("203.0.113.7", 0)),
        ("private", ["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: fd00::1"], ("203.0.113.7", 0)),
        # a hop that is not trusted is the client, whatever it says of others
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7, 10.0.0.2"], ("10.0.0.2", 0)),
        # all are trusted: the first
        ("private", ["X-Forwarded-For: 10.0.0.9, 10.0.0.2"], ("10.0.0.9", 0)),
        # every peer is trusted, the hops are not
        ("*", ["X-Forwarded-For: 127.0.0.1, 203.0.113.7"], ("203.0.113.7", 0)),
        ("*,10.0.0.0/8", ["X-Forwarded-For: 203.0.113.7, 10.0.0.2"], ("203.0.113.7", 0)),
        # not known: who has said so is all that is known
        ("10.0.0.1", ["X-Forwarded-For: unknown"], None),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7, unknown"], None),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7, _hidden"], None),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7, garbage"], None),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7,"], None),
        ("10.0.0.1", ["X-Forwarded-For: 203.0.113.7:99999"], None),
        ("10.0.0.1", ["X-Forwarded-For: fe80::1%eth0"], None),
        ("10.0.0.1", ["X-Forwarded-For: "], None),
        ("10.0.0.0/8", ["X-Forwarded-For: 203.0.113.7, unknown, 10.0.0.2:9"], ("10.0.0.2", 9)),
        # it says nothing of the client
        ("10.0.0.1", ["X-Forwarded-Proto: https"], None),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(trusted: str, lines: list[str], client: Address | None) -> None:
    said = origin(tuple(trusted.split(",")), X, *lines)
    assert said is not None
    assert said.client == client


@pytest.mark.parametrize(
    ("lines", "client", "scheme", "host"),
    [
        (["Forwarded: for=203.0.113.7"], ("203.0.113.7", 0), "", b""),
        (["Forwarded: FOR=203.0.113.7;Proto=HTTPS;host=example.com"], ("203.0.113.7", 0), "https", b"example.com"),
        (['Forwarded: for="203.0.113.7:80"'], ("203.0.113.7", 80), "", b""),
        (['Forwarded: for="[2001:db8::7]:80"; by=_me'], ("2001:db8::7", 80), "", b""),
        (['Forwarded: for="[2001:db8::7]"'], ("2001:db8::7", 0), "", b""),
        (["Forwarded: for=[2001:db8::7]:80"], ("2001:db8::7", 80), "", b""),  # not quoted, as some do
        (["Forwarded: for=127.0.0.1, for=203.0.113.7;proto=https"], ("203.0.113.7", 0), "https", b""),
        (["Forwarded: for=127.0.0.1;proto=https", "Forwarded: for=203.0.113.7;proto=http"], ("203.0.113.7", 0), "http", b""),
        # scheme and host are those that the proxy next to the client saw
        (["Forwarded: for=203.0.113.7;proto=https;host=a, for=10.0.0.2;proto=http;host=b"], ("203.0.113.7", 0), "https", b"a"),
        (["Forwarded: for=1.1.1.1;proto=https;host=a, for=203.0.113.7, for=10.0.0.2;proto=http"], ("203.0.113.7", 0), "", b""),
        (["Forwarded: for=203.0.113.7, for=unknown;proto=https"], None, "https", b""),
        (["Forwarded: for=203.0.113.7, for=_hidden"], None, "", b""),
        (["Forwarded: for=203.0.113.7, proto=https"], None, "https", b""),
        (["Forwarded: proto=gopher;host=a/b"], None, "", b""),
        # what a client has broken on purpose does not hide what the proxy has added
        (['Forwarded: for="127.0.0.1, for=203.0.113.7;proto=https'], ("203.0.113.7", 0), "https", b""),
        (['Forwarded: for="127.0.0.1', "Forwarded: for=203.0.113.7"], ("203.0.113.7", 0), "", b""),
        (["Forwarded: ;;;, for=203.0.113.7"], ("203.0.113.7", 0), "", b""),
        (["Forwarded: for=203.0.113.7, for="], None, "", b""),
        (["Forwarded: "], None, "", b""),
        (["Forwarded: for=1.1.1.1;for=203.0.113.7"], None, "", b""),
    ],
)
def test_rfc_7239(lines: list[str], client: Address | None, scheme: str, host: bytes) -> None:
    said = origin(("10.0.0.0/8",), RFC, *lines)
    assert said == Origin(client, scheme, host, None)


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"for=a", [{b"for": b"a"}]),
        (b'for="a,b;c=\\"d\\\\"', [{b"for": b'a,b;c="d\\'}]),
        (b"for=a;by=b , for=c", [{b"for": b"a", b"by": b"b"}, {b"for": b"c"}]),
        (b"for=a;", [{b"for": b"a"}]),
        (b"for =a", []),
        (b"for", []),
        (b'for="a', []),
        (b'for="a"b', []),
    ],
)
def test_the_grammar_of_forwarded(value: bytes, elements: list[dict[bytes, bytes]]) -> None:
    assert read_forwarded(value) == elements


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["X-Forwarded-Proto: https"], Origin(scheme="https")),
        (["X-Forwarded-Proto: WSS"], Origin(scheme="https")),
        (["X-Forwarded-Proto: https, http"], Origin(scheme="http")),  # the last is the proxy's own
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], Origin(scheme="http")),
        (["X-Forwarded-Proto: javascript"], Origin()),
        (["X-Forwarded-Proto: "], Origin()),
        (["X-Forwarded-Host: example.com"], Origin(host=b"example.com")),
        (["X-Forwarded-Host: evil.example, example.com:8443"], Origin(host=b"example.com:8443")),
        (["X-Forwarded-Host: [::1]:80"], Origin(host=b"[::1]:80")),
        (["X-Forwarded-Host: a/b"], Origin()),
        (["X-Forwarded-Host: user@host"], Origin()),
        (["X-Forwarded-Host: "], Origin()),
        (["X-Forwarded-Port: 8443"], Origin(host=b"test:8443")),
        (["X-Forwarded-Port: 443", "X-Forwarded-Proto: https"], Origin(scheme="https", host=b"test")),
        (["X-Forwarded-Port: 80", "X-Forwarded-Host: a:99"], Origin(host=b"a")),
        (["X-Forwarded-Port: 99", "X-Forwarded-Host: [::1]:80"], Origin(host=b"[::1]:99")),
        (["X-Forwarded-Port: 0"], Origin(host=b"test:8000")),
        (["X-Forwarded-Port: 70000"], Origin(host=b"test:8000")),
        (["X-Forwarded-Prefix: /api/"], Origin(prefix=b"/api")),
        (["X-Forwarded-Prefix: /"], Origin(prefix=b"")),
        (["X-Forwarded-Prefix: /a%20b/c.d/..e"], Origin(prefix=b"/a%20b/c.d/..e")),
        (["X-Forwarded-Prefix: //evil.example"], Origin()),
        (["X-Forwarded-Prefix: /a//b"], Origin()),
        (["X-Forwarded-Prefix: /a/../b"], Origin()),
        (["X-Forwarded-Prefix: /a/."], Origin()),
        (["X-Forwarded-Prefix: https://evil.example/"], Origin()),
        (["X-Forwarded-Prefix: api"], Origin()),
        (["X-Forwarded-Prefix: /a?b"], Origin()),
        (["X-Forwarded-Prefix: /a\\b"], Origin()),
    ],
)
def test_single_values_are_the_last_ones_and_make_sense_or_are_not_believed(lines: list[str], expected: Origin) -> None:
    assert origin(("10.0.0.1",), X, *lines) == expected


def test_only_the_headers_that_were_named_are_believed() -> None:
    every = [
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: a",
        "X-Forwarded-Port: 9",
        "X-Forwarded-Prefix: /p",
    ]
    every += ["Forwarded: for=8.8.8.8;proto=https;host=b"]
    one = {
        "x-forwarded-for": Origin(client=("203.0.113.7", 0)),
        "x-forwarded-proto": Origin(scheme="https"),
        "x-forwarded-host": Origin(host=b"a"),
        "x-forwarded-port": Origin(host=b"test:9"),
        "x-forwarded-prefix": Origin(prefix=b"/p"),
        "forwarded": Origin(client=("8.8.8.8", 0), scheme="https", host=b"b"),
    }
    for name in HEADERS:
        assert origin(("10.0.0.1",), (name,), *every) == one[name]


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("loopback", PEER), ("unix", PEER), ("none", PEER), ("10.0.0.2", PEER), ("loopback", None), ("10.0.0.1", ("::1", 1))],
)
def test_nothing_is_believed_of_a_peer_that_is_not_trusted(trusted: str, client: Address | None) -> None:
    assert origin((trusted,), X, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", client=client) is None


def test_a_unix_sockets_client_is_trusted_as_unix() -> None:
    said = origin(("unix",), X, "X-Forwarded-For: 203.0.113.7", client=None)
    assert said == Origin(client=("203.0.113.7", 0))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_ignored_headers_are_told_of_once_for_each_address_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    forwarding = Forwarding(Trusted(("loopback", "unix")), X)
    said = headers("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7", "Forwarded: for=x")
    for now in (100.0, 101.0, 200.0, 300.0):
        assert forwarding.origin(link(("10.42.0.7", 1), now), said) is None
    assert warnings(caplog) == [
        "Forwarded, X-Forwarded-For, X-Forwarded-Proto from 10.42.0.7:1 ignored, 10.42.0.7 is not trusted "
        "(trusted_proxies: loopback, unix); if that is your proxy: --trusted-proxies 10.42.0.7"
    ]
    # Another one right behind it waits for its turn, and has it.
    caplog.clear()
    assert forwarding.origin(link(("10.42.0.8", 1), 400.0), said) is None
    assert forwarding.origin(link(("10.42.0.9", 1), 401.0), said) is None
    assert forwarding.origin(link(("10.42.0.9", 1), 400.0 + limits.FORWARDED_WARN_EVERY_S), said) is None
    assert [line.rpartition(" ")[2] for line in warnings(caplog)] == ["10.42.0.8", "10.42.0.9"]


def test_a_flood_of_untrusted_peers_is_a_bounded_number_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    forwarding = Forwarding(Trusted(("loopback",)), X)
    for number in range(limits.FORWARDED_WARNED + 100):
        address = f"203.0.{number >> 8}.{number & 255}"
        forwarding.origin(link((address, 1), number * 1000.0), headers("X-Forwarded-For: 127.0.0.1"))
    assert len(warnings(caplog)) == limits.FORWARDED_WARNED


def test_who_trusts_nobody_on_purpose_is_not_bothered(caplog: pytest.LogCaptureFixture) -> None:
    assert origin(("none",), X, "X-Forwarded-For: 203.0.113.7") is None
    assert warnings(caplog) == []


def test_a_header_of_a_trusted_proxy_that_would_matter_and_is_not_believed_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    forwarding = Forwarding(Trusted(("10.0.0.1",)), ("x-forwarded-for",))
    same = ("X-Forwarded-Host: test:8000", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https", "Forwarded: for=1.1.1.1")
    assert forwarding.origin(link(), headers("X-Forwarded-For: 1.1.1.1", *same)) == Origin(("1.1.1.1", 0))
    assert warnings(caplog) == []
    assert forwarding.origin(link(), headers("X-Forwarded-Prefix: /api")) == Origin()
    assert warnings(caplog) == [
        "X-Forwarded-Prefix from trusted 10.0.0.1:4000 not used; if it sets that header itself, whatever its clients send: "
        "--forwarded-headers x-forwarded-for,x-forwarded-prefix"
    ]
    forwarding.origin(link(now=200.0), headers("X-Forwarded-Host: example.com"))
    assert warnings(caplog)[-1].startswith("X-Forwarded-Host from trusted 10.0.0.1:4000 not used")


@pytest.mark.parametrize(
    ("believed", "line", "advice"),
    [
        (("x-forwarded-for", "x-forwarded-proto"), "Forwarded: for=1.1.1.1", "forwarded"),
        (("x-forwarded-for", "x-forwarded-prefix"), "Forwarded: for=1.1.1.1", "forwarded,x-forwarded-prefix"),
        (("forwarded",), "X-Forwarded-For: 1.1.1.1", "x-forwarded-for"),
    ],
)
def test_a_trusted_proxy_that_speaks_of_its_client_in_another_way_only_is_told_of(
    caplog: pytest.LogCaptureFixture, believed: tuple[str, ...], line: str, advice: str
) -> None:
    forwarding = Forwarding(Trusted(("10.0.0.1",)), believed)
    assert forwarding.origin(link(), headers(line)) == Origin()
    told = f"{line.partition(':')[0]} from trusted 10.0.0.1:4000 not used; if it sets that header itself, whatever its clients send: "
    assert warnings(caplog) == [f"{told}--forwarded-headers {advice}"]


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    forwarding = Forwarding(Trusted(("10.0.0.1",)), X)
    for number in range(limits.FORWARDED_KEPT + 10):
        forwarding.origin(link(), headers(f"X-Forwarded-For: 203.0.113.7:{number}"))
    forwarding.origin(link(), headers("X-Forwarded-For: " + "x" * 60000))
    assert len(forwarding._origins) <= limits.FORWARDED_KEPT
    assert max(len(value) for key in forwarding._origins for _, value in key) <= limits.FORWARDED_KEPT_BYTES


def test_what_is_remembered_is_what_would_be_read_again() -> None:
    """The port is the one that depends on more than what was said."""
    forwarding = Forwarding(Trusted(("10.0.0.1",)), X)
    for _ in range(2):
        assert forwarding.origin(link(), headers("X-Forwarded-For: 203.0.113.7")) == Origin(client=("203.0.113.7", 0))
        assert forwarding.origin(link(), headers("X-Forwarded-Proto: https")) == Origin(scheme="https")
        for host in (b"a", b"b"):
            assert forwarding.origin(link(), [(b"host", host), (b"x-forwarded-port", b"9")]) == Origin(host=host + b":9")
        assert forwarding.origin(link(scheme="https"), headers("X-Forwarded-Port: 443")) == Origin(host=b"test")
        assert forwarding.origin(link(("10.0.0.2", 1)), headers("X-Forwarded-For: 203.0.113.7")) is None


@pytest.mark.parametrize(
    "text", ["", "unknown", "_x", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "[::1", "[::1]:", "[1.2.3.4]x", "::1:99999:zz", "0x7f.1", "127.1"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert read_node(text) is None
