"""The dashboard in a real Chromium, of a real server: what it shows, to whom, and how it looks. Pictures are left in build/screenshots."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from cavalcade.cli.instances import Choice, find
from cavalcade.testing import LiveServer, write_app
from cavalcade.testing.clients import WAIT_S, get

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

TOKEN = "a-token-of-this-test-only"
NAME = "<b>shop</b>"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}

APP = """
import time


async def app(scope, receive, send):
    if scope["path"] == "/block":
        time.sleep(0.5)  # blocks
    status = 500 if scope["path"] == "/fail" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
BLOCKS = next(number for number, line in enumerate(APP.splitlines(), 1) if line.endswith("# blocks"))


class Page:
    """One page of a browser, steered over the DevTools protocol. `problems` is what its console said."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._session: dict[str, str] = {}
        self._last = 0
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", **DESKTOP)

    def call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        self._link.send(json.dumps({"id": self._last, "method": method, "params": parameters, **self._session}))
        while True:
            said = json.loads(self._link.recv(WAIT_S))
            if said.get("method") == "Log.entryAdded":
                self.problems.append(said["params"]["entry"]["text"])
            elif said.get("method") == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(said["params"]["exceptionDetails"]))
            elif said.get("id") == self._last:
                assert "error" not in said, said
                return said["result"]

    def js(self, code: str) -> Any:
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code: str) -> Any:
        """Wait in the page until it is true."""
        wait = f"const end = Date.now() + {WAIT_S * 1000}; const look = () => {{ const is = {code}; "
        wait += "if (is || Date.now() > end) done(is); else setTimeout(look, 30); }; look();"
        found = self.js(f"new Promise((done) => {{ {wait} }})")
        assert found, f"it never came true: {code}\n{self.js('document.body.innerText')}"
        return found

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.protocol === 'http:'")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def give_token(self, token: str) -> None:
        self.until("document.getElementById('ask').open && document.activeElement.id === 'token'")
        self.call("Input.insertText", text=token)
        self.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", windowsVirtualKeyCode=13)

    def picture(self, path: Path) -> None:
        height = self.js("document.documentElement.scrollHeight")
        width, scale = self.js("innerWidth"), self.js("devicePixelRatio")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width == PHONE["width"])
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        assert path.stat().st_size > 10_000

    def text(self, id: str) -> str:
        return str(self.js(f"document.getElementById('{id}').innerText"))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0"]
    command = [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            found = next(found for line in process.stderr if (found := re.search(r"ws://\S+", line)))
            rest = threading.Thread(target=process.stderr.read)  # or it would wait for somebody to read it
            rest.start()
            with connect(found[0], max_size=None, proxy=None) as link:
                yield Page(link)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            rest.join(WAIT_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("dashboard")
    write_app(folder, APP)
    options = ("--name", NAME, "--control", str(folder / "c.sock"), "--workers", "2", "--lifespan", "off", "--admin", "127.0.0.1:0")
    with LiveServer("main:app", *options, cwd=folder, env={"CAVALCADE_ADMIN_TOKEN": TOKEN}) as server:
        yield server


@pytest.fixture(scope="module")
def url(server: LiveServer) -> str:
    return str(server.wait_line(r"admin on (http://\S+)")[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_the_files_need_no_token_allow_nothing_inline_and_what_they_show_needs_one(url: str) -> None:
    address = url.removeprefix("http://").rstrip("/")

    def ask(path: str, host: str = "localhost") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(address, timeout=WAIT_S)
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        return connection.getresponse()

    for path, kind in (("/", "text/html"), ("/page/page.css", "text/css"), ("/page/page.js", "text/javascript")):
        response = ask(path)
        assert response.status == 200
        assert response.headers["content-type"] == f"{kind}; charset=utf-8"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", response.read())  # nothing of anybody else's
    assert ask("/page/nothing.js").status == 404
    assert ask("/page/..%2Fapp.py").status == 401  # whatever is no file of the page needs the token to be told so
    assert ask("/", host="evil.example").status == 421
    assert ask("/events").status == 401


def test_the_token_is_asked_for_and_kept_nowhere(page: Page, url: str) -> None:
    page.open(url)
    page.give_token("wrong-but-long-enough")
    page.until("document.getElementById('ask-says').textContent === 'That is not the token.'")
    page.give_token("no header: ü")
    page.until("document.getElementById('ask-says').textContent === 'That is not the token.'")
    page.give_token(TOKEN)
    page.until("document.getElementById('link').dataset.state === 'live'")
    kept = page.js(
        "location.href + document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.body.innerHTML"
    )
    assert TOKEN not in kept
    page.open(url)
    page.until("document.getElementById('ask').open")


def test_it_shows_the_server_as_it_is(page: Page, server: LiveServer, url: str, pytestconfig: pytest.Config) -> None:
    pictures = pytestconfig.rootpath / "build" / "screenshots"
    page.problems.clear()
    page.open(url)
    page.give_token(TOKEN)
    page.until("document.querySelectorAll('#workers tbody tr').length === 2")
    # Text from the server is text.
    assert page.js("document.getElementById('name').textContent") == f"{NAME} (main:app)"
    assert page.text("stage") == "serving"
    assert all(str(pid) in page.text("workers") for pid in server.worker_pids)
    # What happens is told within the second, with the line to blame.
    get(server, "/block")
    page.until(f"/stall\\s+worker \\d .* in main\\.py:{BLOCKS} app\\(\\)/.test(document.getElementById('feed').innerText)")
    page.until(f"document.getElementById('stalls').innerText.includes('main.py:{BLOCKS} app()')")
    victim = server.worker_pids[0]
    server.signal(signal.SIGKILL, victim)
    page.until(f"/death\\s+worker \\d \\(pid {victim}\\) was killed by SIGKILL/.test(document.getElementById('feed').innerText)")
    server.signal(signal.SIGHUP)
    page.until("/reload\\s+reloaded in/.test(document.getElementById('feed').innerText)")
    page.until("[...document.querySelectorAll('#workers tbody tr')].every((row) => row.cells[3].textContent === '2')")
    # The charts move.
    for _ in range(20):
        get(server, "/")
    for place in range(4):
        page.until(
            f"document.querySelectorAll('#charts svg[tabindex]')[{place}].querySelectorAll('path.line')[0].getAttribute('d').length > 20"
        )
    _assert_for_keyboard_and_reader(page)
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    page.picture(pictures / "desktop.png")
    light = page.js("getComputedStyle(document.body).backgroundColor")
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.js("getComputedStyle(document.body).backgroundColor") != light
    page.picture(pictures / "dark.png")
    page.call("Emulation.setDeviceMetricsOverride", **PHONE)
    assert page.js("document.documentElement.scrollWidth") == PHONE["width"]
    widest = "Math.max(...[...document.querySelectorAll('main *')].map((each) => each.getBoundingClientRect().right))"
    assert page.js(widest) <= PHONE["width"]
    page.picture(pictures / "phone.png")
    # Nothing but the question for the token was refused, and no script has failed.
    assert [text for text in page.problems if "401" not in text] == []


def _assert_for_keyboard_and_reader(page: Page) -> None:
    """Everything that can be reached by the pointer is reached with Tab, in order; and has a name and a role."""
    page.js("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(7):
        page.press("Tab", 9)
        reached.append(page.js("document.activeElement.getAttribute('aria-label') || document.activeElement.className"))
    assert [name.partition(":")[0] for name in reached[:4]] == [
        "Throughput, requests a second",
        "Latency",
        "In flight",
        "Loop lag by worker",
    ]
    assert reached[4:] == ["scroll", "scroll", "feed"]
    page.js("document.querySelector('#charts svg[tabindex]').focus()")
    page.press("ArrowLeft", 37)
    page.until("/ s ago/.test(document.querySelector('#charts svg[tabindex]').getAttribute('aria-label'))")
    page.until("document.querySelector('#charts .at').textContent.endsWith(' s ago')")
    page.press("Escape", 27)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    seen = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    assert {("region", "Workers"), ("log", "Events"), ("heading", "What blocks the loop, worst first")} <= seen
    assert {"table", "columnheader", "rowheader", "cell"} <= {role for role, _ in seen}
    assert any(role == "image" and name.startswith("Latency: p50 ") for role, name in seen)


def test_it_says_when_the_server_is_gone(page: Page, tmp_path: Path) -> None:
    write_app(tmp_path, APP)
    options = ("--control", "gone.sock", "--lifespan", "off", "--admin", "127.0.0.1:0", "--admin-open", "health")
    with LiveServer("main:app", *options, cwd=tmp_path, env={"CAVALCADE_ADMIN_TOKEN": TOKEN}) as server:
        page.open(str(server.wait_line(r"admin on (http://\S+)")[1]))
        page.give_token(TOKEN)
        page.until("document.getElementById('link').dataset.state === 'live'")
        assert find(Choice(str(tmp_path / "gone.sock")), {}).status.ready
        server.stop()
    page.until("document.getElementById('link').dataset.state === 'lost'")
    assert "Trying again" in page.until("document.getElementById('link').textContent.includes('Trying again') && document.body.innerText")
