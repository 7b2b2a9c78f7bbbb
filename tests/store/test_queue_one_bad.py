"""One task whose records cannot be written or read: the supervisor's rounds do all the others."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.clock import ManualClock, iso
from novawf.ids import request_id
from novawf.store import keys
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker


class Bench:
    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = TaskSettings(lease_s=10)
        self.queue = TaskQueue(redis, clock, self.settings)
        self.tracker = TaskTracker(redis, clock)

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "work", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def claim(self, nova: str) -> str:
        epoch = await take_identity(self.redis, nova)
        claim = await Claimant(self.redis, self.clock, self.settings, nova, epoch).claim()
        assert isinstance(claim, Claim)
        return claim.task_id

    async def spoil(self, key: str) -> None:
        """As somebody does who takes the key for his own."""
        await self.redis.delete(key)
        await self.redis.set(key, "of another type")

    async def status(self, *task_ids: str) -> list[str]:
        return [(await self.tracker.task(task_id))["status"] for task_id in task_ids]


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    until_ms = clock.now_ms() + 10**9
    await redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": until_ms})
    return Bench(redis, clock)


async def test_a_failed_dependency_blocks_all_that_can_be_blocked(bench: Bench) -> None:
    """The others at once, that one as soon as its stream is one again."""
    first = await bench.submit()
    bad = await bench.submit(after=[first], nova="echo")
    good = await bench.submit(after=[first])
    await bench.spoil(keys.completed("echo"))
    await bench.queue.cancel(first)
    assert await bench.status(bad, good) == ["pending", "blocked"]
    await bench.redis.delete(keys.completed("echo"))
    await bench.queue.sweep_cascade()
    assert await bench.status(bad) == ["blocked"]


async def test_all_deadlines_that_can_be_kept_are_kept(bench: Bench) -> None:
    """One that cannot be written stays for the next round."""
    deadline = iso(bench.clock.wall_s() + 1)
    bad = await bench.submit(deadline=deadline, nova="echo")
    good = await bench.submit(deadline=deadline)
    await bench.spoil(keys.completed("echo"))
    bench.clock.advance(1001)
    assert await bench.queue.sweep_deadlines() == 1
    assert await bench.status(bad, good) == ["pending", "blocked"]
    await bench.redis.delete(keys.completed("echo"))
    assert await bench.queue.sweep_deadlines() == 1


async def test_a_workflow_key_of_another_type_costs_what_is_kept_there_alone(bench: Bench) -> None:
    """Claim, heartbeat and finish do their work, and the counts stay right."""
    await bench.submit()
    await bench.submit()
    epoch = await take_identity(bench.redis, "torch")
    nova = Claimant(bench.redis, bench.clock, bench.settings, "torch", epoch)
    await bench.spoil(keys.workflow_state("torch"))
    first = await nova.claim(["current_phase", "work_phase_1"])
    assert isinstance(first, Claim)
    bench.clock.advance(9000)
    assert (await nova.beat("{}", "ACTIVE", first, ["current_phase", "work_phase_1"])).lease_held
    bench.clock.advance(9000)
    assert await bench.queue.release_expired() == []
    done = await nova.finish(first, Ending("completed", "succeeded"), result="", detail="")
    assert isinstance(done.following, Claim)
    counts = await bench.tracker.counts()
    assert counts == {"pending": 0, "in_progress": 1, "completed": 1, "blocked": 0}


@pytest.mark.parametrize("spoilt", ["stream", "specification"])
async def test_a_supervisor_that_starts_frees_all_that_can_be_freed(
    bench: Bench, spoilt: str
) -> None:
    """A task that cannot be freed keeps no fleet from starting."""
    await bench.submit()
    await bench.submit()
    bad, good = await bench.claim("echo"), await bench.claim("torch")
    if spoilt == "stream":
        await bench.spoil(keys.progress("echo"))
    else:
        await bench.redis.hset(keys.TASK_SPEC, bad, "{")
    released = await bench.queue.release_all("the supervisor was restarted")
    assert [one.task_id for one in released] == [good]
    assert await bench.queue.release_owner("echo", "killed") == []


async def test_a_wake_list_of_another_type_keeps_nobody_else_asleep(bench: Bench) -> None:
    """Of two delayed tasks the second one's Nova is woken though the first one's cannot be."""
    for nova, wait_s in (("echo", 1), ("torch", 2)):
        await bench.submit(nova=nova, at=iso(bench.clock.wall_s() + wait_s))
    await bench.redis.delete(keys.wake("torch"))
    await bench.spoil(keys.wake("echo"))
    bench.clock.advance(3000)
    await bench.queue.wake_due()
    assert await bench.redis.llen(keys.wake("torch")) == 1
