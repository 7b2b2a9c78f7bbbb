"""Each completed task is celebrated once, whatever crashes, is lost or comes late, and work never
waits for it.

"Celebrated" is read from the streams themselves: single records by their task, bursts by their
count. A crash is a life whose routine is dropped between two calls to the store.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import Jobs, World, step_until
from redis.exceptions import ConnectionError as RedisConnectionError
from waiting import until

from novawf.completion.config import CompletionSettings
from novawf.completion.routine import DETAILED, CompletionRoutine
from novawf.completion.transition import Upcoming
from novawf.executors.base import Outcome, Report, Work
from novawf.personality.profiles import Profile, profile_for
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.ending import Ending
from novawf.workflow.config import PhaseSettings
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.phases import Phase
from novawf.workflow.states import Event, State

CELEBRATIONS, INSIGHTS, STATUS = (
    make("torch") for make in (keys.celebrations, keys.insights, keys.status)
)


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    yield world
    await world.close()


def always(**changes: Any) -> Profile:
    """Torch, who reflects on every completion."""
    return profile_for("torch").model_copy(update={"reflection_share": 1.0, **changes})


class Faulty:
    """A store's client that loses one reply, or one request, on demand."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._left, self._what = 0, ""

    def lose(self, nth: int, what: str) -> None:
        """Lose the nth call from now, `before` or `after` it was done."""
        self._left, self._what = nth, what

    def _lost(self, what: str) -> None:
        if what == "before":
            self._left -= 1
        if self._left == 0 and self._what == what:
            self._left = -1
            raise RedisConnectionError("lost")

    def pipeline(self, **options: Any) -> Any:
        return self._redis.pipeline(**options)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            self._lost("before")
            reply = await getattr(self._redis, name)(*args, **options)
            self._lost("after")
            return reply

        return call


class Life:
    """One life of torch: it completes tasks and celebrates them."""

    def __init__(self, world: World, epoch: int, **settings: Any) -> None:
        self.world = world
        self.claimant = Claimant(world.redis, world.clock, world.settings, "torch", epoch)
        self.client = Faulty(world.redis)
        self.upcoming = Upcoming(phase="work_phase_1")
        self.routine = CompletionRoutine(
            redis=self.client,  # type: ignore[arg-type]
            clock=world.clock,
            nova="torch",
            nova_epoch=epoch,
            profile=always(),
            settings=CompletionSettings(**settings),
            upcoming=lambda: self.upcoming,
        )

    @classmethod
    async def begin(cls, world: World, **settings: Any) -> Life:
        return cls(world, await take_identity(world.redis, "torch"), **settings)

    async def complete(self, number: int = 1, *, noted: bool = True, **fields: Any) -> list[str]:
        """Complete so many tasks; not `noted`: a crash, or the loop, was quicker."""
        done = []
        for _ in range(number):
            await self.world.submit(**fields)
            claim = await self.claimant.claim()
            assert isinstance(claim, Claim)
            await self.claimant.finish(
                claim, Ending("completed", "succeeded"), result="{}", detail="", claim_next=False
            )
            done.append(claim.task_id)
            if noted:
                self.routine.completed(claim, Outcome(ok=True, duration_s=0.5))
        return done

    async def flush(self) -> bool:
        self.routine._disarm()
        return await self.routine.flush()


async def entries(world: World, stream: str) -> list[dict[str, str]]:
    return [fields for _, fields in await world.redis.xrange(stream)]


async def celebrated(world: World) -> tuple[Counter[str], int]:
    """(how often each task was celebrated by itself, how many more were in bursts)."""
    single: Counter[str] = Counter()
    more = 0
    for fields in await entries(world, CELEBRATIONS):
        if fields["type"] == "burst":
            more += int(fields["count"])
        else:
            single[fields["task_id"]] += 1
    return single, more


async def reflected(world: World) -> Counter[str]:
    return Counter(
        fields["task_id"]
        for fields in await entries(world, INSIGHTS)
        if fields["type"] == "reflection"
    )


# -- the records ------------------------------------------------------------------------------


async def test_a_completion_is_celebrated_reflected_on_and_followed_by_a_plan(
    world: World,
) -> None:
    life = await Life.begin(world)
    await life.flush()
    life.upcoming = Upcoming(task_id="T-9", title="next", phase="work_phase_2", tasks_in_phase=3)
    [task_id] = await life.complete(priority="critical")
    assert await life.flush()
    [celebration] = await entries(world, CELEBRATIONS)
    stamp = celebration.pop("timestamp")
    assert celebration == {
        "type": "task", "task_id": task_id, "title": "quick", "level": "bright",
        "impact": "critical",
    }  # fmt: skip
    [insight] = await entries(world, INSIGHTS)
    assert insight == {
        "type": "reflection", "task_id": task_id, "timestamp": stamp, "signs": "first_attempt",
        "lessons": "done at the first attempt", "skill": "python test:quick in 500 ms",
    }  # fmt: skip
    [transition] = await entries(world, STATUS)
    assert transition.pop("timestamp") >= stamp
    assert transition == {
        "type": "transition", "after": task_id, "next": "task", "phase": "work_phase_2",
        "tasks_in_phase": "3", "next_task_id": "T-9", "next_title": "next",
    }  # fmt: skip


async def test_what_failed_before_is_learned_from(world: World) -> None:
    """The errors of earlier attempts come from the task's history."""
    world.settings = world.settings.model_copy(update={"backoff_base_s": 0.0})

    async def once(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return Outcome(ok=work.attempt > 1, cause="failed", error="exit 3")

    nova = await world.nova(jobs=Jobs(once=once), profile=always())
    await world.submit("once")
    await step_until(nova, Event.NO_WORK)
    await nova.routine.flush()
    [insight] = await entries(world, INSIGHTS)
    assert insight["lessons"] == "took 2 attempts; the last failure was: exit 3"
    [celebration] = await entries(world, CELEBRATIONS)
    assert celebration["level"] == "warm"


async def test_blocked_tasks_are_not_celebrated(world: World) -> None:
    async def fails(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return Outcome(ok=False, cause="failed", error="exit 3")

    nova = await world.nova(jobs=Jobs(fails=fails), profile=always())
    await world.submit("fails", retries=0)
    task_id = await world.submit()
    await step_until(nova, Event.NO_WORK)
    await nova.routine.flush()
    assert await celebrated(world) == (Counter([task_id]), 0)


@pytest.mark.parametrize(
    ("how", "single", "more"), [("burst", DETAILED, 100 - DETAILED), ("all", 100, 0), ("off", 0, 0)]
)
@pytest.mark.parametrize("noted", [True, False])
async def test_what_a_burst_writes_down_is_settable(
    world: World, how: str, single: int, more: int, noted: bool
) -> None:
    """From memory and from the stream alike."""
    life = await Life.begin(world, records=how)
    await life.flush()
    await life.complete(100, noted=noted)
    if not noted:
        life.routine.doubt()
    await life.flush()
    names, count = await celebrated(world)
    assert (len(names), sum(names.values()), count) == (single, single, more)


async def test_titles_that_are_no_text_are_written_all_the_same(world: World) -> None:
    life = await Life.begin(world)
    await life.flush()
    claim = Claim(
        task_id="T-1", epoch=1, attempt=1, limit=1, ready_ms=0, created="",
        spec={"title": "\udc80"},
    )  # fmt: skip
    await world.redis.xadd(keys.completed("torch"), {"task_id": "T-1", "status": "completed"})
    life.routine.completed(claim, Outcome(ok=True))
    assert await life.flush()
    assert (await entries(world, CELEBRATIONS))[0]["title"] == "?"


# -- once, whatever happens ---------------------------------------------------------------------


async def test_a_crash_before_anything_was_written_is_made_good_by_the_next_life(
    world: World,
) -> None:
    first = await Life.begin(world)
    await first.flush()
    done = await first.complete(3) + await first.complete(1, noted=False)
    second = await Life.begin(world)
    done += await second.complete(2)
    assert await second.flush()
    assert await celebrated(world) == (Counter(done), 0)
    assert await reflected(world) == Counter(done)


@pytest.mark.parametrize("what", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("then", ["a new life", "the same life"])
async def test_a_crash_or_a_loss_between_any_two_calls_doubles_and_loses_nothing(
    world: World, nth: int, what: str, then: str
) -> None:
    """The calls: those of a life that catches up, and those that write what it noted."""
    earlier = await Life.begin(world)
    done = await earlier.complete(40)
    life = await Life.begin(world)
    life.client.lose(nth, what)
    await life.flush()
    done += await life.complete(2)
    await life.flush()
    done += await life.complete(1)
    await life.flush()
    life.client.lose(0, "")
    if then == "a new life":
        life = await Life.begin(world)
    done += await life.complete(1)
    assert await life.flush()
    single, more = await celebrated(world)
    assert set(single.values()) == {1}
    assert set(single) <= set(done)
    assert len(single) + more == len(done)
    assert set((await reflected(world)).values()) == {1}


async def test_an_old_life_that_wakes_up_writes_nothing(world: World) -> None:
    old = await Life.begin(world)
    await old.flush()
    done = await old.complete(3)
    new = await Life.begin(world)
    await new.flush()
    before = [await world.redis.xlen(stream) for stream in (CELEBRATIONS, INSIGHTS, STATUS)]
    await old.flush()
    old.routine.personal_phase_over(60.0, "time")
    await old.flush()
    assert before == [await world.redis.xlen(stream) for stream in (CELEBRATIONS, INSIGHTS, STATUS)]
    assert await celebrated(world) == (Counter(done), 0)


async def test_an_end_that_is_noted_only_after_it_was_read_back_counts_once(world: World) -> None:
    """The reply of a finish was lost, and the stream was gone through before it came again."""
    life = await Life.begin(world)
    [task_id] = await life.complete(noted=False)
    await life.flush()
    claim = Claim(
        task_id=task_id, epoch=1, attempt=1, limit=1, ready_ms=0, created="", spec={"title": "t"}
    )
    life.routine.completed(claim, Outcome(ok=True))
    await life.flush()
    assert await celebrated(world) == (Counter([task_id]), 0)


async def test_what_ends_while_the_past_is_gone_through_counts_once(world: World) -> None:
    """Completions and a slow catch-up run side by side."""
    earlier = await Life.begin(world)
    done = await earlier.complete(1200)
    life = await Life.begin(world)
    catching_up = asyncio.create_task(life.routine.flush())
    while not catching_up.done():
        done += await life.complete()
    assert await catching_up
    done += await life.complete(3)
    await life.flush()
    await life.flush()
    single, more = await celebrated(world)
    assert set(single.values()) == {1}
    assert len(single) + more == len(done)


@pytest.mark.parametrize("seed", range(6))
async def test_any_mixture_of_ends_losses_and_lives_counts_each_task_once(
    world: World, seed: int
) -> None:
    choose = random.Random(seed)
    records = choose.choice(["burst", "all"])
    life, old, done = await Life.begin(world, records=records), None, []
    for _ in range(60):
        act = choose.randrange(7)
        if act <= 2:
            noted = choose.random() < 0.9
            done += await life.complete(choose.choice([1, 1, 2, 45]), noted=noted)
            if not noted:
                life.routine.doubt()
        elif act == 3:
            life.client.lose(choose.randint(1, 5), choose.choice(["before", "after"]))
        elif act == 4:
            old, life = life, await Life.begin(world, records=records)
        elif act == 5 and old is not None:
            await old.flush()
        else:
            await life.flush()
    life = await Life.begin(world, records=records)
    assert await life.flush()
    single, more = await celebrated(world)
    assert set(single.values()) <= {1}
    assert len(single) + more == len(done)


# -- what fails ------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [CELEBRATIONS, INSIGHTS, STATUS])
async def test_a_part_that_cannot_be_written_is_left_out_and_the_others_are_not(
    world: World, broken: str
) -> None:
    await world.redis.set(broken, "of another type")
    nova = await world.nova(profile=always())
    for _ in range(3):
        task_id = await world.submit()
        await step_until(nova, Event.RECORDED)
        assert await nova.routine.flush()
        assert await world.status(task_id) == ("completed", "succeeded")
    for stream in {CELEBRATIONS, INSIGHTS, STATUS} - {broken}:
        assert await world.redis.xlen(stream) == 3


async def test_a_marker_that_cannot_be_kept_stops_no_work(world: World) -> None:
    await world.redis.set(keys.COMPLETION, "of another type")
    nova = await world.nova()
    task_id = await world.submit()
    await step_until(nova, Event.NO_WORK)
    assert not await nova.routine.flush()
    assert await world.status(task_id) == ("completed", "succeeded")
    await world.redis.delete(keys.COMPLETION)
    assert await nova.routine.flush()
    assert await celebrated(world) == (Counter([task_id]), 0)


# -- time ----------------------------------------------------------------------------------------


def resting(**lengths: float) -> dict[str, Any]:
    """A Nova whose completion routine rests."""
    parts = {"celebration_s": 0, "reflection_s": 0, "planning_s": 0, "max_pause_s": 60, **lengths}
    return {"pace": 1.0, "completion": CompletionSettings(**parts)}


async def test_a_routine_of_length_nought_does_not_rest(world: World) -> None:
    nova = await world.nova(**resting())
    await world.submit()
    await step_until(nova, Event.RECORDED)
    began_s = time.monotonic()
    assert await nova.cycle.execute_cycle() is Event.ROUTINE_DONE
    assert time.monotonic() - began_s < 0.5


@pytest.mark.parametrize("part", ["celebration_s", "planning_s"])
async def test_each_part_rests_for_its_length(world: World, part: str) -> None:
    nova = await world.nova(**resting(**{part: 0.3}))
    await world.redis.delete(keys.WAKE_ANY)
    await world.submit()
    await step_until(nova, Event.RECORDED)
    await world.redis.delete(keys.WAKE_ANY)
    began_s = time.monotonic()
    assert await nova.cycle.execute_cycle() is Event.ROUTINE_DONE
    assert 0.25 < time.monotonic() - began_s < 2


async def test_work_in_hand_is_not_delayed(world: World) -> None:
    nova = await world.nova(**resting(celebration_s=60))
    await world.submit("steady")
    await world.submit()
    await step_until(nova, Event.RECORDED)
    began_s = time.monotonic()
    assert await nova.cycle.execute_cycle() is Event.ROUTINE_DONE
    assert time.monotonic() - began_s < 0.5


@pytest.mark.parametrize("how", ["a task", "a task that falls due", "a drain"])
async def test_the_rest_ends_at_once_when_there_is_something_to_do(world: World, how: str) -> None:
    nova = await world.nova(**resting(celebration_s=60))
    first = await world.submit()
    jobs = nova.executors["python"]
    if how == "a task that falls due":
        from novawf.clock import iso

        await world.submit(at=iso(world.clock.wall_s() + 0.5))
    running = world.run(nova)
    await world.ended(first)
    await until(
        lambda: nova.data.current_state is State.COMPLETION_ROUTINE, what="the rest of the Nova"
    )
    if how == "a drain":
        nova.drain(1)
        await asyncio.wait_for(running, 5)
        return
    if how == "a task":
        await world.submit(priority="critical")
    await until(lambda: len(jobs.ran) == 2, 3, what="the second task")  # type: ignore[attr-defined]


async def test_celebrations_are_written_in_the_background(world: World) -> None:
    nova = await world.nova(profile=always())
    task_id = await world.submit()
    world.run(nova)
    await until(lambda: world.redis.xlen(CELEBRATIONS), 5, what="a celebration")
    assert await celebrated(world) == (Counter([task_id]), 0)


async def test_a_starting_nova_celebrates_what_its_last_life_could_not(world: World) -> None:
    life = await Life.begin(world)
    done = await life.complete(2)
    world.run(await world.nova())
    await until(lambda: world.redis.xlen(CELEBRATIONS), 5, what="a celebration")
    assert await celebrated(world) == (Counter(done), 0)


async def test_a_drain_waits_for_the_last_celebrations(world: World) -> None:
    nova = await world.nova()
    task_id = await world.submit()
    running = world.run(nova)
    await world.ended(task_id)
    nova.drain(1)
    await asyncio.wait_for(running, 5)
    assert await celebrated(world) == (Counter([task_id]), 0)


# -- phases --------------------------------------------------------------------------------------


async def personal(world: World, personal_s: float, **config: Any) -> NovaRuntime:
    """A Nova whose first personal phase is about to begin."""
    phases = PhaseSettings(tasks_per_phase=1, personal_every=1, personal_s=personal_s)
    nova = await world.nova(
        phases=phases, profile=always(), **{"pace": 1.0, "completion": None, **config}
    )
    return nova


NO_REST = CompletionSettings(max_pause_s=0)


async def in_personal_phase(world: World, nova: NovaRuntime) -> None:
    await world.submit()
    world.run(nova)
    await until(lambda: nova.data.current_phase is Phase.PERSONAL, what="the personal phase")


async def personal_insights(world: World) -> list[dict[str, str]]:
    return [e for e in await entries(world, INSIGHTS) if e["type"] == "personal"]


async def test_a_personal_phase_ends_by_itself_and_draws_the_insights_together(
    world: World,
) -> None:
    nova = await personal(world, 0.6, completion=NO_REST)
    await in_personal_phase(world, nova)
    await until(lambda: nova.data.current_phase is Phase.WORK_2, 5, what="work again")
    [insight] = await until(lambda: personal_insights(world), 5, what="a personal insight")
    assert insight["ended_by"] == "time"
    assert float(insight["rested_s"]) >= 0.5
    assert (insight["reflections"], insight["signs"]) == ("1", "first_attempt 1")
    assert insight["skills"] == "python test:quick 1"


async def test_work_ends_a_personal_phase_at_once(world: World) -> None:
    nova = await personal(world, 600, completion=NO_REST)
    jobs = nova.executors["python"]
    await in_personal_phase(world, nova)
    await until(lambda: nova.data.current_state is State.WORK_DISCOVERY, what="the rest")
    began_s = time.monotonic()
    await world.submit(priority="critical")
    await until(lambda: len(jobs.ran) == 2, 3, what="the critical task")  # type: ignore[attr-defined]
    assert time.monotonic() - began_s < 1
    await until(lambda: personal_insights(world), 5, what="a personal insight")
    assert (await personal_insights(world))[0]["ended_by"] == "work"


async def test_a_drain_ends_a_personal_phase(world: World) -> None:
    nova = await personal(world, 600, completion=NO_REST)
    await world.submit()
    running = world.run(nova)
    await until(lambda: nova.data.current_phase is Phase.PERSONAL, what="the personal phase")
    nova.drain(1)
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    "config", [{"personal_s": 0.0}, {"personal_s": 600.0, "pace": 0.0}], ids=["0 s", "pace 0"]
)
async def test_a_personal_phase_of_no_length_delays_nothing(world: World, config: Any) -> None:
    nova = await personal(world, completion=NO_REST, **config)
    await world.submit()
    await step_until(nova, Event.PHASE_CHANGED)
    assert nova.data.current_phase is Phase.PERSONAL
    began_s = time.monotonic()
    await step_until(nova, Event.PHASE_CHANGED)
    assert time.monotonic() - began_s < 0.5
    assert nova.data.current_phase is Phase.WORK_2


async def test_work_in_hand_goes_before_a_personal_phase(world: World) -> None:
    nova = await personal(world, 600, completion=NO_REST)
    jobs = nova.executors["python"]
    for _ in range(3):
        await world.submit()
    began_s = time.monotonic()
    while len(jobs.ran) < 3:  # type: ignore[attr-defined]
        await nova.cycle.execute_cycle()
    assert time.monotonic() - began_s < 2


async def test_a_crash_in_a_personal_phase_ends_it(world: World) -> None:
    nova = await personal(world, 600, completion=NO_REST)
    await world.submit()
    await step_until(nova, Event.PHASE_CHANGED)
    await nova.heartbeat.beat()
    again = await personal(world, 600, completion=NO_REST)
    assert again.data.current_phase is Phase.PERSONAL
    await step_until(again, Event.PHASE_CHANGED)
    assert again.data.current_phase is Phase.WORK_2


@pytest.mark.parametrize("what", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 4))
async def test_a_lost_call_writes_a_personal_insight_once(
    world: World, nth: int, what: str
) -> None:
    """The calls of a consolidation: read the marker, read the insights, write."""
    life = await Life.begin(world)
    await life.complete(2)
    await life.flush()
    life.routine.personal_phase_over(60.0, "time")
    life.client.lose(nth, what)
    for _ in range(3):
        await life.flush()
    assert [e["reflections"] for e in await personal_insights(world)] == ["2"]
    life.routine.personal_phase_over(30.0, "work")
    await life.flush()
    assert [e["reflections"] for e in await personal_insights(world)] == ["2", "0"]


async def test_hurried_personal_phases_wait_for_something_worth_drawing_together(
    world: World,
) -> None:
    life = await Life.begin(world)
    for expected in ([], [], ["12"]):
        await life.complete(4)
        await life.flush()
        life.routine.personal_phase_over(0.0, "work")
        await life.flush()
        assert [e["reflections"] for e in await personal_insights(world)] == expected
