"""The text of an address and its parts."""

from __future__ import annotations

import pytest

from cavalcade.config import addresses
from cavalcade.config.addresses import Bind


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        (":8000", "0.0.0.0:8000"),
        ("localhost", "localhost:8000"),
        ("[::1]:80", "[::1]:80"),
        ("[::]", "[::]:8000"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("my-host.example:0", "my-host.example:0"),
        ("0.0.0.0:80?proxy_protocol=yes", "0.0.0.0:80?proxy_protocol=on"),
        ("[::]:80?proxy_protocol=off", "[::]:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:///run/app.sock", "unix:/run/app.sock"),
        ("unix:app.sock", "unix:app.sock"),
        ("unix:/x?mode=0600", "unix:/x?mode=600"),
        ("unix:/x?group=www-data&user=0&mode=666&proxy_protocol=1", "unix:/x?mode=666&user=0&group=www-data&proxy_protocol=on"),
        ("unix:@name", "unix:@name"),
        ("fd://3", "fd://3"),
        ("fd://0?proxy_protocol=on", "fd://0?proxy_protocol=on"),
    ],
)
def test_an_address_has_one_canonical_form_that_reads_back_the_same(text: str, canonical: str) -> None:
    bind = addresses.parse(text)
    assert str(bind) == canonical
    assert addresses.parse(canonical) == bind


def test_the_parts_of_a_unix_socket() -> None:
    assert addresses.parse("unix:/run/app.sock?mode=0660&user=app&group=www") == Bind(
        "unix", path="/run/app.sock", mode=0o660, user="app", group="www"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty address"),
        ("8000", "write 127.0.0.1:8000, or :8000 for every interface"),
        ("/run/app.sock", "write unix:/run/app.sock"),
        ("http://localhost:8000/", "write localhost:8000"),
        ("::1:8000", r"in brackets, \[::1\]:8000$"),
        ("fe80::1", r"in brackets, \[fe80::1\]:8000$"),
        ("[::1", r"\[::1\]:8000"),
        ("[::1]8000", r"\[::1\]:8000"),
        ("host:port", "the port must be a number"),
        ("host:99999", "the port must be a number"),
        ("host:", "the port must be a number"),
        ("a b:80", "not a host name"),
        ("[zz::]:80", "not a host name"),
        ("unix:", "has no path"),
        ("unix:?mode=600", "has no path"),
        ("unix:/x?mode=9", "the mode must be octal"),
        ("unix:/x?mode=", "the mode must be octal"),
        ("unix:/x?mode=660&mode=666", "says something twice"),
        ("unix:/x?user=a b", "user must be a name or a number"),
        ("unix:/x?group=", "group must be a name or a number"),
        ("unix:/x?size=3", "size is unknown"),
        ("unix:/x?", "nothing follows the question mark"),
        ("unix:@name?mode=600", "is no file"),
        ("127.0.0.1:80?mode=600", "mode is for unix sockets only"),
        ("127.0.0.1:80?proxy_protocol=v2", "must be on or off"),
        ("fd://", "number of a descriptor"),
        ("fd://stdin", "number of a descriptor"),
        ("fd://-1", "number of a descriptor"),
    ],
)
def test_a_bad_address_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        addresses.parse(text)


def test_a_host_with_a_port_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="give it as port, or both as bind"):
        addresses.host_name("0.0.0.0:80")
