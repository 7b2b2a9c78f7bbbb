"""What cannot be begun for want of a keeper server is not failed: a Nova waits, with it in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import Jobs, World
from process_world import keeper_server
from waiting import until

from novawf.executors.command import CommandExecutor
from novawf.executors.config import ExecutorSettings
from novawf.ids import request_id
from novawf.processes.keeper import KeeperClient
from novawf.store.connect import StoreAddress
from novawf.tasks.model import TaskSpec
from novawf.workflow import attempt


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    yield world
    await world.close()


async def commands(world: World, directory: Path, number: int) -> list[str]:
    """So many commands that are to run at most once, and a Nova whose keeper server is away."""
    nova = await world.nova()
    client = KeeperClient(directory / "keeper.sock")
    nova.executors = {
        "python": Jobs(),
        "command": CommandExecutor(client, ExecutorSettings(), {"PATH": "/usr/bin:/bin"}),
    }
    world.run(nova)
    specs = [TaskSpec.parse({"title": "c", "argv": ["true"], "retries": 0}) for _ in range(number)]
    return [(await world.queue.admit(spec, request_id())).task_id for spec in specs]


async def in_hand(world: World) -> list[str]:
    counts = await world.redis.hgetall("novawf:task:counts")
    return [name for name, number in counts.items() if name == "in_progress" and int(number)]


async def test_all_that_came_meanwhile_is_done_once_it_is_back(
    world: World, tmp_path: Path
) -> None:
    task_ids = await commands(world, tmp_path, 5)
    await until(lambda: in_hand(world), what="a task in hand")
    with keeper_server(tmp_path):
        for task_id in task_ids:
            task = await world.ended(task_id)
            assert (task["status"], task["attempts"]) == ("completed", 1)


async def test_what_is_waited_for_too_long_goes_back_as_it_was(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "AWAY_S", 0.2)
    task_id, *_ = await commands(world, tmp_path, 1)

    async def handed_back() -> bool:
        history = (await world.tracker.task(task_id))["history"]
        return [event["event"] for event in history].count("requeue") >= 2

    await until(handed_back, what="the task in the queue again")
    with keeper_server(tmp_path):
        assert (await world.ended(task_id))["status"] == "completed"


async def test_a_task_that_waits_for_keepers_can_be_cancelled(world: World, tmp_path: Path) -> None:
    task_id, *_ = await commands(world, tmp_path, 1)
    await until(lambda: in_hand(world), what="the task in hand")
    await world.queue.cancel(task_id)
    assert (await world.ended(task_id))["outcome"] == "cancelled"
