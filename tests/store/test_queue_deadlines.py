"""Deadline and approval in the queue: the real scripts on a real store, a clock the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from novawf.clock import ManualClock, iso
from novawf.errors import Refused
from novawf.ids import request_id
from novawf.store import keys
from novawf.tasks.claims import Claim, Claimant, Nothing, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

if TYPE_CHECKING:
    from redis.asyncio import Redis

DONE = Ending("completed", "succeeded")


class Bench:
    def __init__(self, redis: Redis, clock: ManualClock) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.settings = TaskSettings(lease_s=3600)
        self.queue = TaskQueue(redis, clock, self.settings)
        self.tracker = TaskTracker(redis, clock)

    async def submit(self, deadline_s: float | None = None, **fields: Any) -> str:
        if deadline_s is not None:
            fields["deadline"] = iso(self.clock.wall_s() + deadline_s)
        spec = TaskSpec.parse({"title": "t", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def nova(self) -> Claimant:
        epoch = await take_identity(self.redis, "torch")
        return Claimant(self.redis, self.clock, self.settings, "torch", epoch)

    async def status(self, task_id: str) -> tuple[str, str | None]:
        view = await self.tracker.task(task_id)
        return view["status"], view["outcome"]

    async def ends(self, stream: str) -> list[tuple[str, str]]:
        return [
            (fields["task_id"], fields.get("outcome", ""))
            for _, fields in await self.redis.xrange(keys.completed(stream))
        ]


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    until_ms = clock.now_ms() + 10**9
    await redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": until_ms})
    return Bench(redis, clock)


async def claimed(nova: Claimant) -> Claim:
    reply = await nova.claim()
    assert isinstance(reply, Claim), reply
    return reply


async def test_a_task_is_never_begun_after_its_deadline_and_is_blocked_with_one_record(
    bench: Bench,
) -> None:
    late, other = await bench.submit(30), await bench.submit()
    bench.clock.advance(30_000)
    assert (await claimed(await bench.nova())).task_id == other
    assert await bench.queue.sweep_deadlines() == 1
    assert await bench.queue.sweep_deadlines() == 0
    assert await bench.status(late) == ("blocked", "deadline")
    assert await bench.ends("fleet") == [(late, "deadline")]
    assert (await bench.tracker.counts())["blocked"] == 1


async def test_a_claim_carries_the_deadline(bench: Bench) -> None:
    await bench.submit(30)
    assert (await claimed(await bench.nova())).deadline_ms == bench.clock.now_ms() + 30_000


async def test_who_runs_at_the_deadline_is_left_to_its_nova(bench: Bench) -> None:
    task_id = await bench.submit(30)
    nova = await bench.nova()
    claim = await claimed(nova)
    bench.clock.advance(31_000)
    assert await bench.queue.sweep_deadlines() == 0
    await nova.finish(claim, DONE, result="", detail="", claim_next=False)
    assert await bench.status(task_id) == ("completed", "succeeded")
    await bench.queue.sweep_deadlines()
    assert await bench.redis.zcard(keys.DEADLINES) == 0


async def test_what_waits_for_a_task_too_late_is_blocked_by_it(bench: Bench) -> None:
    late = await bench.submit(30)
    behind = await bench.submit(after=[late])
    bench.clock.advance(30_001)
    await bench.queue.sweep_deadlines()
    assert await bench.status(behind) == ("blocked", "dependency")


async def test_a_retry_past_the_deadline_is_refused(bench: Bench) -> None:
    late = await bench.submit(30)
    bench.clock.advance(30_001)
    await bench.queue.sweep_deadlines()
    with pytest.raises(Refused, match="deadline has passed"):
        await bench.queue.retry(late)


async def test_who_is_taken_up_again_with_its_dependency_still_has_its_deadline(
    bench: Bench,
) -> None:
    first = await bench.submit()
    behind = await bench.submit(30, after=[first])
    await bench.queue.cancel(first)
    bench.clock.advance(30_001)
    await bench.queue.sweep_deadlines()
    await bench.queue.retry(first)
    await bench.queue.sweep_deadlines()
    assert await bench.status(behind) == ("blocked", "deadline")


async def test_a_task_that_awaits_approval_does_not_start_and_does_after_it(bench: Bench) -> None:
    task_id = await bench.submit(approval=True)
    nova = await bench.nova()
    assert isinstance(await nova.claim(), Nothing)
    assert await bench.status(task_id) == ("blocked", "awaiting_approval")
    await bench.queue.approve(task_id)
    with pytest.raises(Refused, match="awaits no approval"):
        await bench.queue.approve(task_id)
    assert (await claimed(nova)).task_id == task_id
    assert [event["detail"] for event in (await bench.tracker.task(task_id))["history"]] == [
        "awaiting_approval", "approved", "",
    ]  # fmt: skip


async def test_what_waits_for_an_unapproved_task_waits_and_is_not_blocked(bench: Bench) -> None:
    first = await bench.submit(approval=True)
    behind = await bench.submit(after=[first])
    await bench.queue.sweep_cascade()
    assert await bench.status(behind) == ("pending", None)
    await bench.queue.approve(first)
    nova = await bench.nova()
    finished = await nova.finish(await claimed(nova), DONE, result="", detail="")
    assert isinstance(finished.following, Claim)
    assert finished.following.task_id == behind


async def test_an_unapproved_task_can_be_cancelled_and_blocks_what_waits(bench: Bench) -> None:
    first = await bench.submit(approval=True)
    behind = await bench.submit(after=[first])
    assert await bench.queue.cancel(first) == "blocked"
    assert await bench.status(first) == ("blocked", "cancelled")
    assert await bench.status(behind) == ("blocked", "dependency")
    assert await bench.tracker.counts() == {
        "pending": 0, "in_progress": 0, "completed": 0, "blocked": 2,
    }  # fmt: skip


async def test_retry_is_no_way_around_approval(bench: Bench) -> None:
    task_id = await bench.submit(approval=True)
    with pytest.raises(Refused, match="approve it instead"):
        await bench.queue.retry(task_id)
    await bench.queue.cancel(task_id)
    with pytest.raises(Refused, match="never approved"):
        await bench.queue.retry(task_id)


async def test_who_was_approved_once_may_be_retried(bench: Bench) -> None:
    task_id = await bench.submit(approval=True)
    await bench.queue.approve(task_id)
    for _ in range(120):  # more than the history keeps
        await bench.queue.cancel(task_id)
        await bench.queue.retry(task_id)
    assert await bench.status(task_id) == ("pending", None)


async def test_approval_waits_for_a_blocked_dependency_to_be_retried(bench: Bench) -> None:
    first = await bench.submit()
    behind = await bench.submit(after=[first], approval=True)
    await bench.queue.cancel(first)
    with pytest.raises(Refused, match="retry that first"):
        await bench.queue.approve(behind)
    await bench.queue.retry(first)
    assert await bench.status(behind) == ("blocked", "awaiting_approval")
    await bench.queue.approve(behind)
    nova = await bench.nova()
    await nova.finish(await claimed(nova), DONE, result="", detail="", claim_next=False)
    assert (await claimed(nova)).task_id == behind


async def test_an_unapproved_task_past_its_deadline_is_blocked_for_good(bench: Bench) -> None:
    task_id = await bench.submit(30, approval=True)
    bench.clock.advance(30_001)
    assert await bench.queue.sweep_deadlines() == 1
    assert await bench.status(task_id) == ("blocked", "deadline")
    with pytest.raises(Refused):
        await bench.queue.approve(task_id)


async def test_a_progress_report_that_is_repeated_is_posted_once(bench: Bench) -> None:
    await bench.submit()
    nova = await bench.nova()
    claim = await claimed(nova)
    await nova.progress(claim, 50, "half")
    await nova.progress(claim, 50, "half", again=True)
    await nova.progress(claim, 60, "more")
    texts = [f["update"] for _, f in await bench.redis.xrange(keys.progress("torch"))]
    assert texts == ["attempt 1 started", "half", "more"]


async def test_a_record_that_cannot_be_written_leaves_the_task_where_it_was(bench: Bench) -> None:
    """A foreign key of another type under a stream's name stops work, and loses none."""
    task_id = await bench.submit()
    await bench.redis.set(keys.progress("torch"), "not a stream")
    reply = await (await bench.nova()).claim()
    assert "cannot be written" in reply.reason  # type: ignore[union-attr]
    assert await bench.status(task_id) == ("pending", None)
    await bench.redis.delete(keys.progress("torch"))
    assert (await claimed(await bench.nova())).task_id == task_id


async def test_a_background_task_starts_within_the_hour_under_constant_high_load(
    bench: Bench,
) -> None:
    """The bound: 59.5 minutes after a high task that is admitted with it would have started."""
    nova = await bench.nova()
    waiting = await bench.submit(priority="background")
    begun_ms = bench.clock.now_ms()
    bench.settings = TaskSettings()
    for _ in range(80):  # a minute of work comes in every minute, all of it high
        await bench.submit(priority="high")
        claim = await claimed(nova)
        if claim.task_id == waiting:
            break
        bench.clock.advance(60_000)
        await nova.finish(claim, DONE, result="", detail="", claim_next=False)
    assert claim.task_id == waiting
    assert bench.clock.now_ms() - begun_ms <= 3_600_000 - 30_000 + 60_000


async def test_a_task_whose_specification_is_gone_holds_up_no_other(bench: Bench) -> None:
    broken, whole = await bench.submit(), await bench.submit()
    await bench.redis.hdel(keys.TASK_SPEC, broken)
    assert (await claimed(await bench.nova())).task_id == whole
