"""Which request ids are taken, and what is made of the others."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from cavalcade.config.trusted import Trusted
from cavalcade.net.request_ids import RequestIds, with_id

MADE = re.compile(r"[0-9a-f]{32}")
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"00-" + TRACE + b"-00f067aa0ba902b7-01"


def link(host: str | None, *trusted: str) -> Any:
    forwarding = SimpleNamespace(trusted=Trusted(trusted))
    return SimpleNamespace(client=None if host is None else (host, 1), context=SimpleNamespace(forwarding=forwarding))


ANY = link("192.0.2.1")


def named(mode: Any, *headers: tuple[bytes, bytes], peer: Any = ANY) -> tuple[str, list[bytes]]:
    """(the id, every X-Request-ID that the app sees)."""
    fields = [(b"host", b"test"), *headers]
    found = RequestIds(mode).identify(peer, fields)
    assert fields[0] == (b"host", b"test")
    return found, [value for name, value in fields if name == b"x-request-id"]


@pytest.mark.parametrize("value", [b"a", b"7b2e9c1a-0000-4000-8000-123456789abc", b"Root=1-67891233-abcdef012345678912345678", b"x" * 128])
def test_good_ones_are_taken_as_they_are(value: bytes) -> None:
    assert named("accept", (b"x-request-id", value)) == (value.decode(), [value])


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"x" * 129],
        [b"a b"],
        [b'a"b'],
        [b"a\\b"],
        [b"a\tb"],
        [b"a\x1b[31m"],
        [b"\xc3\xa9"],
        [b"-a"],
        [b"a;b"],
        [b"a", b"b"],
        [b"a", b"a"],
    ],
)
def test_others_are_replaced(values: list[bytes]) -> None:
    found, seen = named("accept", *((b"x-request-id", value) for value in values), (b"traceparent", PARENT))
    assert MADE.fullmatch(found)
    assert seen == [found.encode()]
    assert found.encode() != TRACE


def test_without_one_it_is_that_of_the_trace() -> None:
    assert named("accept", (b"traceparent", PARENT)) == (TRACE.decode(), [TRACE])
    assert named("accept", (b"traceparent", PARENT), (b"x-request-id", b"a"))[0] == "a"


@pytest.mark.parametrize(
    "values",
    [
        [b"ff" + PARENT[2:]],
        [PARENT.upper()],
        [PARENT.replace(TRACE, b"0" * 32)],
        [PARENT.replace(b"00f067aa0ba902b7", b"0" * 16)],
        [PARENT[:-1]],
        [PARENT + b"x"],
        [PARENT, PARENT],
        [b""],
    ],
)
def test_a_trace_that_is_none_names_nothing(values: list[bytes]) -> None:
    found, seen = named("accept", *((b"traceparent", value) for value in values))
    assert MADE.fullmatch(found)
    assert seen == [found.encode()]
    assert found.encode() != TRACE


def test_who_is_believed() -> None:
    given = (b"x-request-id", b"given")
    assert named("make", given)[0] != "given"
    assert named("trusted", given, peer=link("192.0.2.1", "10.0.0.0/8"))[0] != "given"
    assert named("trusted", given, peer=link("10.1.2.3", "10.0.0.0/8"))[0] == "given"
    assert named("trusted", given, peer=link(None, "10.0.0.0/8"))[0] != "given"
    assert named("trusted", given, peer=link(None, "unix"))[0] == "given"


def test_those_that_are_made_are_all_different() -> None:
    ids = RequestIds("make")
    made = [ids.make() for _ in range(2000)]
    assert all(MADE.fullmatch(one) for one in made)
    assert len(set(made)) == len(made)


def test_into_a_response() -> None:
    assert with_id([(b"a", b"b")], "id") == [(b"a", b"b"), (b"x-request-id", b"id")]
    assert with_id([(b"X-Request-Id", b"own")], "id") == [(b"X-Request-Id", b"own")]
    assert with_id(None, "id") is None
    assert with_id([5], "id") == [5]
