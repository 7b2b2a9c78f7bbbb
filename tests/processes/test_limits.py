"""A command ends when it uses more than it may or falls silent, and never while it moves."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_world import PATH, keeper_server
from waiting import wait_until

from novawf.executors.base import Outcome, Work
from novawf.executors.command import CommandExecutor
from novawf.executors.config import ExecutorSettings
from novawf.limits.request import ApiAnswer, ApiAsk
from novawf.processes.keeper import KeeperClient, KeeperServerProcess

EAT = "x = bytearray(1 << 20); xs = [bytearray(1 << 20) for _ in range(400)]"
SPIN = "while True: pass"


class Quiet:
    """Nobody to report to."""

    def progress(self, percent: float | None, text: str) -> None: ...

    def alive(self) -> None: ...

    async def api_request(self, ask: ApiAsk) -> dict[str, Any]:
        raise AssertionError

    async def api_done(self, permit: dict[str, Any], answer: ApiAnswer) -> None: ...

    async def api_void(self, permit: dict[str, Any]) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeeperServerProcess]:
    """A keeper server."""
    with keeper_server(tmp_path / "run") as process:
        yield process


async def run(server: KeeperServerProcess, tmp_path: Path, *argv: str, **settings: Any) -> Outcome:
    executor = CommandExecutor(
        KeeperClient(server.socket_path), ExecutorSettings(grace_s=0.2, **settings), PATH
    )
    work = Work("t", 1, "torch", "torch:1", str(tmp_path / "log"), argv=argv)
    return await executor.run(work, Quiet(), asyncio.Event())


@pytest.mark.parametrize(
    ("limits", "code", "cause", "said"),
    [
        ({"memory_mb": 100}, EAT, "failed", "exit code 1"),
        ({"cpu_s": 1}, SPIN, "limit", "processor time"),
        ({"file_mb": 1}, "open('f', 'wb').write(b'x' * (3 << 20))", "failed", "exit code 1"),
        ({"files": 20}, "fs = [open('/dev/null') for _ in range(40)]", "failed", "exit code 1"),
        ({"output_mb": 1}, "while True: print('x' * 4096)", "limit", "more than 1 MB"),
    ],
    ids=["memory", "processor time", "file size", "open files", "output"],
)
async def test_a_command_may_use_what_it_is_given_and_no_more(
    server: KeeperServerProcess, tmp_path: Path, limits: Any, code: str, cause: str, said: str
) -> None:
    outcome = await run(
        server, tmp_path, "sh", "-c", f'cd {tmp_path}; exec {sys.executable} -c "{code}"',
        limits=limits,
    )  # fmt: skip
    assert (outcome.ok, outcome.cause) == (False, cause)
    assert said in outcome.error


async def test_the_limits_hold_for_what_it_starts(
    server: KeeperServerProcess, tmp_path: Path
) -> None:
    outcome = await run(
        server, tmp_path, "sh", "-c", "ulimit -n; sh -c 'ulimit -n; ulimit -t'",
        limits={"files": 64, "cpu_s": 7},
    )  # fmt: skip
    assert outcome.stdout_tail.split() == ["64", "64", "7"]


async def test_without_limits_it_has_those_of_its_user(
    server: KeeperServerProcess, tmp_path: Path
) -> None:
    outcome = await run(server, tmp_path, "sh", "-c", "ulimit -t")
    assert outcome.stdout_tail.split() == ["unlimited"]


async def test_a_silent_command_is_ended_as_hung_with_its_whole_tree(
    server: KeeperServerProcess, tmp_path: Path
) -> None:
    child = "(trap '' INT TERM; echo $$ > pid; sleep 60) & wait"
    outcome = await run(
        server, tmp_path, "sh", "-c", f"cd {tmp_path}; echo begun; {child}", silence_s=0.3
    )
    assert (outcome.cause, outcome.stdout_tail) == ("hung", "begun\n")
    assert outcome.error == "wrote nothing for 0.3 s and was ended"
    assert 0.3 <= outcome.duration_s < 5


async def test_a_slow_command_that_moves_is_never_ended(
    server: KeeperServerProcess, tmp_path: Path
) -> None:
    """Each pause ends just before the limit; together they take far longer."""
    outcome = await run(
        server, tmp_path, "sh", "-c", "for i in 1 2 3 4 5; do sleep 0.25; echo $i; done",
        silence_s=0.5,
    )  # fmt: skip
    assert outcome.ok
    assert outcome.stdout_tail.split() == ["1", "2", "3", "4", "5"]


async def test_output_that_waits_to_be_read_is_no_silence(
    server: KeeperServerProcess, tmp_path: Path
) -> None:
    """The keeper itself was stopped, as when the machine is overloaded; its clock went on."""
    go = tmp_path / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.01; done"
    script = f"cd {tmp_path}; echo $PPID > keeper; {waits}; echo late; exec sleep 0.2"
    running = asyncio.create_task(run(server, tmp_path, "sh", "-c", script, silence_s=0.4))
    await asyncio.to_thread(wait_until, (tmp_path / "keeper").exists)
    keeper = int((tmp_path / "keeper").read_text())
    os.kill(keeper, signal.SIGSTOP)
    go.touch()
    await asyncio.sleep(0.6)  # longer than the silence that is allowed
    os.kill(keeper, signal.SIGCONT)
    outcome = await running
    assert outcome.ok, outcome


@pytest.mark.parametrize(
    "number",
    [100, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
async def test_slow_commands_are_never_taken_for_hung(
    server: KeeperServerProcess, tmp_path: Path, number: int
) -> None:
    """Each is silent up to just under the limit, then moves; twice."""
    limit_s, silent_s, at_once = 4.0, 3.6, asyncio.Semaphore(50)

    async def one(index: int) -> Outcome:
        async with at_once:
            script = f"sleep {silent_s}; echo 1; sleep {silent_s}; echo 2"
            folder = tmp_path / str(index)
            return await run(server, folder, "sh", "-c", script, silence_s=limit_s)

    outcomes = await asyncio.gather(*(one(index) for index in range(number)))
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
