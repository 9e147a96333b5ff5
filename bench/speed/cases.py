"""The kinds of work that are measured: the app, the load, who takes part, and how a right answer looks."""

from __future__ import annotations

import json
from dataclasses import dataclass

import apps

from speed.contenders import PEERS

JSON_BODY = json.dumps({"name": "lamp", "price": 12.5, "tags": ["new", "light"]}).encode()
JSON_ANSWER = b'{"name":"lamp","price":12.5,"tags":2}'
TEN_KB = b"abcdefghij" * 1024
MEGABYTE = b"m" * (1024 * 1024)
FILE_BODY = bytes(range(256)) * 200
IDLE = 10_000

BOTH = ("cavalcade", "cavalcade, pure")
WSGI = ("gunicorn gthread", "granian wsgi", "waitress", "uwsgi", "fastpysgi wsgi")
LIMITS = ("nginx", "bare uvloop")


@dataclass(frozen=True)
class Case:
    """One kind of work. `load` names what drives it (`speed.measure`); the rest is for that load."""

    name: str
    title: str
    app: str = "apps:raw"
    load: str = "wrk"
    contenders: tuple[str, ...] = BOTH + PEERS
    unit: str = "request"
    # The request, and the answer that is right.
    method: str = "GET"
    path: str = "/"
    body: bytes = b""
    headers: tuple[str, ...] = ()
    answer: bytes = apps.BODY
    # The load.
    connections: int = 64
    in_flight: int = 1
    tls: bool = False
    workers: int = 1
    rounds: int | None = None  # this many whatever was asked for: what does not differ from round to round


CASES = {
    case.name: case
    for case in (
        Case(
            "raw",
            "Raw ASGI hello, keep-alive",
            contenders=(*BOTH, "cavalcade, asyncio", "cavalcade, pure, asyncio", *PEERS, *LIMITS),
        ),
        Case("json", "FastAPI, JSON GET", "apps_fastapi:app", answer=b'{"message":"Hello, World!"}'),
        Case(
            "post",
            "FastAPI, POST of JSON that is validated",
            "apps_fastapi:app",
            method="POST",
            path="/items",
            body=JSON_BODY,
            headers=("content-type: application/json",),
            answer=JSON_ANSWER,
        ),
        Case("echo", "10 KB echo", "apps:body_echo", method="POST", body=TEN_KB, answer=TEN_KB),
        Case("upload", "1 MB upload", "apps:upload", method="POST", body=MEGABYTE, answer=b"%d" % len(MEGABYTE), connections=8),
        Case("download", "10 MB streamed download", "apps:download", answer=apps.CHUNK * apps.CHUNKS, connections=4),
        Case("file", "50 KB file", "apps:file", answer=FILE_BODY, connections=32),
        Case("churn", "Connection per request", headers=("Connection: close",), contenders=(*BOTH, *PEERS, *LIMITS), connections=32),
        Case("tls", "TLS, keep-alive hello", tls=True, contenders=(*BOTH, *PEERS, *LIMITS)),
        Case(
            "handshake",
            "TLS handshake per request",
            tls=True,
            headers=("Connection: close",),
            contenders=(*BOTH, *PEERS, *LIMITS),
            connections=32,
        ),
        Case("websocket", "WebSocket echo, one message in flight", "apps:echo", "websocket", unit="message", connections=16),
        Case(
            "websocket-16", "WebSocket echo, 16 messages in flight", "apps:echo", "websocket", unit="message", connections=16, in_flight=16
        ),
        Case("wsgi", "WSGI hello, keep-alive", "apps:wsgi", contenders=("cavalcade, threads=0", "cavalcade, threads=1", *WSGI)),
        Case("sleep", "10 ms sleep, 500 connections", "apps:sleep", connections=500),
        Case("http2", "HTTP/2 in the clear, GET", load="h2load", contenders=(*BOTH, *PEERS, "nginx"), connections=16, in_flight=8),
        Case(
            "http2-varied",
            "HTTP/2 in the clear, 500 targets and a browser's fields",
            load="h2load",
            contenders=(*BOTH, *PEERS, "nginx"),
            connections=16,
            in_flight=8,
        ),
        Case("idle", "10,000 idle keep-alive connections", load="idle", connections=IDLE, rounds=1),
        Case("start", "From the command to the first answer", load="start", unit="start"),
        Case(
            "tail",
            "Two workers, one of which burns CPU",
            "apps:burn",
            "tail",
            headers=("Connection: close",),
            connections=16,
            workers=2,
        ),
    )
}
"""By name, in the order of the tables."""
