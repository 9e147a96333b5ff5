"""The WSGI app of several: Flask."""

from flask import Flask, request, url_for

app = Flask(__name__)


@app.get("/hello")
def hello() -> dict[str, str]:
    return {"app": "shop", "script_name": request.environ["SCRIPT_NAME"], "path": request.path, "url": url_for("hello", _external=True)}


@app.post("/echo")
def echo() -> bytes:
    return request.get_data()
