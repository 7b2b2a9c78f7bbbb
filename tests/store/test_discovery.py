"""Discovery on a real store: four discoverers, isolated, ranked, filled up, admitted once."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from novawf.clock import ManualClock, iso
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.streams.signal_intake import SignalIntake
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import Priority, TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker
from novawf.work.item import Discoverer, Look, WorkItem
from novawf.work.jobs.catalogue import BUILT_IN
from novawf.work.momentum import Momentum
from novawf.work.priority_work import PriorityWork
from novawf.work.processor import Discovery, WorkProcessor
from novawf.work.strategic import StrategicPlanner
from novawf.work.stream_work import StreamWork

NOVAS = ("torch", "echo", "helix")
LIMIT_S = 0.2


class Finds:
    """A discoverer that finds what it was given, after `wait`, or raises."""

    def __init__(self, name: str, *items: WorkItem, error: Exception | None = None) -> None:
        self.name = name
        self.items = items
        self.error = error
        self.hangs = False

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.items


class Bench:
    """A queue, and processors of several Novas over it."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.queue = TaskQueue(redis, clock, TaskSettings())
        self.tracker = TaskTracker(redis, clock)

    def processor(
        self,
        nova: str = "torch",
        discoverers: Sequence[Discoverer] | None = None,
        *,
        momentum: bool = True,
    ) -> WorkProcessor:
        if discoverers is None:
            discoverers = (PriorityWork(), StreamWork(None), StrategicPlanner())
        return WorkProcessor(
            nova=nova,
            redis=self.redis,
            clock=self.clock,
            queue=self.queue,
            discoverers=discoverers,
            filler=Momentum(BUILT_IN, every_s=900) if momentum else None,
            limit_s=LIMIT_S,
        )

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "work", "callable": "jobs:work", **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def jobs(self) -> list[str]:
        """The built-in jobs in the queue, by name."""
        rows = await self.tracker.list()
        specs = [await self.spec(row["task_id"]) for row in rows]
        return sorted(spec.job for spec in specs if spec.job)

    async def spec(self, task_id: str) -> TaskSpec:
        """The task as it was submitted; the store keeps its request id along with it."""
        fields = json.loads(await self.redis.hget(keys.TASK_SPEC, task_id))
        return TaskSpec.parse({k: v for k, v in fields.items() if k in TaskSpec.model_fields})

    async def claimant(self, nova: str) -> Claimant:
        gate = Gate(self.redis, self.clock)
        await gate.refresh(safe("test", self.clock.now_ms() + 3_600_000))
        epoch = await take_identity(self.redis, nova)
        return Claimant(self.redis, self.clock, TaskSettings(), nova, epoch)

    async def fail(self, nova: str, count: int, detail: str = "exit code 3") -> list[str]:
        """Tasks that this Nova tried and that ended blocked."""
        claimant = await self.claimant(nova)
        task_ids = []
        for _ in range(count):
            task_ids.append(await self.submit(nova=nova, retries=0))
            claim = await claimant.claim()
            assert isinstance(claim, Claim)
            await claimant.finish(
                claim, Ending("blocked", "failed"), result="", detail=detail, claim_next=False
            )
        return task_ids


@pytest.fixture
def bench(redis: Any, clock: ManualClock) -> Bench:
    return Bench(redis, clock)


def item(key: str, priority: Priority = Priority.MEDIUM, *, job: str | None = None) -> WorkItem:
    spec = TaskSpec(title=key, job=job, priority=priority) if job else None
    return WorkItem(key, key, priority, 0, "test", spec)


# -- processor ------------------------------------------------------------------------------------


async def test_an_idle_fleet_gets_three_momentum_tasks(bench: Bench) -> None:
    """With nothing else to do, momentum fills up to three, each a built-in job of low priority."""
    found = await bench.processor().discover()
    assert len(found.items) == len(found.admitted) == 3
    for task_id in found.admitted:
        spec = await bench.spec(task_id)
        assert (spec.priority, spec.work_type, spec.retries) == ("low", "momentum", 0)
        assert (spec.estimated_s, spec.chosen_executor) == (900, "maintenance")
        assert spec.job in {job.name for job in BUILT_IN}


@pytest.mark.parametrize(("waiting", "momentum"), [(0, 3), (1, 2), (2, 1), (3, 0), (5, 0)])
async def test_momentum_fills_up_to_three_and_no_further(
    bench: Bench, waiting: int, momentum: int
) -> None:
    """What waits for this Nova counts first."""
    for number in range(waiting):
        await bench.submit(title=f"work {number}")
    found = await bench.processor().discover()
    assert len(await bench.jobs()) == momentum
    assert len(found.items) == max(3, waiting)


async def test_without_momentum_nothing_is_made_up(bench: Bench) -> None:
    """Switched off, an idle Nova stays idle."""
    found = await bench.processor(momentum=False).discover()
    assert found == Discovery(())
    assert await bench.tracker.list() == []


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_discoverer_that_fails_costs_its_own_finds_only(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are asked, ranked and admitted; the failure is counted, and logged once."""
    broken = Finds("broken", item("lost"), error=ZeroDivisionError("no way"))
    broken.hangs = how == "hangs"
    good = Finds("good", item("review", job="report"))
    processor = bench.processor(discoverers=(broken, good))
    with caplog.at_level(logging.WARNING, "novawf.work"):
        for _ in range(3):
            found = await processor.discover()
            assert found.failed == ("broken",)
            assert "review" in [found.key for found in found.items]
    assert processor.counts["failed:broken"] == 3
    assert sum("discovery by broken failed" in line for line in caplog.messages) == 1
    assert "report" in await bench.jobs()


async def test_a_filler_that_fails_costs_nothing_else(bench: Bench) -> None:
    """Momentum is isolated like the others."""
    processor = bench.processor(discoverers=(Finds("good", item("review", job="report")),))
    processor.filler = Finds("momentum", error=OSError("gone"))
    found = await processor.discover()
    assert (found.failed, await bench.jobs()) == (("momentum",), ["report"])


async def test_one_thing_that_two_found_is_admitted_once(bench: Bench) -> None:
    """Items of one key are one piece of work, in one discovery and in the next."""
    twice = [Finds(name, item("same", job="report")) for name in ("one", "two")]
    processor = bench.processor(discoverers=twice, momentum=False)
    first, second = await processor.discover(), await processor.discover()
    assert (len(first.admitted), len(second.admitted)) == (1, 0)
    assert await bench.jobs() == ["report"]


async def test_items_are_admitted_by_tier(bench: Bench) -> None:
    """Of more than three finds the most urgent ones go in; the others come with a later look."""
    finds = Finds("many", *(item(p, p, job="report") for p in reversed(Priority)))
    found = await bench.processor(discoverers=(finds,)).discover()
    priorities = [(await bench.spec(task_id)).priority for task_id in found.admitted]
    assert priorities == ["critical", "high", "medium"]
    assert found.more


async def test_a_find_that_the_queue_refuses_holds_up_no_other(bench: Bench) -> None:
    """It is counted as a failure of its discoverer."""
    bad = WorkItem(
        "bad", "bad", Priority.HIGH, 0, "test",
        TaskSpec(title="bad", job="report", after=("FLEET-1-ffffff",)),
    )  # fmt: skip
    processor = bench.processor(discoverers=(Finds("test", bad, item("ok", job="report")),))
    found = await processor.discover()
    assert processor.counts["failed:test"] == 1
    assert await bench.jobs() == sorted(["report", *(s for s in await _fill(bench, found))])


async def _fill(bench: Bench, found: Discovery) -> list[str]:
    specs = [await bench.spec(task_id) for task_id in found.admitted]
    return [spec.job or "" for spec in specs if spec.work_type == "momentum"]


async def test_a_store_that_is_away_is_no_error_of_the_nova(
    bench: Bench, valkey_server: StoreAddress, tmp_path: Any
) -> None:
    """Every discoverer fails, none raises, and the next look works again."""
    processor = bench.processor()
    away = connect(StoreAddress.unix(tmp_path / "none.sock"), name="away")
    processor.redis = away
    found = await processor.discover()
    assert found.items == ()
    assert set(found.failed) == {"priority", "streams", "strategic", "momentum"}
    processor.redis = bench.redis
    assert len((await processor.discover()).admitted) == 3
    await away.aclose()


# -- momentum -------------------------------------------------------------------------------------


async def test_many_novas_share_one_round_of_momentum(bench: Bench) -> None:
    """However many look at once, and after a restart, each job is there once in its interval."""
    everybody = [bench.processor(nova) for nova in NOVAS]
    for _ in range(3):
        await asyncio.gather(*(processor.discover() for processor in everybody))
    for nova in NOVAS:  # new processes remember nothing
        for _ in range(3):
            await bench.processor(nova).discover()
    fleet_wide = [job for job in await bench.jobs() if job != "insight_consolidation"]
    assert len(fleet_wide) == len(set(fleet_wide))


async def test_each_kind_comes_at_most_once_in_its_interval(bench: Bench) -> None:
    """Over a day of looks every minute, two tasks of one kind are an interval apart, and each
    kind keeps coming."""
    momentum = Momentum(BUILT_IN, every_s=900)
    processors = [bench.processor(nova, discoverers=()) for nova in NOVAS]
    for processor in processors:
        processor.filler = momentum
    seen: dict[tuple[str, str | None], list[int]] = {}
    for minute in range(24 * 60):
        found = await processors[minute % 3].discover()
        for task_id in found.admitted:
            spec = await bench.spec(task_id)
            seen.setdefault((spec.job or "", spec.nova), []).append(minute)
        bench.clock.advance(60_000)
    intervals = {job.name: (job.interval_s or 0) / 60 for job in momentum.jobs}
    assert {job for job, _ in seen} == set(intervals)
    for (job, _), minutes in seen.items():
        gaps = [later - earlier for earlier, later in itertools.pairwise(minutes)]
        assert min(gaps) >= intervals[job]
        assert max(gaps) <= 3 * intervals[job] + 5


async def test_personal_jobs_are_for_their_nova(bench: Bench) -> None:
    """Insights are private: each Nova consolidates its own, and no other is given that task."""
    personal = [job for job in BUILT_IN if job.per_nova]
    assert [job.name for job in personal] == ["insight_consolidation"]
    for nova in NOVAS:
        processor = bench.processor(nova, discoverers=())
        processor.filler = Momentum(personal, every_s=900)
        [task_id] = (await processor.discover()).admitted
        assert (await bench.spec(task_id)).nova == nova


async def test_the_interval_holds_when_the_wall_clock_was_set_back(bench: Bench) -> None:
    """The slot alone decides then: momentum neither doubles nor stops for hours."""
    processor = bench.processor(discoverers=())
    for _ in range(4):
        await processor.discover()
    bench.clock.wall_skew_s = -86_400
    assert (await processor.discover()).admitted == ()
    bench.clock.advance(3_600_000)
    assert len((await processor.discover()).admitted) == 3


# -- priority work --------------------------------------------------------------------------------


async def test_priority_work_is_what_waits_for_this_nova(bench: Bench) -> None:
    """Ready, aimed at it, and due soon: with their tiers; what is another's or far away is not."""
    later = iso(bench.clock.wall_s() + 600)
    much_later = iso(bench.clock.wall_s() + 86_400)
    wanted = {
        await bench.submit(priority="high"): "high",
        await bench.submit(priority="critical", nova="torch"): "critical",
        await bench.submit(priority="low", at=later): "low",
    }
    for other in ({"nova": "echo"}, {"at": much_later}, {"nova": "echo", "at": later}):
        await bench.submit(**other)
    found = await bench.processor(momentum=False).discover()
    assert {item.key: item.priority for item in found.items} == wanted
    assert [item.priority for item in found.items] == ["critical", "high", "low"]
    assert found.admitted == ()


async def test_a_broken_task_hides_no_other(bench: Bench) -> None:
    """A state that cannot be read is left out."""
    await bench.redis.zadd(keys.READY, {"BROKEN-1-00000a": 1, "GONE-1-00000b": 2})
    await bench.redis.hset(keys.TASK_STATE, "BROKEN-1-00000a", "nonsense")
    task_id = await bench.submit()
    found = await bench.processor(momentum=False).discover()
    assert [item.key for item in found.items] == [task_id]


# -- stream-based work ----------------------------------------------------------------------------


async def test_unread_messages_count_as_work(bench: Bench) -> None:
    """A backlog of the Nova's coordination stream is seen until the fleet's reader has it."""
    stream = keys.coordination("torch")
    for text in ("one", "two"):
        await bench.redis.xadd(stream, {"message": text})
    [backlog] = (await bench.processor(momentum=False).discover()).items
    assert (backlog.source, backlog.title) == ("streams", f"2 messages on {stream}")
    await bench.redis.xgroup_create(stream, "novawf", "0")
    await bench.redis.xreadgroup("novawf", "reader", {stream: ">"})
    [backlog] = (await bench.processor(momentum=False).discover()).items
    assert backlog.title == f"2 messages on {stream}"  # read and not acknowledged
    for entry_id, _ in await bench.redis.xrange(stream):
        await bench.redis.xack(stream, "novawf", entry_id)
    assert (await bench.processor(momentum=False).discover()).items == ()


async def test_a_coordination_key_of_another_type_is_no_failure(bench: Bench) -> None:
    """Anyone may write there; what is no stream holds nothing for us."""
    await bench.redis.set(keys.coordination("torch"), "text")
    found = await bench.processor(momentum=False).discover()
    assert (found.items, found.failed) == ((), ())


async def test_suggestions_that_become_due_are_new_work(bench: Bench) -> None:
    """What the suggestions put into the queue counts as found and as admitted, and calls for
    another look soon."""

    async def promote() -> list[str]:
        return [await bench.submit(title="suggested", priority="low")]

    found = await bench.processor(discoverers=(StreamWork(promote),), momentum=False).discover()
    assert len(found.admitted) == 1
    assert (found.items[0].key, found.more) == (found.admitted[0], True)


async def test_a_low_signal_becomes_work_of_an_idle_nova_by_its_look(bench: Bench) -> None:
    """From the message on its stream to the task; one task, however often it is looked for."""
    intake = SignalIntake(bench.queue, WakeSettings(), hour=lambda: 12, load=lambda: 0.0)
    message = {"message": "tidy up", "priority": "low", "argv": '["true"]'}
    await intake.accept(keys.coordination("torch"), "1-0", message, "torch")
    await bench.redis.hset(keys.NOVAS, "torch", json.dumps({"task": ""}))
    processor = bench.processor(discoverers=(StreamWork(intake.promote_due),), momentum=False)
    bench.clock.advance(29 * 60_000)
    assert (await processor.discover()).admitted == ()
    bench.clock.advance(60_000)
    [task_id] = (await processor.discover()).admitted
    view = await bench.tracker.task(task_id)
    assert (view["title"], view["nova"], view["work_type"]) == ("tidy up", "torch", "wake_signal")
    assert (await processor.discover()).admitted == ()


# -- strategic planner ----------------------------------------------------------------------------


async def test_failures_of_one_cause_that_pile_up_are_reviewed_once(bench: Bench) -> None:
    """Five dead letters of one cause make one review of low priority, not one a look."""
    task_ids = await bench.fail("torch", 5)
    processor = bench.processor(momentum=False)
    [admitted] = (await processor.discover()).admitted
    spec = await bench.spec(admitted)
    assert (spec.job, spec.work_type, spec.priority) == ("failure_review", "strategic", "low")
    assert spec.args == ["failed: exit code 3", list(reversed(task_ids))]
    bench.clock.advance(60_000)
    assert (await processor.discover()).admitted == ()


async def test_few_failures_or_different_ones_make_no_work(bench: Bench) -> None:
    """Nothing follows from thin air."""
    await bench.fail("torch", 4, "exit code 3")
    await bench.fail("torch", 4, "no such file")
    assert (await bench.processor(momentum=False).discover()).items == ()


async def test_failures_that_were_dealt_with_make_no_work(bench: Bench) -> None:
    """The records still tell of them; the tasks are completed by now."""
    task_ids = await bench.fail("torch", 5)
    claimant = await bench.claimant("torch")
    for task_id in task_ids:
        await bench.queue.retry(task_id)
        claim = await claimant.claim()
        assert isinstance(claim, Claim)
        await claimant.finish(
            claim, Ending("completed", "succeeded"), result="", detail="done", claim_next=False
        )
    assert (await bench.processor(momentum=False).discover()).items == ()


async def test_attempts_that_keep_failing_are_reviewed(bench: Bench) -> None:
    """Also while the queue still tries them again."""
    claimant = await bench.claimant("torch")
    for _ in range(5):
        await bench.submit(nova="torch")
        claim = await claimant.claim()
        assert isinstance(claim, Claim)
        await claimant.finish(
            claim, Ending("retry", "", 3600), result="", detail="timed out", claim_next=False
        )
    [admitted] = (await bench.processor(momentum=False).discover()).admitted
    assert (await bench.spec(admitted)).args[0] == "retried: timed out"


async def test_what_is_due_soon_and_has_not_begun_raises_an_alert(bench: Bench) -> None:
    """A review of high priority names it; a deadline far away does not."""
    near = iso(bench.clock.wall_s() + 300)
    far = iso(bench.clock.wall_s() + 86_400)
    task_id = await bench.submit(nova="echo", deadline=near)
    await bench.submit(nova="echo", deadline=far)
    found = await bench.processor(momentum=False).discover()
    [admitted] = found.admitted
    spec = await bench.spec(admitted)
    assert (spec.job, spec.args, spec.priority) == ("deadline_review", [[task_id]], "high")
    assert (await bench.processor("helix", momentum=False).discover()).admitted == ()


async def test_foreign_entries_on_task_streams_are_no_evidence(bench: Bench) -> None:
    """Anyone may write there: bytes that are no text, missing fields, another type of key."""
    stream = keys.completed("torch")
    for _ in range(6):
        await bench.redis.xadd(stream, {b"\xff": b"\xfe"})
        await bench.redis.xadd(stream, {"status": "blocked", "outcome": "failed"})
    await bench.redis.set(keys.completed("fleet"), "text")
    found = await bench.processor(momentum=False).discover()
    assert (found.items, found.failed) == ((), ())
