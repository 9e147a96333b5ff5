"""Measure WebSocket echo: CPU per message of Cavalcade and its peers, one worker each, on the same app.

16 connections with 16 messages of 64 bytes in flight on each: whatever comes back is answered with as many new ones. The client knows
every byte that it will send and get, so it is cheap; the server is pinned to one core and it to another. Every round starts every server
afresh. Reported, as medians over the rounds: messages a second, CPU (user and system time of all the server's processes) per
message, and that CPU over the best peer's in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import uvloop
from run import BOOT_S, PEERS, WARM_UP_S, Contender, Unmeasurable, cavalcade, cores, cpu_s, launch, stop

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"


class Client(asyncio.Protocol):
    """One connection. It counts what comes back, and sends as many again."""

    def __init__(self, size: int, in_flight: int) -> None:
        payload = b"x" * size
        assert size < 126
        self.frame = bytes((0x81, 0x80 | size)) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
        self.batches = [self.frame * count for count in range(in_flight + 1)]
        self.answer = bytes((0x81, size)) + payload
        self.in_flight = in_flight
        self.head = b""
        self.open = False
        self.left = 0  # bytes of an answer that has not come whole
        self.messages = 0
        self.error = ""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        fields = b"Host: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY
        transport.write(b"GET / HTTP/1.1\r\n" + fields + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if not self.open:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            if b" 101 " not in self.head[:20]:
                self.error = repr(self.head[:200])
                return
            self.open = True
            self.transport.write(self.batches[self.in_flight])
            return
        if data[-1:] not in b"x\x81@":
            self.error = repr(data[:80])
        whole, self.left = divmod(self.left + len(data), len(self.answer))
        self.messages += whole
        self.transport.write(self.batches[whole])

    def connection_lost(self, error: Exception | None) -> None:
        self.error = self.error or f"the connection was lost: {error}"


async def drive(port: int, pid: int, options: argparse.Namespace) -> tuple[float, float]:
    """(messages a second, CPU seconds per message)."""
    loop = asyncio.get_running_loop()
    clients = [Client(options.size, options.in_flight) for _ in range(options.connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(WARM_UP_S)
    used, count, began = cpu_s(pid), sum(client.messages for client in clients), time.monotonic()
    await asyncio.sleep(options.seconds)
    used, count, took = cpu_s(pid) - used, sum(client.messages for client in clients) - count, time.monotonic() - began
    if errors := [client.error for client in clients if client.error]:
        raise Unmeasurable(errors[0])
    if not count:
        raise Unmeasurable("no message came back")
    for client in clients:
        client.transport.abort()
    return count / took, used / count


def measure(contender: Contender, options: argparse.Namespace) -> tuple[float, float]:
    server_cpu, client_cpu = cores()
    os.sched_setaffinity(0, {client_cpu})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = launch(["taskset", "-c", str(server_cpu), *contender.command(contender.python, "apps:echo", port)])
    try:
        wait_listening(server, port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(drive(port, server.pid, options))
    finally:
        os.sched_setaffinity(0, {server_cpu, client_cpu})
        stop(server)


def wait_listening(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), BOOT_S).close()
            return
        except OSError:
            time.sleep(0.05)
    server.kill()
    assert server.stderr is not None
    raise Unmeasurable(server.stderr.read().decode(errors="replace"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cavalcade", action="append", default=[], metavar="PYTHON", help="interpreter with a Cavalcade; repeatable")
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON", help="interpreter with the peers")
    parser.add_argument("--peers", default="uvicorn,gunicorn,granian", help="(default: uvicorn,gunicorn,granian)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--require", type=float, metavar="RATIO", help="exit 1 when a Cavalcade needs more than this of the best peer's CPU"
    )
    options = parser.parse_args()
    contenders = []
    for python in options.cavalcade or [sys.executable]:
        kind = subprocess.check_output([python, "-c", "from cavalcade import build; print(build.kind())"], text=True).strip()
        contenders.append(Contender(f"cavalcade ({kind})", python, cavalcade))
    peers = [peer for peer in options.peers.split(",") if peer]
    contenders += [Contender(peer, options.peers_python, PEERS[peer]) for peer in peers]
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(1, options.rounds + 1):
        rounds.append({})
        for contender in contenders:
            try:
                rounds[-1][contender.name] = rate, cpu = measure(contender, options)
            except Unmeasurable as error:
                print(f"bench: {contender.name} is left out: {error}", file=sys.stderr)
                continue
            print(f"round {number}/{options.rounds}  {contender.name:28} {rate:9,.0f} msg/s {cpu * 1e6:7.2f} us", file=sys.stderr)
    return report(contenders, peers, rounds, options.require)


def report(
    contenders: list[Contender],
    peers: list[str],
    rounds: list[dict[str, tuple[float, float]]],
    require: float | None,
    what: str = "message",
) -> int:
    """Print the table; 1 if somebody could not be measured, or needs more than was required."""
    print(f"\n| server | {what}s/s | CPU us/{what} | CPU / best peer's |\n|---|---:|---:|---:|")
    failed = False
    for contender in contenders:
        name = contender.name
        measured = [each for each in rounds if name in each]
        if not measured:
            failed = True
            continue
        best = [min((each[peer][1] for peer in peers if peer in each), default=0.0) for each in measured]
        ratios = [each[name][1] / least for each, least in zip(measured, best, strict=True) if least]
        ratio = statistics.median(ratios) if ratios else 0.0
        rate, cpu = (statistics.median(each[name][at] for each in measured) for at in (0, 1))
        print(f"| {name} | {rate:,.0f} | {cpu * 1e6:.2f} | {f'{ratio:.2f}' if ratio else '-'} |")
        if require is not None and name not in peers and not 0 < ratio <= require:
            print(f"bench: {name} needs {ratio:.2f} of the best peer's CPU; at most {require} was required", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
