"""Django over WSGI in one file: `cavalcade wsgi:application --app-dir examples/django_wsgi_demo`. A thread of each worker runs it, beside
the worker's event loop.

A project made with `django-admin startproject` has the same object in its own wsgi.py. Where it has an asgi.py too, that one is found
first: name the one you mean.
"""

import os
from collections.abc import Iterator

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=os.environ.get("DEBUG") == "1",
    SECRET_KEY=os.environ.get("SECRET_KEY", "for the example only"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
    ROOT_URLCONF="wsgi",
)


def home(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"hello": "Django", "pid": os.getpid(), "secure": request.is_secure()})


def length(request: HttpRequest) -> JsonResponse:
    """A body of any size, read bit by bit: while the app is behind, the client has to wait."""
    size = 0
    while piece := request.read(65536):
        size += len(piece)
    return JsonResponse({"bytes": size})


def numbers(request: HttpRequest) -> StreamingHttpResponse:
    """A stream: each piece leaves as soon as it is made."""

    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"{number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


urlpatterns = [path("", home), path("length", length), path("numbers", numbers)]
application = get_wsgi_application()
