"""The first signal asks for a drain, the second for the end, whichever they are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from waiting import until

from novawf.processes.signals import NUMBERS, Signals

STARTING = """
import signal, sys
from novawf.processes.signals import Signals
signals = Signals(lambda name: None, lambda: None)
signals.before_the_loop()
try:
    print("ready", flush=True)
    signal.pause()
finally:
    print("undone", flush=True)
"""


@pytest.mark.parametrize("first", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("second", NUMBERS, ids=lambda number: number.name)
async def test_the_first_drains_and_the_second_ends(
    first: signal.Signals, second: signal.Signals
) -> None:
    """All of them are alike."""
    said: list[str] = []
    signals = Signals(said.append, lambda: said.append("now"))
    loop = asyncio.get_running_loop()
    signals.in_the_loop(loop)
    try:
        os.kill(os.getpid(), first)
        await until(lambda: said == [first.name])
        os.kill(os.getpid(), second)
        await until(lambda: said == [first.name, "now"])
    finally:
        for number in NUMBERS:
            loop.remove_signal_handler(number)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_before_the_loop_a_signal_undoes_the_start(number: signal.Signals) -> None:
    """Nothing is left behind, and the exit code is the shell's for that signal."""
    process = subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.read() == "undone\n"
    assert process.wait(5) == 128 + number


SWALLOWING = """
import os, signal
from novawf.processes.signals import Signals
signals = Signals(lambda name: None, lambda: None)
signals.before_the_loop()
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    print("swallowed", flush=True)
signals.check()
print("went on", flush=True)
"""


def test_a_signal_that_a_library_swallowed_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWING], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "swallowed\n")


def test_nohup_is_respected() -> None:
    """Who started it with nohup wants it to outlive the terminal."""
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", nohup + STARTING], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "undone\n"
    assert process.wait(5) == 128 + signal.SIGTERM


def test_what_is_started_meanwhile_does_not_hear_a_hangup() -> None:
    """Ray stays up when the terminal is closed, until the work in hand is done."""
    with Signals(lambda _: None, lambda: None).hangup_not_for_children():
        deaf = subprocess.Popen(["sleep", "60"])
    hears = subprocess.Popen(["sleep", "60"])
    try:
        for process in (deaf, hears):
            process.send_signal(signal.SIGHUP)
        assert hears.wait(5) == -signal.SIGHUP
        assert deaf.poll() is None
    finally:
        deaf.kill()
        deaf.wait()
