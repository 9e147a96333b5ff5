"""Signals that must reach one thread."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cavalcade.supervisor.signals import signal_main_thread

# Two signals at once: the second finds the first pending in the main thread, and kill(2) would give it to the other one.
ANSWERS = """
import faulthandler, queue, signal, sys, threading
signum = int(sys.argv[1])
faulthandler.register(signum, sys.stdout.fileno(), all_threads=False)
def idle():
    queue.Queue().get()
threading.Thread(target=idle, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no way to say which thread is meant")
def test_it_is_the_main_thread_that_answers() -> None:
    signum = signal.SIGRTMAX - 3
    command = [sys.executable, "-c", ANSWERS, str(int(signum))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(200):
            signal_main_thread(process.pid, signum)
        process.stdin.close()
        text = process.stdout.read()
    assert text.count("most recent call first") == 200
    assert "idle" not in text


def test_a_process_that_is_gone_is_told_as_by_kill() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        signal_main_thread(process.pid, signal.SIGTERM)
