"""The environ that an app is called with: PEP 3333, "environ Variables"."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tempfile
from typing import Any

import pytest

PLAIN = [("Content-Type", "text/plain")]


class Seen:
    """An app that keeps what it is called with."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.body = b""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environ = environ.copy()
        self.body = environ["wsgi.input"].read()
        start_response("200 OK", PLAIN)
        return [b"seen"]


def seen(run: Any, serve: Any, threads: int, request: bytes, **options: Any) -> Seen:
    app = Seen()

    async def main() -> None:
        async with serve(app, threads=threads, **options) as served:
            response = await served.ask(request)
            assert (response.status, response.body) == (200, b"seen")

    run(main())
    return app


def test_the_cgi_variables_of_a_request(run: Any, serve: Any, threads: int) -> None:
    request = b"GET /a%20b/%C3%A9?q=%20&r HTTP/1.1\r\nHost: test:80\r\nAccept: x/y\r\nContent-Type: t/u\r\n\r\n"
    environ = seen(run, serve, threads, request).environ
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/a b/\xc3\xa9"  # bytes as text: UTF-8, each byte a character
    assert environ["PATH_INFO"].encode("latin-1").decode("utf-8") == "/a b/é"
    assert environ["QUERY_STRING"] == "q=%20&r"
    assert environ["RAW_URI"] == "/a%20b/%C3%A9?q=%20&r"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"].isdigit()
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["REMOTE_PORT"].isdigit()
    assert environ["HTTP_HOST"] == "test:80"
    assert environ["HTTP_ACCEPT"] == "x/y"
    assert environ["CONTENT_TYPE"] == "t/u"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert all(type(value) is str for key, value in environ.items() if key.isupper() or key.startswith("HTTP_"))


def test_the_wsgi_variables_tell_the_truth(run: Any, serve: Any) -> None:
    for threads, several in ((0, False), (1, False), (2, True)):
        environ = seen(run, serve, threads, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").environ
        assert environ["wsgi.version"] == (1, 0)
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["wsgi.multithread"] is several
        assert environ["wsgi.multiprocess"] is False  # embedded: there is one process
        assert environ["wsgi.run_once"] is False
        assert environ["wsgi.input_terminated"] is True
        assert environ["wsgi.errors"].writable()
        assert environ["cavalcade.draining"].is_set()  # by now the server has stopped


def test_bytes_that_are_no_utf_8_stay_as_they_are(run: Any, serve: Any, threads: int) -> None:
    environ = seen(run, serve, threads, b"GET /%FF%00 HTTP/1.1\r\nHost: test\r\nX-Raw: \xe9\xff\r\n\r\n").environ
    assert environ["PATH_INFO"] == "/\xff\x00"
    assert environ["HTTP_X_RAW"] == "\xe9\xff"


def test_the_root_path_is_the_script_name(run: Any, serve: Any, threads: int) -> None:
    environ = seen(run, serve, threads, b"GET /users HTTP/1.1\r\nHost: test\r\n\r\n", root_path="/é").environ
    assert environ["SCRIPT_NAME"] == "/\xc3\xa9"
    assert environ["PATH_INFO"] == "/users"


def test_fields_that_come_twice_are_joined(run: Any, serve: Any, threads: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: test\r\nX-A: 1\r\nCookie: a=1\r\nx-a: 1\r\ncookie: b=2\r\nX-A: 3\r\nX-B:\r\nX-B:\r\n\r\n"
    environ = seen(run, serve, threads, request).environ
    assert (environ["HTTP_X_A"], environ["HTTP_X_B"]) == ("1,1,3", ",")
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded_for", "X_FORWARDED-FOR", "Content_Length", "Content_Type"])
def test_a_field_name_with_an_underscore_cannot_pass_for_another(run: Any, serve: Any, threads: int, name: str) -> None:
    request = f"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 10.0.0.1\r\n{name}: 6\r\n\r\n".encode()
    environ = seen(run, serve, threads, request).environ
    assert environ["HTTP_X_FORWARDED_FOR"] == "10.0.0.1"
    assert "6" not in environ.values()


def test_a_proxy_field_does_not_become_a_setting(run: Any, serve: Any, threads: int) -> None:
    environ = seen(run, serve, threads, b"GET / HTTP/1.1\r\nHost: test\r\nProxy: http://evil\r\n\r\n").environ
    assert "HTTP_PROXY" not in environ


def test_an_http_1_0_request(run: Any, serve: Any, threads: int) -> None:
    environ = seen(run, serve, threads, b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").environ
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_an_absolute_target(run: Any, serve: Any, threads: int) -> None:
    environ = seen(run, serve, threads, b"GET http://other/path%2F?x HTTP/1.1\r\nHost: test\r\n\r\n").environ
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]) == ("/path/", "x", "other")


def test_a_unix_socket_has_the_names_that_must_not_be_empty(run: Any, serve: Any, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        environ = seen(run, serve, threads, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", bind=f"unix:{path}").environ
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("localhost", "80", "")


def test_what_an_app_does_to_its_environ_no_other_request_sees(run: Any, serve: Any, threads: int) -> None:
    keys: list[set[str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        keys.append(set(environ))
        environ.clear()
        environ["mine"] = 1
        start_response("200 OK", PLAIN)
        return [b""]

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                await client.response()

    run(main())
    assert keys[0] == keys[1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_small_body_is_there_with_its_length(run: Any, serve: Any, threads: int, whole: bool) -> None:
    app = Seen()

    async def main() -> None:
        async with serve(app, threads=threads) as served:
            client = await served.connect()
            head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"
            if whole:
                await client.send(head + b"0123456789")
            else:
                await client.send(head + b"0123")
                await asyncio.sleep(0)
                await client.send(b"456789")
            assert (await client.response()).body == b"seen"

    run(main())
    assert app.body == b"0123456789"
    assert app.environ["CONTENT_LENGTH"] == "10"
    assert isinstance(app.environ["wsgi.input"], io.BytesIO)


def test_a_small_chunked_body_has_a_length_like_any_other(run: Any, serve: Any, threads: int) -> None:
    """Django reads nothing of a body that has none."""
    request = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    app = seen(run, serve, threads, request)
    assert app.body == b"abcdef"
    assert app.environ["CONTENT_LENGTH"] == "6"
    assert "HTTP_TRANSFER_ENCODING" not in app.environ


def test_an_ipv6_client(run: Any, serve: Any, threads: int) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    app = Seen()

    async def main() -> None:
        async with serve(app, threads=threads, bind="[::1]:0") as served:
            port = int(served.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("::1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()

    run(main())
    assert (app.environ["SERVER_NAME"], app.environ["REMOTE_ADDR"]) == ("::1", "::1")
