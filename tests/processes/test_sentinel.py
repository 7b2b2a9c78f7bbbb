"""When the supervisor dies all that was its ends within 4 s; nobody else does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_supervisor
import pytest
from process_world import Process, bystander, script
from waiting import wait_until

from novawf.processes.guard import Sentinel
from novawf.processes.identity import process_start_time
from novawf.processes.keeper import BOOT

OURS = ("keeper_server", "command", "kept_without_environment", "listed", "stamped")
NOT_OURS = ("dropped", "kept_alive", "other_run")


@pytest.fixture
def supervisor(tmp_path: Path):
    """A fake supervisor with everything started, and the processes by role."""
    roles = {}
    try:
        with script(fake_supervisor.__file__, str(tmp_path), f"run{os.getpid()}") as process:
            pids = json.loads(process.stdout.readline())
            roles = {role: Process.of(pid) for role, pid in pids.items()}
            yield process, roles
    finally:
        if "sentinel" in roles:
            wait_until(lambda: not roles["sentinel"].runs(), 10, "the sentinel's leaving")
        for role in NOT_OURS:
            if role in roles and roles[role].runs():
                os.kill(roles[role].pid, signal.SIGKILL)


def test_a_killed_supervisor_takes_all_that_was_its_along_and_nothing_else(supervisor, tmp_path):
    process, roles = supervisor
    with bystander() as stranger:
        began = time.monotonic()
        process.kill()
        wait_until(lambda: not roles["sentinel"].runs(), 5, "the sentinel leaves")
        took_s = time.monotonic() - began
        assert [role for role in OURS if roles[role].runs()] == []
        assert [role for role in NOT_OURS if not roles[role].runs()] == []
        assert stranger.runs()
        assert took_s < 4
        wait_until((tmp_path / "lingered").exists, 10, "the lingering process starts")


def test_an_orderly_end_ends_what_is_still_listed_and_starts_nothing(supervisor, tmp_path):
    process, roles = supervisor
    process.stdin.write("done\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert answer["ended"]
    assert answer["took_s"] < 1
    process.wait(10)
    assert not roles["listed"].runs()
    assert not roles["keeper_server"].runs()
    assert roles["stamped"].runs()  # not listed: the stamp is for a supervisor that died
    assert roles["kept_alive"].runs()
    assert not (tmp_path / "lingered").exists()
    os.kill(roles["stamped"].pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["done\n", ""])
def test_a_pid_that_another_process_took_over_is_left_alone(end):
    with bystander() as stranger:
        argv = [sys.executable, "-I", "-S", str(BOOT), "novawf.processes.sentinel"]
        read, write = os.pipe()
        sentinel = subprocess.Popen([*argv, str(read)], pass_fds=(read,))
        os.close(read)
        before = stranger.start_time - 1
        lines = f"nonsense\nadd x y z\nadd {stranger.pid} {before} listed\n{end}"
        os.write(write, lines.encode())
        os.close(write)
        assert sentinel.wait(5) == 0
        assert stranger.runs()


def test_what_lingers_does_not_hold_the_output_of_the_supervisor(tmp_path):
    told = tmp_path / "stderr"
    ask = f"readlink /proc/$$/fd/2 > {told}.new; mv {told}.new {told}; exec sleep 5"
    argv = [sys.executable, "-I", "-S", str(BOOT), "novawf.processes.sentinel"]
    read, write = os.pipe()
    sentinel = subprocess.Popen([*argv, str(read)], pass_fds=(read,), stderr=subprocess.PIPE)
    os.close(read)
    os.write(write, f"linger {json.dumps(['sh', '-c', ask])}\n".encode())
    os.close(write)
    assert sentinel.communicate(timeout=4) == (None, b"")  # before the sleeper's end
    wait_until(told.exists, 10, "the lingering process starts")
    assert told.read_text() == "/dev/null\n"


def test_a_sentinel_that_has_gone_is_noticed_and_harms_nobody():
    sentinel = Sentinel()
    pid = sentinel.start()
    assert sentinel.alive()
    os.kill(pid, signal.SIGTERM)  # ignored: it ends when its work is done
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not sentinel.alive(), 10, "its end is seen")
    sentinel.run("x")
    assert sentinel.add(os.getpid(), "listed")
    assert sentinel.done()


def test_the_start_time_of_a_process_that_is_not_there_is_none():
    assert process_start_time(2**22 + 1) is None
