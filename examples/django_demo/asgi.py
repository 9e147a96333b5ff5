"""Django in one file: `cavalcade asgi:application --app-dir examples/django_demo`.

A project made with `django-admin startproject` has the same object in its own asgi.py.
"""

import asyncio
import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    DEBUG=os.environ.get("DEBUG") == "1",
    SECRET_KEY=os.environ.get("SECRET_KEY", "for the example only"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
    ROOT_URLCONF="asgi",
)


async def home(request: HttpRequest) -> JsonResponse:
    await asyncio.sleep(0)
    return JsonResponse({"hello": "Django", "pid": os.getpid()})


def in_a_thread(request: HttpRequest) -> JsonResponse:
    """A classic view: Django runs it in a thread."""
    return JsonResponse({"hello": "from a thread", "pid": os.getpid()})


urlpatterns = [path("", home), path("sync", in_a_thread)]
application = get_asgi_application()
