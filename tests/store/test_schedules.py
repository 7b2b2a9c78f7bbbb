"""Schedules on a real store: a due time has at most one task, a gap one catch-up; never silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from novawf.clock import ManualClock, iso, parse_iso
from novawf.errors import InvalidSchedule, NotFound, Refused
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.schedules import Schedule, Scheduler, new_schedule, next_due, resume
from novawf.tasks.tracker import TaskTracker

EXAMPLES = int(os.environ.get("NOVAWF_SCHEDULE_EXAMPLES", "50"))
TASK = TaskSpec.parse({"title": "count", "argv": ["wc", "-l", "x"]})
START_S = parse_iso("2026-03-10T12:00:30Z")
HOUR_S = 3600


class World:
    """A queue with schedules, on a clock of its own."""

    def __init__(self, redis: Any, start_s: float = START_S) -> None:
        self.redis = redis
        self.clock = ManualClock(int(start_s * 1000))
        self.queue = TaskQueue(redis, self.clock, TaskSettings())
        self.tracker = TaskTracker(redis, self.clock)
        self.scheduler = self.runner()

    def runner(self, reread_s: float = 0.0) -> Scheduler:
        """As a supervisor has it after a restart: it remembers nothing."""
        return Scheduler(self.queue, reread_s)

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(int(seconds * 1000))

    async def add(self, name: str = "count", cron: str = "* * * * *", **more: Any) -> Schedule:
        return await self.scheduler.add(name, cron, TASK, **more)

    async def the(self, name: str = "count") -> Schedule:
        return next(s for s in await self.scheduler.schedules() if s.name == name)

    async def dues(self) -> list[str]:
        """The due times of all tasks, in order of their creation."""
        return [task["metadata"]["due_at"] for task in await self.tracker.list()]

    async def end(self, task_id: str) -> None:
        await self.queue.cancel(task_id)


@pytest.fixture
def world(redis: Any) -> World:
    return World(redis)


# -- runs -----------------------------------------------------------------------------------------


async def test_a_due_time_makes_one_task(world: World) -> None:
    await world.add()
    assert (await world.scheduler.run_due()).runs == ()
    world.pass_s(30)
    [run] = (await world.scheduler.run_due()).runs
    assert (await world.scheduler.run_due()).runs == ()
    assert run.due_s == parse_iso("2026-03-10T12:01:00Z")
    task = await world.tracker.task(run.task_id)
    assert (task["title"], task["status"]) == ("count", "pending")
    assert task["metadata"] == {"schedule": "count", "due_at": "2026-03-10T12:01:00.000Z"}
    schedule = await world.the()
    assert (schedule.last_at, schedule.last_task_id, schedule.runs) == (run.due_s, run.task_id, 1)
    assert schedule.next_at == run.due_s + 60


async def test_the_answer_says_when_the_next_one_is_due(world: World) -> None:
    await world.add("hourly", "0 * * * *")
    await world.add("daily", "0 3 * * *")
    assert (await world.scheduler.run_due()).next_at == parse_iso("2026-03-10T13:00:00Z")


async def test_the_store_is_not_asked_before_something_is_due(world: World) -> None:
    """Asking every second costs nothing, and what is due comes on time; what somebody else added
    is seen within `reread_s`."""
    await world.add("hourly", "0 * * * *")
    runner = world.runner(reread_s=5)
    await runner.run_due()
    await world.redis.config_resetstat()
    world.pass_s(4.999)
    await runner.run_due()
    assert "cmdstat_hgetall" not in await world.redis.info("commandstats")
    await world.add("soon", "* * * * *")
    world.pass_s(25.001)
    assert [run.schedule for run in (await runner.run_due()).runs] == ["soon"]
    world.pass_s(30)  # 12:01:30
    await runner.run_due()
    world.pass_s(30)
    await world.end((await world.the("soon")).last_task_id or "")
    assert [run.schedule for run in (await runner.run_due()).runs] == ["soon"]


async def test_what_was_missed_is_made_up_for_once(world: World) -> None:
    """The fleet was down for three days."""
    await world.add(cron="0 * * * *")
    world.pass_s(72 * HOUR_S)
    runner = world.runner()
    assert len((await runner.run_due()).runs) == 1
    assert (await runner.run_due()).runs == ()
    schedule = await world.the()
    assert schedule.missed == 71
    assert schedule.next_at == parse_iso("2026-03-13T13:00:00Z")


async def test_the_count_of_missed_runs_is_bounded(world: World) -> None:
    await world.add()
    world.pass_s(30 * 24 * HOUR_S)
    await world.scheduler.run_due()
    assert (await world.the()).missed == 1000


async def test_a_clock_that_goes_back_runs_nothing_again(world: World) -> None:
    await world.add(overlap="queue")
    for _ in range(5):
        world.pass_s(60)
        await world.scheduler.run_due()
    world.clock.wall_skew_s = -240
    for _ in range(3):
        world.pass_s(60)
        assert (await world.scheduler.run_due()).runs == ()
    dues = await world.dues()
    assert len(dues) == len(set(dues)) == 5


async def test_a_clock_that_was_years_ahead_silences_nothing(world: World) -> None:
    await world.add(overlap="queue")
    world.clock.wall_skew_s = 14 * 365 * 86_400
    assert len((await world.scheduler.run_due()).runs) == 1
    world.clock.wall_skew_s = 0
    await world.scheduler.run_due()
    for minute in range(1, 4):
        world.pass_s(60)
        runs = (await world.scheduler.run_due()).runs
        # The catch-up was for the first of them.
        assert len(runs) == (0 if minute == 1 else 1)


# -- crashes and rivals ---------------------------------------------------------------------------


async def test_a_crash_before_the_record_moved_on_makes_no_second_task(world: World) -> None:
    await world.add(overlap="queue")
    before = await world.redis.hget(keys.SCHEDULES, "count")
    world.pass_s(30)
    [run] = (await world.scheduler.run_due()).runs
    await world.redis.hset(keys.SCHEDULES, "count", before)
    assert (await world.runner().run_due()).runs == ()
    schedule = await world.the()
    assert (schedule.last_task_id, schedule.runs) == (run.task_id, 1)


async def test_what_is_missed_after_such_a_crash_has_a_catch_up_of_its_own(world: World) -> None:
    """The task that the dead runner made was for the time until then."""
    await world.add(overlap="queue")
    before = await world.redis.hget(keys.SCHEDULES, "count")
    world.pass_s(30)
    await world.scheduler.run_due()
    await world.redis.hset(keys.SCHEDULES, "count", before)
    world.pass_s(HOUR_S)
    runner = world.runner()
    assert (await runner.run_due()).runs == ()
    assert len((await runner.run_due()).runs) == 1
    assert (await runner.run_due()).runs == ()
    assert (await world.dues()) == ["2026-03-10T12:01:00.000Z", "2026-03-10T12:02:00.000Z"]


async def test_two_runners_make_one_task_for_each_due_time(world: World) -> None:
    await world.add(overlap="queue")
    world.pass_s(3 * HOUR_S)  # a catch-up, too
    rivals = [world.runner() for _ in range(4)]
    for _ in range(5):
        await asyncio.gather(*(rival.run_due() for rival in rivals))
        world.pass_s(60)
    dues = await world.dues()
    assert len(dues) == len(set(dues)) == 5
    assert (await world.the()).runs == 5


async def test_a_schedule_that_was_replaced_meanwhile_keeps_its_new_words(world: World) -> None:
    """The runner's write is for the record it read."""
    await world.add()
    world.pass_s(30)
    [kept] = await world.scheduler._read()
    await world.scheduler.add("count", "0 3 * * *", TASK, replace_it=True)
    assert not await world.scheduler._put("count", kept.packed, "{}")
    assert (await world.the()).cron == "0 3 * * *"


async def test_a_schedule_that_was_removed_meanwhile_does_not_come_back(world: World) -> None:
    await world.add()
    [kept] = await world.scheduler._read()
    await world.scheduler.remove("count")
    assert not await world.scheduler._put("count", kept.packed, kept.packed)
    assert await world.scheduler.schedules() == []


# -- overlap and refusals -------------------------------------------------------------------------


async def test_a_run_that_has_not_ended_is_not_run_over(world: World) -> None:
    await world.add()
    world.pass_s(60)
    [run] = (await world.scheduler.run_due()).runs
    world.pass_s(60)
    assert (await world.scheduler.run_due()).runs == ()
    schedule = await world.the()
    assert schedule.skipped == 1
    assert schedule.last_error == f"its task {run.task_id} has not ended"
    await world.end(run.task_id)
    world.pass_s(60)
    assert len((await world.scheduler.run_due()).runs) == 1
    assert (await world.the()).last_error is None


async def test_runs_may_queue(world: World) -> None:
    await world.add(overlap="queue")
    for _ in range(3):
        world.pass_s(60)
        await world.scheduler.run_due()
    assert len(await world.tracker.list(status="pending")) == 3


async def test_a_task_that_awaits_approval_has_not_ended(world: World) -> None:
    task = TaskSpec.parse({"title": "x", "argv": ["true"], "approval": True})
    await world.scheduler.add("count", "* * * * *", task)
    for _ in range(2):
        world.pass_s(60)
        await world.scheduler.run_due()
    assert len(await world.tracker.list()) == 1
    assert (await world.the()).skipped == 1


async def test_a_schedule_whose_nova_is_gone_is_kept_and_says_so(world: World) -> None:
    """And goes on by itself when that Nova is there again."""
    task = TaskSpec.parse({"title": "x", "argv": ["true"], "nova": "helix"})
    await world.scheduler.add("count", "* * * * *", task)
    await world.redis.hset(keys.NOVAS, "torch", "{}")
    world.pass_s(60)
    assert (await world.scheduler.run_due()).runs == ()
    schedule = await world.the()
    assert schedule.last_error == "there is no Nova helix"
    assert await world.tracker.list() == []
    await world.redis.hset(keys.NOVAS, "helix", "{}")
    world.pass_s(60)
    assert len((await world.scheduler.run_due()).runs) == 1


async def test_one_that_cannot_be_read_harms_no_other(world: World) -> None:
    await world.add()
    await world.redis.hset(keys.SCHEDULES, mapping={"a": "{}", "b": "no JSON", "z": '{"cron": 1}'})
    world.pass_s(60)
    assert [run.schedule for run in (await world.scheduler.run_due()).runs] == ["count"]


async def test_a_task_that_the_model_refuses_by_now_is_kept_with_the_reason(world: World) -> None:
    schedule = await world.add()
    old = Schedule(**{**_fields(schedule), "task": {"title": "x", "colour": "red"}})
    await world.redis.hset(keys.SCHEDULES, "count", old.packed())
    world.pass_s(60)
    await world.scheduler.run_due()
    assert (await world.the()).last_error == "colour: is not a field of a task"


async def test_a_name_has_one_meaning(world: World) -> None:
    """Adding it again in the same words, after a lost reply, changes nothing."""
    first = await world.add()
    world.pass_s(600)
    assert await world.add() == first
    with pytest.raises(Refused, match="something else"):
        await world.add(cron="0 3 * * *")
    assert (await world.add(cron="0 3 * * *", replace_it=True)).cron == "0 3 * * *"


async def test_removing_needs_something_to_remove(world: World) -> None:
    await world.add()
    await world.scheduler.remove("count")
    with pytest.raises(NotFound, match="no schedule count"):
        await world.scheduler.remove("count")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"cron": "every day"}, "cron"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 L-3 * *"}, "cron"),
        ({"cron": "*/0 * * * *"}, "cron"),
        ({"cron": "1," * 200 + "1 * * * *"}, "cron"),
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"tz": "../etc/passwd"}, "tz"),
        ({"tz": ""}, "tz"),
        ({"overlap": "maybe"}, "overlap"),
        ({"task": {"at": "2030-01-01"}}, "at"),
        ({"task": {"dedupe": "k"}}, "dedupe"),
        ({"task": {"after": ("X-1-000001",)}}, "after"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(changes: dict[str, Any], field: str) -> None:
    given = {"name": "x", "cron": "* * * * *", "tz": "UTC", "overlap": "skip", **changes}
    given["task"] = TaskSpec.parse({"title": "x", **changes.get("task", {})})
    with pytest.raises(InvalidSchedule) as refused:
        new_schedule(**given, now_s=START_S)
    assert refused.value.field == field
    assert "\n" not in str(refused.value)


# -- time zones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),  # 3:00 is summer time
        ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),  # 2:30 does not exist
        ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),  # the first of two
        ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ("30 2 * * *", "2026-10-25T01:15:00Z", "2026-10-26T01:30:00Z"),  # in the second 2:15
    ],
)
def test_due_times_follow_the_zone_over_its_changes(cron: str, after: str, due: str) -> None:
    found = next_due(cron, "Europe/Berlin", parse_iso(after))
    assert found == parse_iso(due), found and iso(found)


@given(
    cron=st.sampled_from(["* * * * *", "30 2 * * *", "*/7 1-4 * * *", "0 0 1 * *", "15 2 * * SUN"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    after_s=st.floats(1_760_000_000, 1_800_000_000),
)
def test_a_due_time_is_always_later(cron: str, zone: str, after_s: float) -> None:
    """Else a schedule would be due at once, again and again."""
    found = next_due(cron, zone, after_s)
    assert found is not None
    assert found > after_s


# -- what holds whatever happens ------------------------------------------------------------------


class Lossy:
    """Lets a connection fail before, or after, the command that is counted out."""

    def __init__(self, redis: Any) -> None:
        self.send = redis.execute_command
        self.fails_at = 0
        self.after = False
        redis.execute_command = self

    async def __call__(self, *args: Any, **options: Any) -> Any:
        self.fails_at -= 1
        if self.fails_at == 0 and not self.after:
            raise RedisConnectionError("lost before it was sent")
        reply = await self.send(*args, **options)
        if self.fails_at == 0:
            raise RedisConnectionError("lost after it was done")
        return reply


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([1, 29, 30, 60, 61, 600, 7200, 200_000])),
        st.tuples(
            st.just("jump"),
            st.sampled_from([-400_000_000, -90_000, -7200, -600, -60, -1, 1, 60, 600, 90_000]),
        ),
        st.tuples(st.just("run"), st.just(0)),
        st.tuples(st.just("lost before"), st.integers(1, 9)),
        st.tuples(st.just("lost after"), st.integers(1, 9)),
        st.tuples(st.just("rivals"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
    ),
    max_size=25,
)


@given(
    steps=STEPS,
    cron=st.sampled_from(["* * * * *", "*/10 * * * *", "0 * * * *"]),
    overlap=st.sampled_from(["skip", "queue"]),
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_clocks_and_connections_do(
    valkey_server: StoreAddress, steps: list[tuple[str, int]], cron: str, overlap: Any
) -> None:
    """Each due time has at most one task, each look makes at most one, and it never goes silent."""

    async def play() -> None:
        redis: Any = connect(valkey_server, name="test")
        await redis.flushall()
        world = World(redis)
        await world.add(cron=cron, overlap=overlap)
        lossy = Lossy(redis)
        try:
            for step, value in steps:
                before = len(await world.dues())
                if step == "pass":
                    world.pass_s(value)
                elif step == "jump":
                    world.clock.wall_skew_s += value
                elif step == "end":
                    for task in await world.tracker.list(status="pending"):
                        await world.end(task["task_id"])
                elif step == "rivals":
                    await asyncio.gather(*(world.runner().run_due() for _ in range(3)))
                else:
                    lossy.fails_at, lossy.after = value, step == "lost after"
                    if step == "run":
                        lossy.fails_at = 0
                    with contextlib.suppress(RedisConnectionError):
                        await world.runner().run_due()
                    lossy.fails_at = 0
                dues = await world.dues()
                assert len(dues) == len(set(dues)), step
                assert len(dues) - before <= 1, step
                assert all(parse_iso(due) <= world.clock.wall_s() for due in dues[before:]), step
            await speaks(world, cron)
        finally:
            await redis.aclose()

    asyncio.run(play())


async def speaks(world: World, cron: str) -> None:
    """By a clock that now goes on properly, with tasks that end, the next due time but one has its
    task (the next one may have been seen to before the clock went back)."""
    await world.scheduler.run_due()
    for task in await world.tracker.list(status="pending"):
        await world.end(task["task_id"])
    for _ in range(2):
        due_s = next_due(cron, "UTC", world.clock.wall_s()) or 0
        world.pass_s(due_s - world.clock.wall_s() + 0.5)
        await world.runner().run_due()
        for task in await world.tracker.list(status="pending"):
            await world.end(task["task_id"])
        assert iso(due_s) in await world.dues()


# -- the decision by itself -----------------------------------------------------------------------


def test_a_gap_that_a_dead_runner_saw_to_in_part_goes_on_from_there() -> None:
    """Pure: the next due time is counted from the admission, never from before the due time."""
    schedule = new_schedule("x", "0 * * * *", TASK, "UTC", "queue", START_S)
    due_s = schedule.next_at or 0
    later = resume(schedule, due_s + 10 * HOUR_S, task_id="T", admitted_s=due_s + 2 * HOUR_S + 5)
    assert (later.next_at, later.missed) == (due_s + 3 * HOUR_S, 2)
    back = resume(schedule, due_s + 5, task_id="T", admitted_s=due_s - 5 * HOUR_S)
    assert (back.next_at, back.missed) == (due_s + HOUR_S, 0)


def _fields(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in Schedule.__dataclass_fields__}
