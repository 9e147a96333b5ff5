"""Flask and Django over WSGI: what their users do with them, over HTTP/1.1, HTTPS and HTTP/2."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from cavalcade.testing import LiveServer

FLASK = """
    import hashlib, pathlib, threading, time
    from flask import Flask, Response, abort, jsonify, redirect, request, send_file, session, stream_with_context

    app = Flask(__name__)
    app.secret_key = "for the tests"
    HERE = pathlib.Path(__file__).parent
    (HERE / "large").write_bytes(bytes(range(256)) * 20_000)

    @app.get("/items/<int:number>")
    def item(number):
        return jsonify(number=number, q=request.args.get("q"), scheme=request.scheme, host=request.host, ip=request.remote_addr)

    @app.post("/form")
    def form():
        files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in request.files.items()}
        return jsonify(fields=request.form.to_dict(flat=False), files=files)

    @app.put("/raw")
    def raw():
        digest, size = hashlib.sha256(), 0
        while piece := request.stream.read(65536):
            digest.update(piece)
            size += len(piece)
        return f"{size} {digest.hexdigest()}"

    @app.get("/count")
    def count():
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    @app.get("/stream")
    def stream():
        return Response(stream_with_context(f"{n} {request.args['q']}\\n" for n in range(1000)), mimetype="text/plain")

    @app.get("/large")
    def large():
        return send_file(HERE / "large", mimetype="application/octet-stream", conditional=True)

    @app.get("/old")
    def old():
        return redirect("/items/1")

    @app.get("/fail")
    def fail():
        raise RuntimeError("flask view")

    @app.errorhandler(404)
    def missing(error):
        return jsonify(missing=request.path), 404
"""

DJANGO = """
    import hashlib, pathlib
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    HERE = pathlib.Path(__file__).parent
    (HERE / "large").write_bytes(bytes(range(256)) * 20_000)
    settings.configure(SECRET_KEY="for the tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF="main", INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies", DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware"])

    def item(request, number):
        return JsonResponse({"number": number, "q": request.GET.get("q"), "scheme": request.scheme, "host": request.get_host(),
                             "ip": request.META["REMOTE_ADDR"]})

    @csrf_exempt
    def form(request):
        files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in request.FILES.items()}
        return JsonResponse({"fields": dict(request.POST.lists()), "files": files})

    @csrf_exempt
    def raw(request):
        digest, size = hashlib.sha256(), 0
        while piece := request.read(65536):
            digest.update(piece)
            size += len(piece)
        return HttpResponse(f"{size} {digest.hexdigest()}")

    def count(request):
        request.session["count"] = request.session.get("count", 0) + 1
        return HttpResponse(str(request.session["count"]))

    def stream(request):
        return StreamingHttpResponse((f"{n} {request.GET['q']}\\n" for n in range(1000)), content_type="text/plain")

    def large(request):
        return FileResponse((HERE / "large").open("rb"), content_type="application/octet-stream")

    def old(request):
        return HttpResponseRedirect("/items/1")

    def fail(request):
        raise RuntimeError("django view")

    def handler404(request, exception):
        return JsonResponse({"missing": request.path}, status=404)

    urlpatterns = [path("items/<int:number>", item), path("form", form), path("raw", raw), path("count", count), path("stream", stream),
                   path("large", large), path("old", old), path("fail", fail)]
    app = get_wsgi_application()
"""

APPS = {"flask": FLASK, "django": DJANGO}
UPLOAD = random.Random(2).randbytes(3_000_000)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=[("flask", 0, False), ("flask", 2, True), ("django", 1, False)], ids=str)
def server(request: pytest.FixtureRequest, serve: Any, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """A framework, in the loop or in threads, in the clear or over TLS."""
    name, threads, tls = request.param
    options = ["--threads", str(threads)]
    if tls:
        pem = Path(tmp_path_factory.mktemp("tls"), "server.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        options += ["--ssl-certfile", str(pem)]
    started: LiveServer = serve(APPS[name], *options)
    return started


@pytest.fixture(params=["http/1.1", "h2"])
def client(request: pytest.FixtureRequest, server: LiveServer, authority: trustme.CA) -> Iterator[httpx.Client]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    old = request.param == "http/1.1"
    with httpx.Client(base_url=server.url, verify=context, http1=old, http2=not old, timeout=30.0) as client:
        yield client


def test_a_route_its_query_and_who_asks(client: httpx.Client, server: LiveServer) -> None:
    scheme, _, host = server.url.partition("://")
    answer = client.get("/items/7", params={"q": "\u00fc \u20ac"})
    assert answer.json() == {"number": 7, "q": "\u00fc \u20ac", "scheme": scheme, "host": host, "ip": "127.0.0.1"}


def test_a_form_with_a_file(client: httpx.Client) -> None:
    answer = client.post("/form", data={"a": ["1", "2"], "b": "\u00fc"}, files={"file": ("name", UPLOAD)})
    assert answer.json() == {"fields": {"a": ["1", "2"], "b": ["\u00fc"]}, "files": {"file": hashlib.sha256(UPLOAD).hexdigest()}}


def test_a_body_that_is_read_bit_by_bit(client: httpx.Client) -> None:
    assert client.put("/raw", content=UPLOAD).text == f"{len(UPLOAD)} {hashlib.sha256(UPLOAD).hexdigest()}"


def test_a_session_in_a_cookie(client: httpx.Client) -> None:
    assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]


def test_a_stream(client: httpx.Client) -> None:
    assert client.get("/stream", params={"q": "x"}).text == "".join(f"{n} x\n" for n in range(1000))


def test_a_file(client: httpx.Client) -> None:
    answer = client.get("/large")
    assert answer.headers["content-length"] == str(256 * 20_000)
    assert answer.content == bytes(range(256)) * 20_000


def test_redirects_errors_and_what_is_not_there(client: httpx.Client) -> None:
    assert client.get("/old").headers["location"] == "/items/1"
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.json()) == (404, {"missing": "/nowhere"})
    assert client.get("/fail").status_code == 500
    assert client.get("/items/1").json()["number"] == 1
    head = client.head("/large")
    assert (head.status_code, head.content) == (200, b"")
