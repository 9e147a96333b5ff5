"""Flask: `cavalcade main:app --app-dir examples/flask_demo`. It is served as WSGI, in a thread of each worker beside its event loop.

Try `--threads 4` with /slow: four at once take as long as one. The event loop never waits for any of them.
"""

import os
import time
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def home() -> Response:
    return jsonify(hello="Flask", pid=os.getpid())


@app.get("/slow")
def slow() -> Response:
    """Blocks its thread, as a query of a database does."""
    time.sleep(float(request.args.get("seconds", "1")))
    return jsonify(hello="after a while", pid=os.getpid())


@app.post("/length")
def length() -> Response:
    """A body of any size, read bit by bit: while the app is behind, the client has to wait."""
    size = 0
    while piece := request.stream.read(65536):
        size += len(piece)
    return jsonify(bytes=size)


@app.get("/numbers")
def numbers() -> Response:
    """A stream: each piece leaves as soon as it is made."""

    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"{number}\n"

    return Response(lines(), mimetype="text/plain")
