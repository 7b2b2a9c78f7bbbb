"""Commands: their outcome says what happened, and their environment is clean."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_world import PATH, Process, keeper_server

from novawf.executors.base import Outcome, Work
from novawf.executors.command import CommandExecutor
from novawf.executors.config import ExecutorSettings
from novawf.executors.environment import base_environment
from novawf.executors.registry import build_executors
from novawf.processes.keeper import KeeperClient

SETTINGS = ExecutorSettings(grace_s=0.2)
INHERITED = {
    **PATH,
    "LANG": "C.UTF-8",
    "NOVAWF_RUN_ID": "r",
    "NOVAWF_HOME": "/home/x",
    "NOVAWF_STORE_URL": "redis://:secret@x",
    "NOVAWF_STORE__PASSWORD": "secret",
}


class Silent:
    """A Nova that only counts signs of life."""

    def __init__(self) -> None:
        self.shown = asyncio.Event()

    def alive(self) -> None:
        """Seen."""
        self.shown.set()


class Bench:
    """An executor and a short way to use it."""

    def __init__(self, keeper: KeeperClient, folder: Path) -> None:
        self.executor = CommandExecutor(keeper, SETTINGS, INHERITED)
        self.folder = folder
        self.report: Any = Silent()
        self.cancel = asyncio.Event()

    async def run(self, *argv: str, **more: Any) -> Outcome:
        """Run one command."""
        log_path = str(self.folder / "logs" / "T.2.log")
        work = Work("TORCH-1-000001", 2, "torch", "torch:7", log_path, argv=argv, **more)
        return await self.executor.run(work, self.report, self.cancel)

    async def there(self) -> Process:
        """The process that wrote its pid to `pid`."""
        while not (path := self.folder / "pid").exists() or not path.read_text().endswith("\n"):
            await asyncio.sleep(0.002)
        return Process.of(int(path.read_text()))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A fresh executor under a fresh keeper server."""
    with keeper_server(tmp_path / "run") as server:
        yield Bench(KeeperClient(server.socket_path), tmp_path)


async def test_success_has_output_duration_and_no_cause(bench, tmp_path):
    outcome = await bench.run("sh", "-c", "echo out; echo err >&2")
    assert (outcome.ok, outcome.cause, outcome.error, outcome.exit_code) == (True, "", "", 0)
    assert (outcome.stdout_tail, outcome.output_bytes) == ("out\nerr\n", 8)
    assert 0 < outcome.duration_s < 5
    assert (tmp_path / "logs" / "T.2.log").read_text() == "out\nerr\n"


async def test_failure_has_the_exit_code(bench):
    outcome = await bench.run("sh", "-c", "exit 9")
    assert (outcome.ok, outcome.cause, outcome.error) == (False, "failed", "exit code 9")
    assert outcome.exit_code == 9


async def test_a_signal_is_a_crash_and_named(bench):
    outcome = await bench.run("sh", "-c", "kill -KILL $$")
    assert (outcome.cause, outcome.signal) == ("crash", signal.SIGKILL)
    assert outcome.error == "died of SIGKILL"


async def test_a_missing_program_is_named(bench):
    outcome = await bench.run("no-such-program", "x")
    assert (outcome.cause, outcome.exit_code) == ("not_found", None)
    assert outcome.error == "cannot start no-such-program: No such file or directory (ENOENT)"


async def test_a_time_out_ends_the_tree(bench):
    outcome = await bench.run("sleep", "600", timeout_s=0.2)
    assert (outcome.cause, outcome.error) == ("timeout", "exceeded 0.2 s and was ended")


@pytest.mark.parametrize("trap", ["", "trap '' INT TERM;"])
async def test_the_cancel_event_ends_the_tree(bench, tmp_path, trap):
    script = f"{trap} echo $$ > {tmp_path}/pid; exec sleep 600"
    running = asyncio.create_task(bench.run("sh", "-c", script))
    process = await bench.there()
    bench.cancel.set()
    outcome = await running
    assert outcome.cause == "cancelled"
    assert not process.runs()


async def test_a_cancelled_caller_waits_until_the_tree_is_gone(bench, tmp_path):
    script = f"trap '' INT TERM; echo $$ > {tmp_path}/pid; exec sleep 600"
    running = asyncio.create_task(bench.run("sh", "-c", script))
    process = await bench.there()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not process.runs()


async def test_a_set_cancel_event_starts_nothing(bench, tmp_path):
    bench.cancel.set()
    outcome = await bench.run("touch", str(tmp_path / "ran"))
    assert outcome.cause == "cancelled"
    assert not (tmp_path / "ran").exists()


async def test_output_is_a_sign_of_life(bench):
    running = asyncio.create_task(bench.run("yes"))
    async with asyncio.timeout(5):
        await bench.report.shown.wait()
    bench.cancel.set()
    await running


async def test_the_environment_is_clean_and_says_who_and_what(bench):
    outcome = await bench.run("env", env={"COLOUR": "red"})
    assert dict(line.split("=", 1) for line in outcome.stdout_tail.splitlines()) == {
        **PATH,
        "LANG": "C.UTF-8",
        "COLOUR": "red",
        "NOVAWF_RUN_ID": "r",
        "NOVAWF_HOME": "/home/x",
        "NOVAWF_TASK_ID": "TORCH-1-000001",
        "NOVAWF_ATTEMPT": "2",
        "NOVAWF_NOVA": "torch",
        "NOVAWF_KEEPER": "torch:7",
    }


async def test_runs_where_it_is_told_to(bench, tmp_path):
    assert (await bench.run("pwd", cwd=str(tmp_path))).stdout_tail == f"{tmp_path}\n"


async def test_no_keeper_server_is_the_outcome_away(tmp_path):
    outcome = await Bench(KeeperClient(tmp_path / "none"), tmp_path).run("true")
    assert (outcome.ok, outcome.cause) == (False, "away")


def test_settings_and_secrets_of_the_fleet_are_not_inherited():
    kept = {"NOVAWF_RUN_ID", "NOVAWF_HOME"}
    assert {name for name in base_environment(INHERITED) if name.startswith("NOVAWF_")} == kept


def test_the_registry_knows_each_executor_by_its_own_name(tmp_path):
    executors = build_executors(KeeperClient(tmp_path), SETTINGS, os.environ, {}, 5.0)
    assert {name: executor.name for name, executor in executors.items()} == {
        "command": "command",
        "python": "python",
        "maintenance": "maintenance",
    }
