"""`--static`: files without the app."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

BIG = random.Random(1).randbytes(300_000)
MODIFIED = 1_700_000_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with everything in it, and a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "public-not").mkdir()
    (tmp_path / "public-not" / "secret.txt").write_text("secret")
    root = tmp_path / "public"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / ".well-known").mkdir()
    for name, content in {
        "index.html": b"<h1>index</h1>",
        "a b+ü.txt": b"odd name",
        "app.js": b"js",
        "app.js.br": b"js as br",
        "app.js.zst": b"js as zst",
        "app.js.gz": b"js as gzip",
        "only.css": b"css",
        "only.css.gz": b"css as gzip",
        "big.bin": BIG,
        "empty": b"",
        "x.tar.gz": b"archive",
        ".env": b"secret",
        "sub/index.html": b"sub index",
        "sub/page.html": b"page",
        ".well-known/security.txt": b"contact",
    }.items():
        (root / name).write_bytes(content)
        os.utime(root / name, (MODIFIED, MODIFIED))
    (root / "inside").symlink_to("sub/page.html")
    (root / "outside").symlink_to("../secret.txt")
    (root / "outside-dir").symlink_to("..")
    (root / "sibling").symlink_to("../public-not")
    (root / "loop").symlink_to("loop")
    (root / "only.css.br").symlink_to("../secret.txt")
    os.mkfifo(root / "fifo")
    return root


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def wsgi(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("x-app", "yes")])
    return [environ["PATH_INFO"].encode("latin-1")]


APPS = {"asgi": {"app": asgi, "lifespan": "off"}, "wsgi": {"app": wsgi}, "wsgi in the loop": {"app": wsgi, "threads": 0}}


def ask(run: Any, serve: Any, site: Path, *requests: Any, app: str = "asgi", **options: Any) -> list[httpx.Response]:
    """Send the requests, (method, target, headers) each, on one connection; a target goes out exactly as it is."""
    options = {"static": [f"/static={site}"], **APPS[app], **options}

    async def main() -> list[Any]:
        answers = []
        async with serve(**options) as served:
            client = await served.connect()
            for method, target, *headers in requests:
                lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
                await client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
                response = await client.response(method)
                fields = dict(response.headers)
                assert len(fields) == len(response.headers)
                answers.append(httpx.Response(response.status, headers=fields, stream=httpx.ByteStream(response.body)))
                answers[-1]._content = response.body
        return answers

    answers: list[httpx.Response] = run(main())
    return answers


@pytest.mark.parametrize("app", APPS)
def test_files_beside_the_app(run: Any, serve: Any, site: Path, app: str) -> None:
    page, other, app_, near, none = ask(
        run,
        serve,
        site,
        ("GET", "/static/sub/page.html"),
        ("GET", "/static/big.bin"),
        ("GET", "/"),
        ("GET", "/statically"),
        ("GET", "/static/none"),
        app=app,
    )
    assert (page.status_code, page.content) == (200, b"page")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-length"] == "4"
    assert page.headers["last-modified"] == formatdate(MODIFIED, usegmt=True)
    assert page.headers["cache-control"] == "public, max-age=60"
    assert page.headers["accept-ranges"] == "bytes"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "vary" not in page.headers
    assert other.content == BIG
    assert other.headers["content-type"] == "application/octet-stream"
    assert other.headers["etag"] != page.headers["etag"]
    assert [answer.headers.get("x-app") for answer in (page, app_, near, none)] == [None, "yes", "yes", None]
    assert (none.status_code, none.headers["cavalcade-reason"]) == (404, "static")


@pytest.mark.parametrize(
    "target",
    [
        "/static/../secret.txt",
        "/static/sub/../../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/sub%2fpage.html",
        "/static/sub%2Fpage.html",
        "/static/sub%5cpage.html",
        "/static/sub\\page.html",
        "/static//sub/page.html",
        "/static/sub//page.html",
        "/static/./index.html",
        "/static/sub/./page.html",
        "/static/index.html%00",
        "/static/index.html%00.js",
        "/static/%00",
        "/static/index.html/",
        "/static/index.html/x",
        "/static/outside",
        "/static/outside-dir/secret.txt",
        "/static/sibling/secret.txt",
        "/static/loop",
        "/static/fifo",
        "/static/.env",
        "/static/sub/.git/config",
        "/static/sub/empty",
        "/static/sub/empty/",
        "/static/" + "x" * 300,
        "/static/" + "x/" * 3000,
        "/static/%ff",
        "/static/~root",
        "/static/c:%5cwindows",
    ],
    ids=lambda target: target[:40],
)
def test_what_is_not_found(run: Any, serve: Any, site: Path, target: str) -> None:
    answer, after = ask(run, serve, site, ("GET", target), ("GET", "/static/sub/page.html"))
    assert (answer.status_code, answer.content) == (404, b"Not Found\n")
    assert after.content == b"page"


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/static/", b"<h1>index</h1>"),
        ("/static/sub/", b"sub index"),
        ("/static/inside", b"page"),
        ("/static/a%20b+%C3%BC.txt", b"odd name"),
        ("/st%61tic/sub/page%2ehtml?query", b"page"),
        ("http://test/static/sub/page.html", b"page"),
        ("/static/empty", b""),
        ("/static/.well-known/security.txt", b"contact"),
        ("/static/x.tar.gz", b"archive"),
    ],
)
def test_what_is_found(run: Any, serve: Any, site: Path, target: str, content: bytes) -> None:
    (answer,) = ask(run, serve, site, ("GET", target))
    assert (answer.status_code, answer.content) == (200, content)
    assert "content-encoding" not in answer.headers
    if target.endswith("gz"):
        assert answer.headers["content-type"] == "application/gzip"


@pytest.mark.parametrize(
    ("target", "location"),
    [("/static", "./static/"), ("/static/sub?a=b", "./sub/?a=b"), ("/static/s%75b", "./s%75b/"), ("/st%61tic", "./st%61tic/")],
)
def test_a_directory_without_its_slash(run: Any, serve: Any, site: Path, target: str, location: str) -> None:
    (answer,) = ask(run, serve, site, ("GET", target))
    assert (answer.status_code, answer.headers["location"], answer.content) == (301, location, b"")


def test_methods(run: Any, serve: Any, site: Path) -> None:
    head, big, options, post, delete, none, get = ask(
        run,
        serve,
        site,
        ("HEAD", "/static/app.js", "Accept-Encoding: br"),
        ("HEAD", "/static/big.bin", "Range: bytes=0-9"),
        ("OPTIONS", "/static/none"),
        ("POST", "/static/app.js", "Content-Length: 0"),
        ("DELETE", "/static/none"),
        ("HEAD", "/static/none"),
        ("GET", "/static/sub/page.html", "Content-Length: 0"),
    )
    assert (head.status_code, head.headers["content-length"], head.headers["content-encoding"]) == (200, "8", "br")
    assert (big.status_code, big.headers["content-length"]) == (200, "300000")  # RFC 9110 section 14.2: Range is for GET
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert delete.status_code == 405
    assert none.status_code == 404
    assert get.content == b"page"


def test_a_post_with_a_body_does_not_upset_the_next_request(run: Any, serve: Any, site: Path) -> None:
    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/static={site}"]) as served:
            client = await served.connect()
            await client.send(b"POST /static/app.js HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
            await client.send(b"GET /static/sub/page.html HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await client.response()).status == 405
            assert (await client.response()).body == b"page"

    run(main())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["If-None-Match: {etag}"], 304),
        (["If-None-Match: W/{etag}"], 304),
        (['If-None-Match: "x", {etag}'], 304),
        (['If-None-Match: "x"', "If-None-Match: {etag}"], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x"'], 200),
        (['If-None-Match: "x"', "If-Modified-Since: {modified}"], 200),  # the tag counts, not the date
        (["If-Modified-Since: {modified}"], 304),
        (["If-Modified-Since: {later}"], 304),
        (["If-Modified-Since: {earlier}"], 200),
        (["If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT"], 304),
        (["If-Modified-Since: Tue Nov 14 22:13:20 2023"], 304),
        (["If-Modified-Since: rubbish"], 200),
        (["If-Modified-Since: 99999999999999999999"], 200),
        (["If-Match: {etag}"], 200),
        (["If-Match: W/{etag}"], 412),
        (['If-Match: "x"'], 412),
        (["If-Match: *"], 200),
        (["If-Unmodified-Since: {modified}"], 200),
        (["If-Unmodified-Since: {earlier}"], 412),
        (["If-Match: {etag}", "If-Unmodified-Since: {earlier}"], 200),
        (["If-Unmodified-Since: rubbish"], 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(run: Any, serve: Any, site: Path, method: str, fields: list[str], status: int) -> None:
    (plain,) = ask(run, serve, site, ("GET", "/static/sub/page.html"))
    dates = {name: formatdate(MODIFIED + shift, usegmt=True) for name, shift in (("modified", 0), ("later", 9), ("earlier", -9))}
    filled = [field.format(etag=plain.headers["etag"], **dates) for field in fields]
    (answer,) = ask(run, serve, site, (method, "/static/sub/page.html", *filled))
    assert answer.status_code == status
    if status == 304:
        assert answer.headers["etag"] == plain.headers["etag"]
        assert answer.headers["cache-control"] == plain.headers["cache-control"]
        assert "content-length" not in answer.headers


@pytest.mark.parametrize("name", ["sub/page.html", "big.bin"])
@pytest.mark.parametrize(
    ("range_", "part"),
    [
        ("bytes=0-1", slice(0, 2)),
        ("bytes=1-", slice(1, None)),
        ("bytes=-2", slice(-2, None)),
        ("BYTES= 0-0 ", slice(0, 1)),
        ("bytes=1-999999", slice(1, None)),
        ("bytes=-999999", slice(0, None)),
        ("bytes=999999-", None),
        ("bytes=-0", None),
        ("bytes=99999999999999999999999-", None),
        ("bytes=2-1", slice(0, 0)),
        ("bytes=-", slice(0, 0)),
        ("bytes=a-b", slice(0, 0)),
        ("bytes=0-1,2-3", slice(0, 0)),
        ("lines=0-1", slice(0, 0)),
        ("0-1", slice(0, 0)),
    ],
)
def test_ranges(run: Any, serve: Any, site: Path, name: str, range_: str, part: slice | None) -> None:
    """None stands for 416, an empty slice for the whole file."""
    data = (site / name).read_bytes()
    answer, whole = ask(run, serve, site, ("GET", f"/static/{name}", f"Range: {range_}"), ("GET", f"/static/{name}"))
    assert whole.content == data
    if part is None:
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(data)}")
    elif part == slice(0, 0):
        assert (answer.status_code, answer.content) == (200, data)
    else:
        start, end, _ = part.indices(len(data))
        assert (answer.status_code, answer.content) == (206, data[part])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
        assert answer.headers["etag"] == whole.headers["etag"]


def test_if_range(run: Any, serve: Any, site: Path) -> None:
    (plain,) = ask(run, serve, site, ("GET", "/static/big.bin"))
    fresh = site / "fresh.bin"
    fresh.write_bytes(b"fresh")  # a date says nothing of a file that may change again within its second
    now = formatdate(fresh.stat().st_mtime, usegmt=True)
    etag = plain.headers["etag"]
    modified = plain.headers["last-modified"]
    answers = ask(
        run,
        serve,
        site,
        *(("GET", "/static/big.bin", "Range: bytes=0-9", f"If-Range: {value}") for value in (etag, modified, f"W/{etag}", '"x"', now, "x")),
        ("GET", "/static/fresh.bin", "Range: bytes=0-1", f"If-Range: {now}"),
    )
    assert [answer.status_code for answer in answers] == [206, 206, 200, 200, 200, 200, 200]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, ""),
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("br;q=0.5, gzip;q=0.8", "gzip"),
        ("br;q=0, zstd;q=0, gzip", "gzip"),
        ("*", "br"),
        ("*;q=0.1, br;q=0", "zstd"),
        ("gzip;q=0.5, identity", ""),
        ("gzip, identity", "gzip"),
        ("identity;q=0", ""),
        ("deflate", ""),
        ("BR", "br"),
        ("br;q=rubbish, gzip", "gzip"),
        (";;,,q=1", ""),
    ],
)
def test_precompressed_siblings(run: Any, serve: Any, site: Path, accept: str | None, coding: str) -> None:
    fields = [] if accept is None else [f"Accept-Encoding: {accept}"]
    answer, plain = ask(run, serve, site, ("GET", "/static/app.js", *fields), ("GET", "/static/app.js"))
    assert answer.headers.get("content-encoding", "") == coding
    assert answer.content == (f"js as {answer.headers['content-encoding'].replace('zstd', 'zst')}".encode() if coding else b"js")
    assert answer.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (answer.headers["etag"] == plain.headers["etag"]) == (not coding)


def test_a_sibling_outside_of_the_directory_is_none(run: Any, serve: Any, site: Path) -> None:
    (answer,) = ask(run, serve, site, ("GET", "/static/only.css", "Accept-Encoding: br, gzip;q=0.1"))
    assert answer.content == b"css as gzip"


def test_the_longest_prefix_and_the_root(run: Any, serve: Any, site: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "page.html").write_text("other")
    static = [f"/={site}", f"/static/sub={tmp_path / 'other'}/", f"/static/={site}"]
    root, under, other, none = ask(
        run, serve, site, ("GET", "/"), ("GET", "/static/index.html"), ("GET", "/static/sub/page.html"), ("GET", "//x"), static=static
    )
    assert (root.content, under.content, other.content) == (b"<h1>index</h1>", b"<h1>index</h1>", b"other")
    assert none.status_code == 404


def test_a_directory_that_is_swapped_while_we_serve(run: Any, serve: Any, site: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "index.html").write_text("new")
    current = tmp_path / "current"
    current.symlink_to(site)

    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/s={current}"], static_max_age=0) as served:
            async with httpx.AsyncClient(base_url=served.url) as client:
                before = await client.get("/s/")
                assert (before.text, before.headers["cache-control"]) == ("<h1>index</h1>", "no-cache")
                (tmp_path / "next").symlink_to(new)
                (tmp_path / "next").replace(current)
                assert (await client.get("/s/")).text == "new"
                current.unlink()
                assert (await client.get("/s/")).status_code == 404

    run(main())


def test_a_file_that_may_not_be_read(run: Any, serve: Any) -> None:
    root = Path(tempfile.mkdtemp())  # that of pytest can only be entered by its user
    root.chmod(0o755)
    (root / "closed.txt").write_text("closed")
    (root / "closed.txt").chmod(0)
    user = os.geteuid()

    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/static={root}"], errors=("Permission denied",)) as served:
            if user == 0:
                os.seteuid(65534)  # root may read every file
            for _ in range(2):  # the log says it once in a while
                assert (await served.ask(b"GET /static/closed.txt HTTP/1.1\r\nHost: test\r\n\r\n")).status == 404

    try:
        run(main())
    finally:
        if user == 0:
            os.seteuid(0)
        shutil.rmtree(root)


def test_over_http2_and_its_files_are_closed(run: Any, serve: Any, site: Path) -> None:
    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/static={site}"]) as served:
            async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
                await client.get("/static/big.bin")
                before = len(os.listdir("/proc/self/fd"))
                answers = await asyncio.gather(*(client.get("/static/big.bin", headers={"range": f"bytes={at}-"}) for at in range(20)))
                assert [answer.content for answer in answers] == [BIG[at:] for at in range(20)]
                assert (await client.get("/other")).headers["x-app"] == "yes"
                assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_clients_that_leave_while_the_disk_is_looked_at(run: Any, serve: Any, site: Path) -> None:
    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/static={site}"]) as served:
            client = await served.connect()
            await client.send(b"GET /static/app.js HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.response()
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(50):
                leaving = await served.connect(receive_buffer=4096)
                await leaving.send(b"GET /static/big.bin HTTP/1.1\r\nHost: test\r\n\r\n")
                with contextlib.suppress(OSError):
                    leaving.reset()
            await served.until(lambda: served.connections == 1)
            await served.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert not served.server._context.serving.running

    run(main())


def test_a_disk_that_hangs_holds_up_nobody_else(run: Any, serve: Any, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that hangs cannot be had here, so the system call is made to."""
    go_on = threading.Event()
    real_stat = os.stat

    def hanging(path: Any, *more: Any, **options: Any) -> Any:
        if isinstance(path, str) and "app.js." in path:
            go_on.wait(20)
        return real_stat(path, *more, **options)

    async def main() -> None:
        async with serve(asgi, lifespan="off", static=[f"/static={site}"], request_timeout=0.6) as served:
            monkeypatch.setattr(os, "stat", hanging)
            stuck = [await served.connect() for _ in range(6)]
            for client in stuck:
                await client.send(b"GET /static/app.js HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await served.ask(b"GET /app HTTP/1.1\r\nHost: test\r\n\r\n")).body == b"/app"
            assert [(await client.response()).status for client in stuck] == [504] * 6
            go_on.set()
            assert (await served.ask(b"GET /static/sub/page.html HTTP/1.1\r\nHost: test\r\n\r\n")).body == b"page"

    run(main())


def test_where_nothing_is_static_nobody_asks(run: Any, serve: Any, site: Path) -> None:

    async def main() -> None:
        async with serve(asgi, lifespan="off") as served:
            assert served.server._context.new_call is None
            assert served.server._static is None

    run(main())
