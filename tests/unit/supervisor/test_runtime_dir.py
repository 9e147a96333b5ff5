"""The runtime directory is trusted for what it is, never for its name; and nobody's live socket is ever removed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cavalcade.supervisor import runtime_dir


def test_the_candidates_are_the_xdg_directory_then_run_user_then_tmp(tmp_path: Path) -> None:
    run, tmp, uid = tmp_path / "run", tmp_path / "tmp", os.getuid()
    rest = [run / str(uid) / "cavalcade", tmp / f"cavalcade-{uid}"]
    assert runtime_dir.candidates({"XDG_RUNTIME_DIR": "/mine"}, run=run, tmp=tmp) == [Path("/mine/cavalcade"), *rest]
    assert runtime_dir.candidates({}, run=run, tmp=tmp) == rest
    assert runtime_dir.candidates({"XDG_RUNTIME_DIR": "relative"}, run=run, tmp=tmp) == rest
    assert runtime_dir.candidates({"XDG_RUNTIME_DIR": str(run / str(uid))}, run=run, tmp=tmp) == rest


def test_a_new_directory_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        runtime_dir.claim(tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    runtime_dir.claim(tmp_path / "new")  # and ours stays ours


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777, 0o710, 0o701])
def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(PermissionError, match="is open to others"):
        runtime_dir.claim(tmp_path / "open")


def test_a_link_is_refused_even_to_a_directory_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(NotADirectoryError):
        runtime_dir.claim(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError):
        runtime_dir.claim(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    with pytest.raises(NotADirectoryError):
        runtime_dir.claim(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to user 12345"):
        runtime_dir.claim(tmp_path / "theirs")


def test_a_directory_without_a_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runtime_dir.claim(tmp_path / "nowhere" / "cavalcade")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("main:app", "main-app-7.sock"),
        ("../../etc/passwd", "etc-passwd-7.sock"),
        ("my shop (é)", "my-shop-7.sock"),
        ("::", "app-7.sock"),
        ("x" * 200, "x" * 40 + "-7.sock"),
    ],
)
def test_the_name_of_a_socket_is_plain_and_short(name: str, file: str) -> None:
    assert runtime_dir.socket_path(Path("/run"), name, 7) == Path("/run") / file


# -- stale sockets -----------------------------------------------------------------------------------------------------------


def bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_only_the_socket_of_a_dead_server_is_swept_away(tmp_path: Path) -> None:
    dead = dead_pid()
    bound(tmp_path / f"dead-{dead}.sock").close()
    with bound(tmp_path / f"alive-{dead}.sock") as alive, bound(tmp_path / f"begins-{os.getpid()}.sock"):  # bound, and not listening yet
        alive.listen(1)
        (tmp_path / f"file-{dead}.sock").touch()
        bound(tmp_path / "nopid.sock").close()
        bound(tmp_path / f"other-{dead}.socket").close()
        runtime_dir.clean(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"alive-{dead}.sock", f"begins-{os.getpid()}.sock", f"file-{dead}.sock", "nopid.sock", f"other-{dead}.socket"}


def test_a_socket_older_than_the_process_with_its_pid_is_stale(tmp_path: Path) -> None:
    path = tmp_path / f"before-{os.getpid()}.sock"
    bound(path).close()
    os.utime(path, (1, 1))
    runtime_dir.clean(tmp_path)
    assert not path.exists()


def test_a_live_server_whose_backlog_is_full_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / f"busy-{dead_pid()}.sock"
    with bound(path) as busy, socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        busy.listen(0)
        for client in (first, second):
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        runtime_dir.clean(tmp_path)
        assert path.exists()


def test_sockets_are_looked_for_only_where_nobody_else_can_put_one(tmp_path: Path) -> None:
    mine, open_to_all = tmp_path / "mine", tmp_path / "open"
    for directory in (mine, open_to_all):
        (directory / "cavalcade").mkdir(parents=True)
        (directory / "cavalcade").chmod(0o700)
        (directory / "cavalcade" / "main-app-7.sock").touch()
    (open_to_all / "cavalcade").chmod(0o777)
    assert mine / "cavalcade" / "main-app-7.sock" in list(runtime_dir.sockets({"XDG_RUNTIME_DIR": str(mine)}))
    assert open_to_all / "cavalcade" / "main-app-7.sock" not in list(runtime_dir.sockets({"XDG_RUNTIME_DIR": str(open_to_all)}))
