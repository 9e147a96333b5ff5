"""Django over ASGI."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from cavalcade.testing import LiveServer

SOURCE = """
    import asyncio, os, threading
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.signals import request_finished, request_started
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="asgi", MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"])
    twenty = asyncio.Barrier(20)
    go = asyncio.Event()
    signals = []
    request_started.connect(lambda **_: signals.append("started"), weak=False)
    request_finished.connect(lambda **_: signals.append("finished"), weak=False)

    async def home(request):
        return JsonResponse({"hello": "Django", "ip": request.META["REMOTE_ADDR"], "host": request.get_host(), "q": request.GET.get("q")})

    async def meet(request):
        await twenty.wait()
        return JsonResponse({"pid": os.getpid()})

    def sync_view(request):
        return JsonResponse({"main": threading.current_thread() is threading.main_thread()})

    @csrf_exempt
    async def form(request):
        return JsonResponse({"fields": dict(request.POST.lists()), "files": {n: f.size for n, f in request.FILES.items()}})

    async def stream(request):
        async def parts():
            yield b"first\\n"
            await go.wait()
            yield b"second\\n"
        return StreamingHttpResponse(parts(), content_type="text/plain")

    async def set_go(request):
        go.set()
        return HttpResponse()

    async def fail(request):
        raise RuntimeError("django view")

    async def seen(request):
        return JsonResponse({"signals": signals})

    urlpatterns = [path("", home), path("meet", meet), path("sync", sync_view), path("form", form), path("stream", stream),
                   path("go", set_go), path("fail", fail), path("seen", seen)]
    application = get_asgi_application()
"""


@pytest.fixture(scope="module")
def server(serve: Any) -> LiveServer:
    started: LiveServer = serve(SOURCE, name="asgi", app="asgi:application")
    return started


def test_an_async_view(client: httpx.Client, server: LiveServer) -> None:
    answer = client.get("/", params={"q": "\u00fc"})
    assert answer.json() == {"hello": "Django", "ip": "127.0.0.1", "host": f"127.0.0.1:{server.port}", "q": "\u00fc"}


def test_a_sync_view_runs_in_a_thread(client: httpx.Client) -> None:
    assert client.get("/sync").json() == {"main": False}


def test_async_views_run_at_the_same_time(client: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.get("/meet"), range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20


def test_a_form_with_a_file(client: httpx.Client) -> None:
    answer = client.post("/form", data={"a": ["1", "2"]}, files={"file": ("x.bin", b"x" * 5_000_000)})
    assert answer.json() == {"fields": {"a": ["1", "2"]}, "files": {"file": 5_000_000}}


def test_a_stream_arrives_while_it_is_made(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as answer:
        chunks = answer.iter_bytes()
        assert next(chunks) == b"first\n"
        client.get("/go")
        assert b"".join(chunks) == b"second\n"


def test_an_error_is_djangos_own_500(client: httpx.Client) -> None:
    answer = client.get("/fail")
    assert answer.status_code == 500
    assert "Server Error" in answer.text


def test_a_host_that_django_does_not_allow_is_refused_by_django(client: httpx.Client) -> None:
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400


def test_request_signals_come_in_pairs(client: httpx.Client) -> None:
    signals = client.get("/seen").json()["signals"]
    assert signals.count("started") - signals.count("finished") == 1  # this request itself is not finished


def test_that_django_has_no_lifespan_is_not_an_event(server: LiveServer) -> None:
    # Django raises on a lifespan scope; in `auto` that means "not supported" and is nobody's error.
    assert not [line for line in server.lines if re.search(r"Traceback|lifespan.*(error|fail)|Django can only handle", line, re.IGNORECASE)]
