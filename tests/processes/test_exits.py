"""How a process that is not our child ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import wait_until

from novawf.processes.exits import Exit, ExitWatch, memory_kills
from novawf.processes.identity import process_start_time

PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
child.wait()
sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[object]:
    """Starts a process whose parent is not us, and which is buried as it dies."""
    parents = []

    def run(*argv: str) -> int:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        parents.append(parent)
        assert parent.stdout is not None
        return int(parent.stdout.readline())

    yield run
    for parent in parents:
        parent.communicate("")


def watched(pid: int) -> ExitWatch:
    watch = ExitWatch(pid, process_start_time(pid))
    assert watch.ended() is None, "it lives"
    return watch


def told(watch: ExitWatch) -> Exit:
    try:
        return wait_until(watch.ended, 5)
    except AssertionError:
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 15):
            pytest.skip("this kernel does not tell")
        raise
    finally:
        watch.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_told(start, number: signal.Signals) -> None:
    pid = start("sleep", "60")
    watch = watched(pid)
    os.kill(pid, number)
    assert told(watch) == Exit(None, number)


def test_an_exit_code_is_told(start) -> None:
    pid = start("sh", "-c", "sleep 0.2; exit 3")
    assert told(watched(pid)) == Exit(3, None)


def test_nothing_is_said_of_a_process_that_is_not_the_one(start) -> None:
    """Pids are used again."""
    pid = start("sleep", "0.1")
    watch = ExitWatch(pid, 1)
    wait_until(lambda: process_start_time(pid) is None, 5)
    assert watch.ended() is None
    watch.close()


def test_kills_for_want_of_memory_are_a_number() -> None:
    assert memory_kills() >= 0
