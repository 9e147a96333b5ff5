"""Addresses become listening sockets, all or none, and an error names who is in the way."""

from __future__ import annotations

import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cavalcade.errors import BindError
from cavalcade.net import holders, sockets
from cavalcade.net.listener import Listener, close
from cavalcade.testing.clients import free_port

Bind = Callable[..., list[Listener]]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture
def bind() -> Iterator[Bind]:
    made: list[Listener] = []

    def bind(*addresses: str) -> list[Listener]:
        listeners = sockets.bind_all(addresses, 16)
        made.extend(listeners)
        return listeners

    yield bind
    for listener in made:
        close(listener)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def _connects(family: int, address: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        return sock.connect_ex(address) == 0  # type: ignore[arg-type]


def test_port_0_takes_a_free_port_and_the_url_shows_it(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    port = listener.sock.getsockname()[1]
    assert listener.url == f"http://127.0.0.1:{port}"
    assert listener.address == f"127.0.0.1:{port}"
    assert _connects(socket.AF_INET, ("127.0.0.1", port))


def test_a_listener_does_not_block_is_not_inherited_and_sends_small_answers_at_once(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    assert not listener.sock.getblocking()
    assert not os.get_inheritable(listener.sock.fileno())
    assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0"])
def test_every_interface_is_bound_and_the_url_is_one_that_can_be_reached(bind: Bind, address: str) -> None:
    (listener,) = bind(address)
    host, port = listener.sock.getsockname()
    assert host == "0.0.0.0"
    assert listener.url == f"http://127.0.0.1:{port}"


@ipv6
def test_an_ipv6_wildcard_takes_no_ipv4_so_both_can_stand_side_by_side(bind: Bind) -> None:
    (v4,) = bind("0.0.0.0:0")
    port = v4.sock.getsockname()[1]
    (v6,) = bind(f"[::]:{port}")
    assert v6.url == f"http://[::1]:{port}"
    assert v6.address == f"[::]:{port}"
    assert v6.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_name_is_listened_on_at_each_of_its_addresses_with_one_port(bind: Bind) -> None:
    listeners = bind("localhost:0")
    found = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {listener.sock.getsockname()[0] for listener in listeners} <= found
    assert len({listener.sock.getsockname()[1] for listener in listeners}) == 1


@pytest.mark.parametrize(
    "address", ["", "no:such.host", "host:port", "1.2.3.4:99999", "[::1", "::1:80", "unix:", "unix:/x?mode=9", "unix:/x?size=3"]
)
def test_what_is_no_address_is_refused_with_what_would_be_one(address: str) -> None:
    with pytest.raises(BindError) as caught:
        sockets.bind_all([address], 16)
    assert caught.value.fix


def test_a_name_that_does_not_resolve_says_so() -> None:
    with pytest.raises(BindError, match=r'"no-such-host\.invalid" .* does not resolve'):
        sockets.bind_all(["no-such-host.invalid:8000"], 16)


def test_an_address_of_another_machine_says_so() -> None:
    with pytest.raises(BindError, match=r"192\.0\.2\.1 is not an address of this machine") as caught:
        sockets.bind_all(["192.0.2.1:8000"], 16)
    assert "0.0.0.0" in caught.value.fix


def test_a_port_in_use_names_the_process_its_command_user_and_age(taken: int) -> None:
    with pytest.raises(BindError) as caught:
        sockets.bind_all([f"127.0.0.1:{taken}"], 16)
    who = rf"pid {os.getpid()} \(.+, user {pwd.getpwuid(os.getuid()).pw_name}, up \d+ (s|min|h|d)\)"
    assert re.fullmatch(rf"Port {taken} on 127\.0\.0\.1 is in use by {who}\.", caught.value.cause)
    assert caught.value.fix == f"Use another port, for example --port {taken + 1}, or stop it: kill {os.getpid()}"


def test_a_port_in_use_on_every_interface_is_in_the_way_of_one(bind: Bind) -> None:
    (listener,) = bind("0.0.0.0:0")
    port = listener.sock.getsockname()[1]
    with pytest.raises(BindError, match=f"in use by pid {os.getpid()}"):
        sockets.bind_all([f"127.0.0.1:{port}"], 16)


def test_of_processes_that_share_a_port_the_parent_is_named() -> None:
    code = (
        "import os, socket, sys\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.stdin.read(); os._exit(0)\n"
        "print(sock.getsockname()[1], flush=True)\n"
        "sys.stdin.read(); os.waitpid(child, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(BindError, match=f"in use by pid {process.pid} "):
            sockets.bind_all([f"127.0.0.1:{port}"], 16)
        process.communicate()


def test_where_the_holder_cannot_be_seen_the_error_says_that_much(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(kind: str) -> object:
        raise holders.psutil.AccessDenied

    monkeypatch.setattr(holders.psutil, "net_connections", denied)
    with pytest.raises(BindError, match="in use by a process that this user may not see"):
        sockets.bind_all([f"127.0.0.1:{taken}"], 16)


def test_where_one_address_fails_none_is_left_open(taken: int, tmp_path: Path) -> None:
    free = free_port()
    path = tmp_path / "app.sock"
    with pytest.raises(BindError):
        sockets.bind_all([f"127.0.0.1:{free}", f"unix:{path}", f"127.0.0.1:{taken}"], 16)
    assert not _connects(socket.AF_INET, ("127.0.0.1", free))
    assert not path.exists()


def test_a_unix_socket_has_the_mode_asked_for_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    (listener,) = sockets.bind_all([f"unix:{path}?mode=600"], 16)
    assert listener.url == listener.address == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _connects(socket.AF_UNIX, str(path))
    close(listener)
    assert not path.exists()


def test_a_unix_socket_is_for_the_user_and_the_group_unless_told_otherwise(bind: Bind, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        bind(f"unix:{tmp_path}/app.sock")
        assert os.umask(0) == 0  # the process's own is as it was
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "app.sock").stat().st_mode) == 0o660


def test_a_socket_file_left_by_a_dead_server_is_taken_over(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    bind(f"unix:{path}")
    assert _connects(socket.AF_UNIX, str(path))


def test_a_socket_file_of_a_live_server_is_refused_and_the_server_named(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    bind(f"unix:{path}")
    with pytest.raises(BindError, match=f"{path} is in use by pid {os.getpid()} "):
        sockets.bind_all([f"unix:{path}"], 16)
    assert _connects(socket.AF_UNIX, str(path))


def test_a_live_server_is_told_from_those_whose_sockets_have_the_same_name_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel keeps a relative path as it was given, so in its list all of these are "app.sock".
    listen = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('app.sock'); s.listen(); print(flush=True); sys.stdin.read()"
    with ExitStack() as stack:
        holders: dict[Path, int] = {}
        for number in range(4):
            folder = tmp_path / str(number)
            folder.mkdir()
            argv = [sys.executable, "-c", listen]
            holder = stack.enter_context(subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert holder.stdout is not None
            holder.stdout.readline()
            holders[folder] = holder.pid
        for folder, pid in holders.items():
            monkeypatch.chdir(folder)
            with pytest.raises(BindError, match=f"app.sock is in use by pid {pid} "):
                sockets.bind_all(["unix:app.sock"], 16)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BindError, match=f"2/app.sock is in use by pid {holders[tmp_path / '2']} "):
            sockets.bind_all([f"unix:{tmp_path}/2/app.sock"], 16)


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(BindError, match="is not a socket"):
        sockets.bind_all([f"unix:{path}"], 16)
    assert path.read_text() == "precious"


def test_closing_leaves_the_socket_file_of_a_successor_alone(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    (first,) = sockets.bind_all([f"unix:{path}"], 16)
    path.unlink()
    bind(f"unix:{path}")
    close(first)
    assert _connects(socket.AF_UNIX, str(path))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"directory of .* does not exist") as caught:
        sockets.bind_all([f"unix:{tmp_path}/no/app.sock"], 16)
    assert caught.value.fix == f"mkdir -p {tmp_path}/no"


def test_whoever_finds_a_socket_file_can_connect_and_never_sees_another_mode(bind: Bind, tmp_path: Path) -> None:
    """Watched by another process, which looks as often as it can."""
    watch = """
import os, socket, stat, sys
test = os.getppid()
seen = set()
for path in sys.argv[1:]:
    print("watching", flush=True)
    while True:
        try:
            seen.add(oct(stat.S_IMODE(os.lstat(path).st_mode)))
            break
        except FileNotFoundError:
            if os.getppid() != test:
                sys.exit("the test is gone")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
    seen.add(oct(stat.S_IMODE(os.lstat(path).st_mode)))
print(sorted(seen))
"""
    paths = [str(tmp_path / f"{number}.sock") for number in range(50)]
    with subprocess.Popen([sys.executable, "-c", watch, *paths], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        for path in paths:
            assert watcher.stdout.readline() == "watching\n"
            bind(f"unix:{path}?mode=640&group={os.getgid()}")
        assert watcher.stdout.read() == "['0o640']\n"
    assert {each.name for each in tmp_path.iterdir()} == {Path(path).name for path in paths}


def test_the_file_of_a_dead_server_is_replaced_without_a_moment_in_between(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    watch = """
import os, sys
test = os.getppid()
before = os.lstat(sys.argv[1]).st_ino
print("watching", flush=True)
while os.lstat(sys.argv[1]).st_ino == before:
    if os.getppid() != test:
        sys.exit("the test is gone")
print("replaced")
"""
    with subprocess.Popen([sys.executable, "-c", watch, str(path)], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        bind(f"unix:{path}")
        assert watcher.stdout.read() == "replaced\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_a_socket_file_belongs_to_the_user_and_group_asked_for(bind: Bind, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    bind(f"unix:{tmp_path}/named.sock?user=nobody&group={nobody.pw_gid}&mode=600")
    found = (tmp_path / "named.sock").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o600)


def test_an_unknown_owner_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="there is no group nosuchgroup on this machine"):
        sockets.bind_all([f"unix:{tmp_path}/app.sock?group=nosuchgroup"], 16)
    assert list(tmp_path.iterdir()) == []


def test_who_may_not_give_a_socket_away_is_told_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        program = f"""
import os
from cavalcade.net import holders, sockets
from cavalcade.errors import BindError
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    sockets.bind_all(["unix:{folder}/app.sock?user=0"], 16)
except BindError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == f"This user may not give {folder}/app.sock to user 0.\n", done.stderr
        assert list(Path(folder).iterdir()) == []


def test_a_symbolic_link_in_place_of_a_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BindError, match="is not a socket"):
        sockets.bind_all([f"unix:{path}"], 16)
    assert path.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_of_two_that_start_at_a_dead_ones_path_at_once_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    program = f"""
import sys
from cavalcade.net import holders, sockets
from cavalcade.errors import BindError
print("there", flush=True)
sys.stdin.readline()
try:
    listeners = sockets.bind_all(["unix:{path}"], 16)
    print("listens", flush=True)
except BindError as error:
    print("in use" if "in use by pid" in str(error) else error, flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", program]
    starters = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = []
    for each in starters:
        assert each.stdout is not None
        assert each.stdout.readline() == "there\n"
    for each in starters:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    for each in starters:
        assert each.stdout is not None
        said.append(each.stdout.readline())
    for each in starters:
        each.communicate("\n")
    assert sorted(said) == ["in use\n", "listens\n"]


def test_a_path_that_is_too_long_says_how_long_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="too long for a unix socket: 107 bytes at most"):
        sockets.bind_all([f"unix:{tmp_path}/{'x' * 108}"], 16)


def test_a_name_in_the_kernel_is_listened_on_and_its_holder_named(bind: Bind) -> None:
    name = f"cavalcade-test-{os.getpid()}"
    (listener,) = bind(f"unix:@{name}")
    assert listener.address == f"unix:@{name}"
    assert _connects(socket.AF_UNIX, f"\0{name}")
    with pytest.raises(BindError, match=f"@{name} is in use by pid {os.getpid()} "):
        sockets.bind_all([f"unix:@{name}"], 16)


def test_an_inherited_descriptor_is_taken_as_it_is(bind: Bind) -> None:
    made = socket.create_server(("127.0.0.1", 0))
    port = made.getsockname()[1]
    (listener,) = bind(f"fd://{made.detach()}?proxy_protocol=on")
    assert (listener.url, listener.address) == (f"http://127.0.0.1:{port}", f"127.0.0.1:{port}")
    assert listener.proxy_protocol
    assert not os.get_inheritable(listener.sock.fileno())
    assert not listener.sock.getblocking()


def test_a_descriptor_that_does_not_listen_is_refused_and_left_open(tmp_path: Path) -> None:
    with socket.socket() as sock, (tmp_path / "file").open("w") as file:
        for fd, said in [(sock.fileno(), "does not listen"), (file.fileno(), "on non-socket"), (9999, "Bad file descriptor")]:
            with pytest.raises(BindError, match=said) as caught:
                sockets.bind_all([f"fd://{fd}"], 16)
            assert "systemd's are numbered from 3" in caught.value.fix
        os.fstat(sock.fileno())
        os.fstat(file.fileno())


@pytest.mark.skipif(os.getuid() == 0, reason="root may bind any port")
def test_a_privileged_port_says_what_it_needs() -> None:
    with pytest.raises(BindError, match="needs more rights"):
        sockets.bind_all(["127.0.0.1:1"], 16)
