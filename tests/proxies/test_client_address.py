"""Real nginx and HAProxy tell who the client is, in every way they have, and cannot be talked over by the client.

The client is on 127.0.0.5 and the proxies are on 127.0.0.1, so that each can be told from the other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.certificates import Authority
from cavalcade.testing.clients import free_port

WAIT_S = 20.0
CLIENT = "127.0.0.5"
TRUST = ("--trusted-proxies", "127.0.0.1,unix")
SPOOFED = {"X-Forwarded-For": "6.6.6.6, 127.0.0.1", "X-Forwarded-Proto": "gopher", "Forwarded": 'for="6.6.6.6', "X-Real-IP": "6.6.6.6"}

APP = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    said = {name: scope[name] for name in ("client", "scheme", "root_path", "path")}
    said["host"] = dict(scope["headers"]).get(b"host", b"").decode()
    body = json.dumps(said).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/proxy.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{
        listen 127.0.0.1:{port};
        {body}
    }}
}}
"""

HAPROXY = """
defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
{body}
"""


def ask(port: int, path: str = "/x", tls: ssl.SSLContext | None = None, **fields: str) -> dict[str, Any]:
    """What the app has seen of a request that came from CLIENT, and lied. Raises `OSError` or `HTTPException`."""
    client: http.client.HTTPConnection
    if tls is None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S, source_address=(CLIENT, 0))
    else:
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT_S, source_address=(CLIENT, 0), context=tls)
    try:
        client.request("GET", path, headers={**SPOOFED, "Host": "example.com", **fields})
        response = client.getresponse()
        body = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status}: {body!r}")
        said: dict[str, Any] = json.loads(body)
        return said
    finally:
        client.close()


@contextlib.contextmanager
def proxy(command: list[str], folder: Path, port: int, **how: Any) -> Iterator[None]:
    """A proxy that runs, from the moment at which it passes a request on."""
    with (folder / "proxy.out").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        until = monotonic() + WAIT_S
        while True:
            try:
                ask(port, **how)
                break
            except (OSError, http.client.HTTPException):
                if monotonic() > until or process.poll() is not None:
                    said = "".join(file.read_text("utf-8", "replace") for file in folder.glob("proxy.*") if file.is_file())
                    raise AssertionError(f"nothing is passed on\n{said}") from None
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


@pytest.fixture
def start(tmp_path: Path, need: Callable[[str], str]) -> Iterator[Callable[..., Any]]:
    """Start nginx or HAProxy with a piece of configuration; returns its port."""
    with contextlib.ExitStack() as stack:

        def begin(name: str, body: str, **how: Any) -> int:
            program, port = need(name), free_port()
            folder = tmp_path / f"{name}-{port}"
            folder.mkdir()
            file = folder / "config"
            if name == "nginx":
                user = "user root;" if os.geteuid() == 0 else ""
                file.write_text(NGINX.format(folder=folder, port=port, user=user, body=body))
                command = [program, "-p", str(folder), "-c", str(file)]
            else:
                file.write_text(HAPROXY.format(body=body.replace("PORT", str(port))))
                command = [program, "-db", "-f", str(file)]
            stack.enter_context(proxy(command, folder, port, **how))
            return port

        yield begin


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    with contextlib.ExitStack() as stack:

        def begin(*options: str) -> LiveServer:
            write_app(tmp_path, APP)
            return stack.enter_context(LiveServer("main:app", "--workers", "2", *options, cwd=tmp_path))

        yield begin


def test_nginx_says_it_in_x_forwarded_for(start: Any, serve: Any) -> None:
    server = serve(*TRUST)
    port = start("nginx", f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}")
    assert ask(port) == {"client": [CLIENT, 0], "scheme": "http", "root_path": "", "path": "/x", "host": "example.com"}
    server.wait_line(rf'{CLIENT} "GET /x HTTP/1\.\d" 200', WAIT_S, stream="stdout")


def test_nginx_says_it_to_a_unix_socket(start: Any, serve: Any, tmp_path: Path) -> None:
    serve("--bind", f"unix:{tmp_path}/app.sock?mode=666", *TRUST)
    port = start("nginx", f"location / {{ proxy_pass http://unix:{tmp_path}/app.sock; }}")
    assert ask(port)["client"] == [CLIENT, 0]


def test_haproxy_says_it_in_x_forwarded_for(start: Any, serve: Any) -> None:
    server = serve(*TRUST)
    body = f"""
listen app
    mode http
    bind 127.0.0.1:PORT
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    server app 127.0.0.1:{server.port}
"""
    assert ask(start("haproxy", body)) == {"client": [CLIENT, 0], "scheme": "https", "root_path": "", "path": "/x", "host": "example.com"}


def test_haproxy_says_it_in_forwarded(start: Any, serve: Any) -> None:
    server = serve(*TRUST, "--forwarded-headers", "forwarded")
    body = f"""
listen app
    mode http
    bind 127.0.0.1:PORT
    http-request add-header Forwarded "for=%[src];proto=https;host=%[req.hdr(Host)]"
    http-request set-header Host inner.example
    server app 127.0.0.1:{server.port}
"""
    said = ask(start("haproxy", body))
    assert (said["client"], said["scheme"], said["host"]) == ([CLIENT, 0], "https", "example.com")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_haproxy_says_it_with_the_proxy_protocol(start: Any, serve: Any, version: str, mode: str) -> None:
    """Its health checks say that they are its own."""
    server = serve("--bind", "127.0.0.1:0?proxy_protocol=on", *TRUST)
    body = f"""
listen app
    mode {mode}
    bind 127.0.0.1:PORT
    option httpchk GET /healthy
    server app 127.0.0.1:{server.port} {version} check inter 50ms
"""
    port = start("haproxy", body)
    said = ask(port)
    host, client_port = said["client"]
    assert (host, said["scheme"]) == (CLIENT, "http")
    assert client_port > 0
    server.wait_line(rf'{CLIENT}:\d+ "GET /x HTTP/1\.1" 200', WAIT_S, stream="stdout")
    server.wait_line(r'127\.0\.0\.1:\d+ "\w+ /healthy HTTP/1\.\d" 200', WAIT_S, stream="stdout")
    assert not [line for line in server.lines if "closed" in line or "bad request" in line]


def test_haproxy_says_it_before_the_tls_that_it_passes_on(start: Any, serve: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = serve("--bind", "127.0.0.1:0?proxy_protocol=on", *TRUST, *authority.pair.flags)
    body = f"""
listen app
    mode tcp
    bind 127.0.0.1:PORT
    server app 127.0.0.1:{server.port} send-proxy-v2
"""
    tls = authority.client()
    port = start("haproxy", body, tls=tls)
    said = ask(port, tls=tls)
    assert (said["client"][0], said["scheme"]) == (CLIENT, "https")


def test_two_proxies_in_a_row_are_seen_through(start: Any, serve: Any) -> None:
    server = serve(*TRUST)
    inner = start("nginx", f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}")
    body = f"""
listen app
    mode http
    bind 127.0.0.1:PORT
    option forwardfor
    server inner 127.0.0.1:{inner}
"""
    # nginx has put HAProxy's address behind the client's.
    assert ask(start("haproxy", body))["client"] == [CLIENT, 0]


@pytest.mark.parametrize(
    ("location", "options"),
    [
        ("location /api/ {{ proxy_pass http://127.0.0.1:{port}/; }}", ["--root-path", "/api"]),
        ("location /api/ {{ proxy_pass http://127.0.0.1:{port}; }}", ["--mount-path", "/api"]),
        (
            "location /api/ {{ proxy_set_header X-Forwarded-Prefix /api; proxy_pass http://127.0.0.1:{port}/; }}",
            ["--forwarded-headers", "x-forwarded-prefix"],
        ),
    ],
)
def test_a_prefix_that_nginx_strips_keeps_or_tells_of(start: Any, serve: Any, location: str, options: list[str]) -> None:
    server = serve(*TRUST, *options)
    port = start("nginx", location.format(port=server.port), path="/api/x")
    said = ask(port, "/api/x")
    assert (said["root_path"], said["path"]) == ("/api", "/api/x")
