"""TLS of a whole server: what refuses to start, what is renewed without anybody noticing, and what a change of workers loses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cavalcade.testing import LiveServer
from cavalcade.testing.clients import PAUSE_S
from cavalcade.testing.traffic import GENTLE, Traffic, deploy

WAIT_S = 20.0


def ask(server: LiveServer, context: ssl.SSLContext, path: str = "/") -> tuple[str, str]:
    """One request on a connection of its own: the body, and the serial number of the certificate that was shown."""
    with socket.create_connection(server.address, timeout=WAIT_S) as plain:
        with context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
            shown: Any = sock.getpeercert()
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while piece := sock.recv(65536):
                data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return body.decode(), str(shown["serialNumber"])


# -- what refuses to start ---------------------------------------------------------------------------------------------------


def test_a_key_that_does_not_fit_refuses_to_start_and_nothing_is_served(project: Any, authority: Any) -> None:
    other = authority.issue("other")
    flags = ["--ssl-certfile", str(authority.pair.certfile), "--ssl-keyfile", str(other.keyfile)]
    with project.server(*flags, "--log-format", "plain", ready=False) as server:
        server.wait_exit(3)
        assert any("does not belong to this certificate" in line and str(other.keyfile) in line for line in server.lines)
        assert not any("listening" in line for line in server.lines)


def test_a_missing_file_and_a_missing_password_refuse_to_start(project: Any, authority: Any) -> None:
    for key, words in ((authority.folder / "gone.key", "No such file"), (authority.pair.encrypt_key("hush"), "no password is given")):
        with project.server("--ssl-certfile", str(authority.pair.certfile), "--ssl-keyfile", str(key), ready=False) as server:
            server.wait_exit(3)
            assert any(words in line and str(key) in line for line in server.lines)


def test_an_expired_certificate_is_served_with_a_warning(project: Any, authority: Any) -> None:
    expired = authority.issue("expired", days=-1, since=30)
    with project.server(*expired.flags) as server:
        server.wait_line(r"warning .*TLS: the certificate .*expired\.pem \(.*\) has expired on ")
        context = authority.client(check_hostname=False, verify_mode=ssl.CERT_NONE)
        with socket.create_connection(server.address) as plain, context.wrap_socket(plain):
            pass


def test_check_tells_of_certificates(project: Any, authority: Any) -> None:
    def check(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cavalcade", "check", "main:app", "--bind", "127.0.0.1:0", "--log-format", "plain", *flags]
        return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=WAIT_S, check=False)

    good = check(*authority.pair.flags)
    assert good.returncode == 0, good.stderr
    assert f"ok  tls: {authority.pair.certfile}: localhost, " in good.stdout
    bad = check("--ssl-certfile", str(authority.pair.certfile))
    assert bad.returncode == 3
    assert "there is no private key in it" in bad.stderr


def test_the_password_of_a_key_is_shown_nowhere(project: Any, authority: Any) -> None:
    secret = "correct-horse-battery"
    pair = authority.pair
    flags = ["--ssl-certfile", str(pair.certfile), "--ssl-keyfile", str(pair.encrypt_key(secret)), "--ssl-keyfile-password", secret]
    with project.server(*flags, "--log-level", "debug") as server:
        assert ask(server, authority.client())[0] == "v1"
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(family) == 4
        assert not any(secret in " ".join(process.cmdline()) for process in family)
        server.stop()
        assert secret not in server.transcript().partition("\n")[2]
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "cavalcade", "config", "show", "main:app", *flags, *more]
        shown = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
        assert secret not in shown
        assert "********" in shown
    assert json.loads(shown)["ssl_keyfile_password"] == {"value": "********", "origin": "--ssl-keyfile-password"}


# -- certificates that change ------------------------------------------------------------------------------------------------


class Handshakes:
    """Clients that connect, ask and leave, over and over; `serials` is what they were shown, `failures` what went wrong."""

    def __init__(self, server: LiveServer, context: ssl.SSLContext) -> None:
        self.serials: list[str] = []
        self.failures: list[str] = []
        self._server, self._context = server, context
        self._over = threading.Event()
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._go, daemon=True) for _ in range(3)]

    def _go(self) -> None:
        while not self._over.wait(PAUSE_S):
            try:
                serial = ask(self._server, self._context)[1]
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
                continue
            with self._more:
                self.serials.append(serial)
                self._more.notify_all()

    def wait_only(self, serial: str, count: int = 30) -> None:
        """Wait until that certificate was shown so many times in a row."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.serials) >= count and set(self.serials[-count:]) == {serial}, WAIT_S), self.serials[
                -5:
            ]

    def __enter__(self) -> Handshakes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)


@pytest.mark.slow
def test_a_renewal_under_load_fails_no_handshake(project: Any, authority: Any, tmp_path: Path, loop_name: str) -> None:
    """As in Kubernetes: the directory is swapped by its link. A pair that does not fit is refused with one line, and the old stays."""
    first, second, third = authority.pair, authority.issue("second"), authority.issue("third")

    def release(name: str, cert: Any, key: Any) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tls.crt").write_bytes(cert.certfile.read_bytes())
        (folder / "tls.key").write_bytes(key.keyfile.read_bytes())
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").replace(tmp_path / "..data")

    release("v1", first, first)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    flags = ["--ssl-certfile", str(tmp_path / "tls.crt"), "--ssl-keyfile", str(tmp_path / "tls.key"), "--loop", loop_name]
    with project.server(*flags) as server, Handshakes(server, authority.client()) as clients:
        clients.wait_only(first.serial)
        release("v2", second, second)
        server.wait_line(r"TLS: new certificate from .*tls\.crt: localhost, .*good until")
        clients.wait_only(second.serial)
        release("v3", third, second)
        refused = server.wait_line(
            r"error .*TLS: the new files are not taken up: .*does not belong to this certificate; still served: localhost"
        )
        clients.wait_only(second.serial)
        mark = server.mark()
        release("v4", third, third)
        clients.wait_only(third.serial)
        server.wait_line("TLS: new certificate", after=mark)
    assert sum("not taken up" in line for line in server.lines) == 1, refused
    assert clients.failures == []


def test_a_worker_that_starts_later_begins_with_what_is_served_and_not_with_bad_files(project: Any, authority: Any) -> None:
    pair, second = authority.pair, authority.issue("second")
    with project.server(*pair.flags, "--log-level", "debug", workers=1) as server:
        pair.replace_by(second)
        server.wait_line("nursery: new certificates")
        pair.keyfile.write_bytes(authority.issue("other").keyfile.read_bytes())
        server.wait_line("TLS: the new files are not taken up")
        server.signal(signal.SIGKILL, server.worker_pids[0])
        server.wait_line(r"worker 2 .*ready")
        assert ask(server, authority.client())[1] == second.serial


def test_a_reload_with_a_bad_pair_is_refused(project: Any, authority: Any) -> None:
    pair, first = authority.pair, authority.pair.serial
    with project.server(*pair.flags) as server:
        pair.keyfile.write_bytes(authority.issue("other").keyfile.read_bytes())
        project.deploy("v2")
        server.signal(signal.SIGHUP)
        server.wait_line("Reload refused: .*does not belong to this certificate")
        assert ask(server, authority.client()) == ("v1", first)
        second = authority.issue("second")
        pair.replace_by(second)
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_line("reloaded in", after=mark)
        assert ask(server, authority.client()) == ("v2", second.serial)


def test_a_session_is_resumed_by_any_worker(project: Any, authority: Any, tmp_path: Path) -> None:
    """Tickets of one worker are good at the others: each would make a key of its own after the fork."""
    tool = shutil.which("openssl")
    assert tool, "this test needs openssl"
    with project.server(*authority.pair.flags, workers=3) as server:
        command = [tool, "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", str(authority.file), "-ign_eof"]
        request = b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

        def connect(*more: str) -> bytes:
            return subprocess.run([*command, *more], input=request, capture_output=True, timeout=WAIT_S, check=True).stdout

        for version in ("-tls1_2", "-tls1_3"):
            session = str(tmp_path / f"session{version}")
            assert b"\nNew, TLS" in connect(version, "-sess_out", session)
            answers = [connect(version, "-sess_in", session) for _ in range(12)]
            assert all(b"\nReused, TLS" in answer for answer in answers)
            assert len({re.findall(rb"\r\n\r\n(\d+)", answer)[0] for answer in answers}) > 1  # of the workers


# -- workers that come and go --------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(tmp_path: Path, authority: Any, loop_name: str) -> Iterator[Callable[..., Any]]:
    """A server of HTTPS, and all kinds of traffic on it."""

    @contextlib.contextmanager
    def begin(*options: str) -> Iterator[tuple[LiveServer, Traffic]]:
        folder = tmp_path / "app"
        folder.mkdir()
        deploy(folder)
        flags = [*authority.pair.flags, "--workers", "2", "--loop", loop_name, "--no-access-log", *options]
        with LiveServer("main:app", *flags, cwd=folder) as server, Traffic(server.address, GENTLE, trust=authority.file) as traffic:
            yield server, traffic

    return begin


@pytest.mark.slow
def test_a_reload_loses_nothing(busy: Any) -> None:
    with busy() as (server, traffic):
        for number in (2, 3):
            traffic.wait_requests(traffic.progress.requests + 300)
            deploy(server._cwd, f"v{number}")
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_line("reloaded in", WAIT_S, after=mark)
        traffic.wait_requests(traffic.progress.requests + 300)
    assert traffic.report.failed == 0, traffic.report.explain()
    assert set(traffic.report.versions) == {"v1", "v2", "v3"}


@pytest.mark.slow
def test_recycling_and_scaling_lose_nothing(busy: Any) -> None:
    with busy("--max-requests", "200") as (server, traffic):
        traffic.wait_requests(800)
        server.signal(signal.SIGTTIN)
        traffic.wait_requests(1200)
        server.signal(signal.SIGTTOU)
        traffic.wait_requests(2400)
    assert traffic.report.failed == 0, traffic.report.explain()
    assert len(traffic.report.pids) > 3  # the two that began, the one that came for a while, and those that took over


@pytest.mark.slow
def test_an_upgrade_loses_nothing(busy: Any) -> None:
    with busy() as (server, traffic):
        traffic.wait_requests(300)
        server.signal(signal.SIGUSR2)
        pid = int(server.wait_line(r"upgraded: whoever connects from now on is served by pid (\d+)", WAIT_S)[1])
        assert server.process.wait(WAIT_S) == 0
        traffic.wait_requests(traffic.progress.requests + 300)
        report = traffic.stop()
        server.wait_line(rf"\[{pid}\] .*listening on https://", after=0)
        os.kill(pid, signal.SIGTERM)
        server.wait_line(rf"\[{pid}\] .*stopped after", WAIT_S)
    assert report.failed == 0, report.explain()


@pytest.mark.slow
def test_a_stop_answers_whoever_was_let_in(busy: Any) -> None:
    with busy() as (server, traffic):
        traffic.wait_requests(300)
        told = time.monotonic()
        server.stop()
    lost = [note for note in traffic.report.failures if note.what != "refused" or note.ended < told]
    # A connection that had its handshake begun when the last worker left had sent no request.
    assert [note for note in lost if note.what != "handshake"] == [], traffic.report.explain()
