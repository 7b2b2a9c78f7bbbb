"""The queue on a real store: each change happens once, in order, under its owner's epoch alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.clock import ManualClock
from novawf.errors import Fenced, InvalidTask, LeaseLost, NotFound, Refused
from novawf.ids import request_id
from novawf.store import keys
from novawf.tasks.claims import Claim, Claimant, ClaimReply, Halted, Nothing, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

DONE = Ending("completed", "succeeded")
FAILED = Ending("blocked", "failed")
STATE = ("current_state", "task_execution")


class Bench:
    """A queue with its gate open, and Novas that claim from it."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = TaskSettings(lease_s=10)
        self.queue = TaskQueue(redis, clock, self.settings)
        self.tracker = TaskTracker(redis, clock)

    async def open_gate(self) -> None:
        until = self.clock.now_ms() + 3_600_000
        await self.redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": until})

    async def nova(self, name: str = "torch") -> Claimant:
        epoch = await take_identity(self.redis, name)
        return Claimant(self.redis, self.clock, self.settings, name, epoch)

    async def submit(self, title: str = "work", request: str | None = None, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": title, "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request or request_id())).task_id

    async def status(self, task_id: str) -> tuple[str, str | None]:
        view = await self.tracker.task(task_id)
        return view["status"], view["outcome"]


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    bench = Bench(redis, clock)
    await bench.open_gate()
    return bench


def taken(reply: ClaimReply | None) -> Claim:
    assert isinstance(reply, Claim), reply
    return reply


async def end(nova: Claimant, claim: Claim, ending: Ending = DONE, **options: Any) -> Any:
    return await nova.finish(claim, ending, result="{}", detail="", **options)


async def test_a_task_goes_from_submitted_to_completed(bench: Bench) -> None:
    task_id = await bench.submit(metadata={"k": 1})
    torch = await bench.nova()
    claim = taken(await torch.claim(["current_state", "work_discovery"]))
    assert (claim.task_id, claim.attempt, claim.epoch) == (task_id, 1, 1)
    finished = await torch.finish(claim, DONE, result='{"exit_code":0}', detail="exit 0")
    assert finished.status == "completed"
    assert isinstance(finished.following, Nothing)
    view = await bench.tracker.task(task_id)
    assert view["status"] == "completed"
    assert view["outcome"] == "succeeded"
    assert view["exit_code"] == 0
    assert [event["event"] for event in view["history"]] == ["created", "claimed", "completed"]
    assert await bench.tracker.counts() == {
        "pending": 0, "in_progress": 0, "completed": 1, "blocked": 0,
    }  # fmt: skip


async def test_every_change_is_one_protocol_record_on_its_stream(bench: Bench) -> None:
    task_id = await bench.submit(title="report", priority="high", description="long")
    torch = await bench.nova()
    await end(torch, taken(await torch.claim()))
    records = [
        (await bench.redis.xrange(stream))[0][1]
        for stream in (keys.todo("fleet"), keys.progress("torch"), keys.completed("torch"))
    ]
    assert [record["status"] for record in records] == ["pending", "in_progress", "completed"]
    for record in records:
        assert record["task_id"] == task_id
        assert record["title"] == "report"
        assert record["priority"] == "high"
        assert record["created_at"].endswith("Z")
        assert record["updated_at"].endswith("Z")
    assert records[2]["completed_at"]


async def test_a_repeated_submission_is_one_task(bench: Bench) -> None:
    first = await bench.submit(request="r1")
    assert await bench.submit(request="r1") == first
    assert (await bench.tracker.counts())["pending"] == 1


async def test_a_dedupe_key_is_one_task(bench: Bench) -> None:
    first = await bench.submit(dedupe="nightly")
    assert await bench.submit(dedupe="nightly") == first


async def test_ids_have_the_protocols_form_and_do_not_collide(bench: Bench) -> None:
    task_ids = {await bench.submit(nova="torch") for _ in range(50)}
    assert len(task_ids) == 50
    second = int(bench.clock.wall_s())
    assert f"TORCH-{second}-000001" in task_ids


async def test_higher_tiers_go_first_and_age_overtakes_them(bench: Bench) -> None:
    low = await bench.submit(priority="low")
    medium = await bench.submit(priority="medium")
    critical = await bench.submit(priority="critical")
    torch = await bench.nova()
    order = [taken(await torch.claim()).task_id for _ in range(3)]
    assert order == [critical, medium, low]
    old = await bench.submit(priority="background")
    bench.clock.advance(3_600_001)
    await bench.open_gate()
    young = await bench.submit(priority="critical")
    assert [taken(await torch.claim()).task_id for _ in range(2)] == [old, young]


async def test_a_pinned_task_goes_to_its_nova_only_and_in_the_common_order(bench: Bench) -> None:
    pinned = await bench.submit(nova="echo")
    torch, echo = await bench.nova("torch"), await bench.nova("echo")
    assert isinstance(await torch.claim(), Nothing)
    critical = await bench.submit(priority="critical")
    assert taken(await echo.claim()).task_id == critical
    assert taken(await echo.claim()).task_id == pinned


@pytest.mark.parametrize(
    ("gate", "kind"),
    [
        ({"stop": "1", "stop_reason": "drill"}, "stopped"),
        ({"valid_until": "0"}, "unsafe"),
        ({"verdict": "unsafe", "reason": "store full"}, "unsafe"),
        ({"paused": "1"}, "paused"),
        ({"paused:torch": "1"}, "paused"),
    ],
)
async def test_nothing_is_claimed_while_the_gate_is_shut(
    bench: Bench, gate: dict[str, str], kind: str
) -> None:
    await bench.submit()
    torch = await bench.nova()
    await bench.redis.hset(keys.GATE, mapping=gate)
    reply = await torch.claim()
    assert isinstance(reply, Halted)
    assert reply.kind == kind
    assert (await bench.tracker.counts())["pending"] == 1


async def test_nothing_is_claimed_when_no_verdict_was_ever_given(
    redis: Any, clock: ManualClock
) -> None:
    bench = Bench(redis, clock)
    await bench.submit()
    assert isinstance(await (await bench.nova()).claim(), Halted)


async def test_a_finish_whose_reply_was_lost_changes_nothing_when_repeated(bench: Bench) -> None:
    await bench.submit("one")
    await bench.submit("two")
    torch = await bench.nova()
    claim = taken(await torch.claim())
    first = await end(torch, claim)
    again = await end(torch, claim, again=True)
    assert again.repeated
    assert taken(again.following).task_id == taken(first.following).task_id
    assert (await bench.tracker.counts())["in_progress"] == 1
    assert await bench.redis.xlen(keys.completed("torch")) == 1


async def test_a_claim_whose_reply_was_lost_returns_the_same_task(bench: Bench) -> None:
    await bench.submit("one")
    await bench.submit("two")
    torch = await bench.nova()
    first = taken(await torch.claim())
    assert taken(await torch.claim(again=True)) == first


async def test_an_older_life_of_a_nova_can_neither_claim_nor_finish(bench: Bench) -> None:
    task_id = await bench.submit()
    await bench.submit()
    old = await bench.nova()
    claim = taken(await old.claim())
    await bench.nova()
    with pytest.raises(Fenced):
        await end(old, claim)
    with pytest.raises(Fenced):
        await old.claim()
    with pytest.raises(Fenced):
        await old.beat("{}", "ACTIVE", claim, STATE)
    with pytest.raises(Fenced):
        await old.progress(claim, 50, "half")
    assert await bench.status(task_id) == ("in_progress", None)


async def test_a_stale_owner_cannot_end_a_task_that_another_has(bench: Bench) -> None:
    task_id = await bench.submit()
    torch, echo = await bench.nova("torch"), await bench.nova("echo")
    stale = taken(await torch.claim())
    bench.clock.advance(10_001)
    assert [r.task_id for r in await bench.queue.release_expired()] == [task_id]
    fresh = taken(await echo.claim())
    assert (fresh.task_id, fresh.attempt) == (task_id, 2)
    with pytest.raises(LeaseLost):
        await end(torch, stale)
    assert (await torch.beat("{}", "ACTIVE", stale, STATE)).lease_held is False
    await end(echo, fresh)
    assert await bench.status(task_id) == ("completed", "succeeded")


async def test_a_heartbeat_keeps_the_lease(bench: Bench) -> None:
    await bench.submit()
    torch = await bench.nova()
    claim = taken(await torch.claim())
    for _ in range(5):
        bench.clock.advance(9_000)
        assert (await torch.beat("{}", "ACTIVE", claim, STATE)).lease_held
        assert await bench.queue.release_expired() == []


async def test_a_dead_owners_task_is_ready_at_once(bench: Bench) -> None:
    task_id = await bench.submit(nova="torch")
    torch = await bench.nova()
    taken(await torch.claim())
    released = await bench.queue.release_owner("torch", "signal 9")
    assert [(r.task_id, r.status) for r in released] == [(task_id, "pending")]
    assert await bench.queue.release_owner("torch", "signal 9") == []
    again = taken(await (await bench.nova()).claim())
    assert again.attempt == 2


async def test_a_task_whose_attempts_are_used_up_ends_blocked(bench: Bench) -> None:
    task_id = await bench.submit(retries=0)
    torch = await bench.nova()
    taken(await torch.claim())
    await bench.queue.release_owner("torch", "signal 9")
    assert await bench.status(task_id) == ("blocked", "failed")


async def test_a_retry_waits_for_its_back_off(bench: Bench) -> None:
    task_id = await bench.submit()
    torch = await bench.nova()
    finished = await end(torch, taken(await torch.claim()), Ending("retry", "", 5.0))
    assert isinstance(finished.following, Nothing)
    assert finished.following.next_due_ms == bench.clock.now_ms() + 5_000
    bench.clock.advance(4_999)
    assert isinstance(await torch.claim(), Nothing)
    bench.clock.advance(1)
    assert taken(await torch.claim()).task_id == task_id


async def test_somebody_is_woken_when_a_delay_is_over(bench: Bench) -> None:
    await bench.submit(nova="echo", at="2023-11-14T22:14:20Z")
    await bench.redis.delete(keys.wake("echo"))
    assert await bench.queue.wake_due() == 0
    bench.clock.advance(60_000)
    assert await bench.queue.wake_due() == 1
    assert await bench.redis.llen(keys.wake("echo")) == 1


async def test_a_task_waits_for_its_earliest_start(bench: Bench) -> None:
    at = "2023-11-14T22:14:20Z"  # one minute after the manual clock's start
    await bench.submit(at=at)
    torch = await bench.nova()
    assert isinstance(await torch.claim(), Nothing)
    bench.clock.advance(60_000)
    taken(await torch.claim())


async def test_a_handed_back_task_keeps_its_attempts(bench: Bench) -> None:
    await bench.submit(retries=0)
    torch = await bench.nova()
    await end(torch, taken(await torch.claim()), Ending("requeue", ""), claim_next=False)
    claim = taken(await torch.claim())
    assert claim.attempt == 2
    assert claim.limit == 2


async def test_a_task_that_a_provider_sent_away_waits_and_has_all_its_attempts_still(
    bench: Bench,
) -> None:
    await bench.submit("a", retries=1)
    torch = await bench.nova()
    for _ in range(3):
        claim = taken(await torch.claim())
        await end(torch, claim, Ending("requeue", "", 17.0), claim_next=False)
        assert not isinstance(await torch.claim(), Claim)
        bench.clock.advance(16_999)
        assert not isinstance(await torch.claim(), Claim)
        bench.clock.advance(1)
    claim = taken(await torch.claim())
    assert claim.limit - claim.attempt == 1


async def test_a_task_runs_after_all_it_comes_after(bench: Bench) -> None:
    first, second = await bench.submit("a"), await bench.submit("b")
    last = await bench.submit("c", priority="critical", after=[first, second, first])
    torch = await bench.nova()
    order = []
    reply: Any = await torch.claim()
    while isinstance(reply, Claim):
        order.append(reply.task_id)
        reply = (await end(torch, reply)).following
    assert order == [first, second, last]


async def test_a_blocked_task_blocks_what_comes_after_it_and_a_retry_frees_both(
    bench: Bench,
) -> None:
    first = await bench.submit("a")
    second = await bench.submit("b", after=[first])
    third = await bench.submit("c", after=[second])
    torch = await bench.nova()
    await end(torch, taken(await torch.claim()), FAILED)
    assert await bench.queue.sweep_cascade() == 2
    assert await bench.status(third) == ("blocked", "dependency")
    with pytest.raises(Refused, match="retry that first"):
        await bench.queue.retry(third)
    late = await bench.submit("d", after=[first])
    await bench.queue.sweep_cascade()
    assert await bench.status(late) == ("blocked", "dependency")
    await bench.queue.retry(first)
    done = []
    reply: Any = await torch.claim()
    while isinstance(reply, Claim):
        done.append(reply.task_id)
        reply = (await end(torch, reply)).following
    assert sorted(done) == sorted([first, second, third, late])
    assert (await bench.tracker.counts())["completed"] == 4


async def test_an_unknown_dependency_is_refused_and_nothing_is_written(bench: Bench) -> None:
    with pytest.raises(InvalidTask, match="there is no task NOPE"):
        await bench.submit(after=["NOPE"])
    assert await bench.redis.exists(keys.TASK_SPEC, keys.TASK_STATE, keys.TASK_REQUESTS) == 0


@pytest.mark.parametrize("fields", [{}, {"nova": "torch"}, {"at": "2030-01-01T00:00:00Z"}])
async def test_a_waiting_task_is_cancelled_at_once(bench: Bench, fields: dict[str, str]) -> None:
    task_id = await bench.submit(**fields)
    assert await bench.queue.cancel(task_id) == "blocked"
    assert await bench.status(task_id) == ("blocked", "cancelled")
    assert isinstance(await (await bench.nova()).claim(), Nothing)
    with pytest.raises(Refused):
        await bench.queue.cancel(task_id)


async def test_the_owner_of_a_running_task_is_told_to_cancel(bench: Bench) -> None:
    task_id = await bench.submit()
    torch = await bench.nova()
    claim = taken(await torch.claim())
    assert await bench.queue.cancel(task_id) == "cancelling"
    order = json.loads(await bench.redis.lpop(keys.inbox("torch")))
    assert order == {"op": "cancel", "task": task_id, "epoch": "1"}
    assert (await torch.beat("{}", "ACTIVE", claim, STATE)).cancel
    await end(torch, claim, Ending("blocked", "cancelled"))
    assert await bench.status(task_id) == ("blocked", "cancelled")


async def test_a_task_cancelled_while_its_owner_dies_is_not_run_again(bench: Bench) -> None:
    task_id = await bench.submit()
    torch = await bench.nova()
    taken(await torch.claim())
    await bench.queue.cancel(task_id)
    await bench.queue.release_owner("torch", "signal 9")
    assert await bench.status(task_id) == ("blocked", "cancelled")


async def test_unknown_tasks_are_named(bench: Bench) -> None:
    for call in (bench.queue.cancel, bench.queue.retry, bench.tracker.task):
        with pytest.raises(NotFound, match="X-1-000001"):
            await call("X-1-000001")


async def test_work_wakes_one_idle_nova_or_its_target(bench: Bench) -> None:
    await bench.submit()
    await bench.submit(nova="echo")
    assert await bench.redis.llen(keys.WAKE_ANY) == 1
    assert await bench.redis.llen(keys.wake("echo")) == 1


async def test_lists_select_by_status_and_nova(bench: Bench) -> None:
    pinned = await bench.submit(nova="echo")
    await bench.submit()
    assert [row["task_id"] for row in await bench.tracker.list(nova="echo")] == [pinned]
    assert len(await bench.tracker.list(status="pending")) == 2
    assert await bench.tracker.list(status="blocked") == []
