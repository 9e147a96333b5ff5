"""The examples of WSGI, as their docstrings say they are started, over every protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.certificates import Authority

REPOSITORY = Path(__file__).parents[3]
DEMOS = {
    "Flask": ("main:app", "--app-dir", "examples/flask_demo", "--threads", "4"),
    "Django": ("wsgi:application", "--app-dir", "examples/django_wsgi_demo"),
}
PROTOCOLS = {"http": "HTTP/1.1", "https": "HTTP/1.1", "h2": "HTTP/2"}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=DEMOS)
def demo(request: pytest.FixtureRequest, signer: Authority) -> Iterator[tuple[str, LiveServer, LiveServer]]:
    """Its name, and the example in the clear and over TLS."""
    command = DEMOS[request.param]
    with LiveServer(*command, cwd=REPOSITORY) as plain, LiveServer(*command, *signer.pair.flags, cwd=REPOSITORY) as secure:
        yield request.param, plain, secure


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_examples_of_wsgi(demo: tuple[str, LiveServer, LiveServer], signer: Authority, protocol: str) -> None:
    name, plain, secure = demo
    url = plain.url if protocol == "http" else secure.url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=url, verify=signer.client(), http1=protocol != "h2", http2=protocol == "h2", timeout=30.0) as client:
        answer = client.get("/")
        assert (answer.json()["hello"], answer.http_version) == (name, PROTOCOLS[protocol])
        assert client.post("/length", content=b"x" * 5_000_000).json() == {"bytes": 5_000_000}
        assert client.get("/numbers").text.splitlines() == [str(number) for number in range(100)]
        if name == "Flask":
            assert client.get("/slow", params={"seconds": "0"}).json()["hello"] == "after a while"
        else:
            assert answer.json()["secure"] == (protocol != "http")
