"""A task that ends its Novas is set aside before it ends them all."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.clock import ManualClock
from novawf.errors import Refused
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import Released, TaskQueue
from novawf.tasks.tracker import TaskTracker

POISON_AFTER = 3


class Bench:
    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.queue = TaskQueue(redis, clock, TaskSettings())
        self.tracker = TaskTracker(redis, clock)

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "t", "argv": ["true"], "retries": 10, **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def claimed(self, want: int = 1) -> int:
        """A new life of torch that takes something; its epoch."""
        epoch = await take_identity(self.redis, "torch")
        claimant = Claimant(self.redis, self.clock, TaskSettings(), "torch", epoch)
        for _ in range(want):
            assert isinstance(await claimant.claim(), Claim)
        return epoch

    async def dies(self, epoch: int, poison_after: int = POISON_AFTER) -> list[Released]:
        return await self.queue.release_owner(
            "torch", "process died", epoch=epoch, poison_after=poison_after
        )

    async def killed(self, times: int) -> list[Released]:
        released: list[Released] = []
        for _ in range(times):
            released = await self.dies(await self.claimed())
        return released


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    await Gate(redis, clock).refresh(safe("drill", clock.now_ms() + 3_600_000))
    return Bench(redis, clock)


async def test_the_third_dead_nova_sets_the_task_aside_with_its_history(bench: Bench) -> None:
    task_id = await bench.submit()
    after = await bench.submit(after=[task_id])
    assert [r.status for r in await bench.killed(2)] == ["pending"]
    (released,) = await bench.killed(1)
    assert (released.status, released.outcome) == ("blocked", "quarantined")
    task = await bench.tracker.task(task_id)
    assert (task["status"], task["outcome"], task["attempts"]) == ("blocked", "quarantined", 3)
    details = [event["detail"] for event in task["history"] if event["event"] != "claimed"]
    assert details == [
        "",
        "its Nova died: process died",
        "its Nova died: process died",
        "it ended 3 Novas, the last: process died",
    ]
    records = await bench.redis.xrange(keys.completed("torch"))
    assert [fields["outcome"] for _, fields in records] == ["quarantined"]
    assert (await bench.tracker.task(after))["outcome"] == "dependency"


async def test_deaths_that_are_nobodys_fault_do_not_count(bench: Bench) -> None:
    """The supervisor was restarted, Ray died, a lease ran out."""
    task_id = await bench.submit()
    for _ in range(5):
        await bench.dies(await bench.claimed(), poison_after=0)
    assert (await bench.tracker.task(task_id))["status"] == "pending"


async def test_of_several_tasks_in_hand_none_is_blamed(bench: Bench) -> None:
    """In a series most were not even begun."""
    ids = [await bench.submit(), await bench.submit()]
    for _ in range(4):
        await bench.dies(await bench.claimed(want=2))
    for task_id in ids:
        assert (await bench.tracker.task(task_id))["status"] == "pending"


async def test_a_person_who_takes_it_up_again_begins_a_new_count(bench: Bench) -> None:
    task_id = await bench.submit()
    await bench.killed(POISON_AFTER)
    await bench.queue.retry(task_id)
    assert [r.status for r in await bench.killed(2)] == ["pending"]
    assert [r.outcome for r in await bench.killed(1)] == ["quarantined"]


async def test_attempts_that_are_used_up_come_first(bench: Bench) -> None:
    await bench.submit(retries=0)
    assert [r.outcome for r in await bench.killed(1)] == ["failed"]


async def test_a_cancelled_one_is_cancelled(bench: Bench) -> None:
    task_id = await bench.submit()
    await bench.killed(2)
    epoch = await bench.claimed()
    await bench.queue.cancel(task_id)
    assert [r.outcome for r in await bench.dies(epoch)] == ["cancelled"]
    with pytest.raises(Refused):
        await bench.queue.cancel(task_id)
