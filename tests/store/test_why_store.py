"""Explanations from a real store: what is said of a task is what the real scripts then do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from novawf.clock import ManualClock, iso
from novawf.errors import NotFound, Refused
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe, unsafe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.store.ownership import Owner, Ownership
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.why.answering import answer
from novawf.why.reading import Reader
from novawf.why.tasks import explain_task
from novawf.workflow.identity import ChildRecord, NovaBeat

NOVAS = ("echo", "helix", "torch")
EXAMPLES = int(os.environ.get("NOVAWF_WHY_EXAMPLES", "25"))
"""A quarter of a second each; set it high for a long search."""
PRIORITIES = ("critical", "high", "medium", "low")


class World:
    """The real queue, and Novas that are nothing but claimants with heartbeats."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = TaskSettings(lease_s=10)
        self.queue = TaskQueue(redis, clock, self.settings)
        self.gate = Gate(redis, clock)
        self.claimants: dict[str, Claimant] = {}
        self.held: dict[str, Claim] = {}
        self.tasks: list[str] = []

    async def start(self, *novas: str) -> World:
        await self.redis.hset(keys.FLEET, "document", json.dumps({"state": "running"}))
        await self.gate.refresh(safe("drill", self.clock.now_ms() + 10**9))
        for nova in novas:
            epoch = await take_identity(self.redis, nova)
            self.claimants[nova] = Claimant(self.redis, self.clock, self.settings, nova, epoch)
        await self.beat()
        return self

    async def beat(self, **changes: Any) -> None:
        """Every Nova shows itself."""
        now = self.clock.now_ms()
        for number, (nova, claimant) in enumerate(self.claimants.items()):
            held = self.held.get(nova)
            record = ChildRecord("nova", 10 + number, True, 0, "running", iso(self.clock.wall_s()))
            fields = {
                "pid": 10 + number, "epoch": claimant.nova_epoch, "phase": "work_phase_1",
                "state": "task_execution" if held else "work_discovery",
                "task": held.task_id if held else "", "cycles": 1, "seen_ms": now,
                "progress_ms": now, "since_ms": now,
            } | changes  # fmt: skip
            await self.redis.hset(keys.CHILDREN, nova, record.to_json())
            await self.redis.hset(keys.NOVAS, nova, NovaBeat(**fields).to_json())

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "Count", "argv": ["true"], **fields})
        task_id = (await self.queue.admit(spec, request_id())).task_id
        self.tasks.append(task_id)
        return task_id

    async def claim(self, nova: str) -> str | None:
        reply = await self.claimants[nova].claim()
        if not isinstance(reply, Claim):
            return None
        self.held[nova] = reply
        return reply.task_id

    async def finish(self, nova: str, ending: Ending, detail: str = "") -> None:
        claim = self.held.pop(nova)
        await self.claimants[nova].finish(
            claim, ending, result="", detail=detail, claim_next=False
        )  # fmt: skip

    async def why(self, subject: str | None = None) -> dict[str, Any]:
        return await answer(Reader(self.redis, self.clock), subject)

    def in_s(self, seconds: float) -> str:
        return iso(self.clock.wall_s() + seconds)


@pytest.fixture
async def world(redis: Any, clock: ManualClock) -> AsyncIterator[World]:
    yield await World(redis, clock).start("torch")


# -- one task -------------------------------------------------------------------------------------


async def test_a_task_is_followed_through_its_life(world: World) -> None:
    """Ready, in hand, backing off, ready again, in hand, completed: each said as it is."""
    task_id = await world.submit()
    assert (await world.why(task_id))["reason"] == "ready"
    await world.claim("torch")
    await world.beat()
    assert (await world.why(task_id))["details"]["nova"] == "torch"
    await world.finish("torch", Ending("retry", "", 5.0), "exit 7")
    backing_off = await world.why(task_id)
    assert backing_off["reason"] == "retry_backoff"
    assert "attempt 1 of 4 failed (exit 7)" in backing_off["sentence"]
    world.clock.advance(5000)
    await world.beat()
    assert (await world.why(task_id))["reason"] == "ready"
    assert await world.claim("torch") == task_id
    await world.finish("torch", Ending("completed", "succeeded"))
    done = await world.why(task_id)
    assert (done["reason"], done["details"]["nova"]) == ("completed", "torch")
    assert "in attempt 2" in done["sentence"]


async def test_a_chain_of_dependencies_is_followed_to_its_root(world: World) -> None:
    root = await world.submit(at=world.in_s(60))
    between = await world.submit(after=[root])
    last = await world.submit(after=[between])
    found = await world.why(last)
    assert found["details"]["chain"] == [between, root]
    assert found["details"]["root_reason"] == "earliest_start"


async def test_of_several_dependencies_the_one_that_needs_a_person_is_told(world: World) -> None:
    plain = await world.submit()
    waits = await world.submit(approval=True)
    found = await world.why(await world.submit(after=[plain, waits]))
    assert (found["details"]["root"], found["released_by"]) == (waits, f"`novawf approve {waits}`")


async def test_what_was_blocked_with_another_names_the_root_and_its_error(world: World) -> None:
    root = await world.submit(retries=0)
    between = await world.submit(after=[root])
    last = await world.submit(after=[between])
    await world.claim("torch")
    await world.finish("torch", Ending("blocked", "failed"), "exit 1")
    await world.queue.sweep_cascade()
    found = await world.why(last)
    assert (found["reason"], found["details"]["root"]) == ("dependency", root)
    assert "attempt 1 of 1: exit 1" in found["sentence"]


async def test_every_ending_without_success_is_told(world: World) -> None:
    for outcome in ("failed", "not_accepted", "no_executor"):
        task_id = await world.submit()
        await world.claim("torch")
        await world.finish("torch", Ending("blocked", outcome), "because")
        assert (await world.why(task_id))["reason"] == outcome
    cancelled = await world.submit()
    await world.queue.cancel(cancelled)
    assert (await world.why(cancelled))["reason"] == "cancelled"
    late = await world.submit(deadline=world.in_s(1))
    world.clock.advance(1000)
    assert (await world.why(late))["reason"] == "deadline"
    await world.queue.sweep_deadlines()
    assert (await world.why(late))["details"]["outcome"] == "deadline"


async def test_a_retry_that_would_be_refused_is_not_advised(world: World) -> None:
    """Too late, or cancelled before anybody approved it: only a new task helps."""
    never = await world.submit(approval=True)
    await world.queue.cancel(never)
    late = await world.submit(deadline=world.in_s(1), retries=0)
    await world.claim("torch")
    await world.finish("torch", Ending("blocked", "failed"), "exit 1")
    world.clock.advance(1000)
    for task_id in (never, late):
        assert (await world.why(task_id))["released_by"].startswith("submit it anew")
        with pytest.raises(Refused):
            await world.queue.retry(task_id)


async def test_an_approval_that_would_be_refused_comes_second(world: World) -> None:
    root = await world.submit(retries=0)
    task_id = await world.submit(after=[root], approval=True)
    await world.claim("torch")
    await world.finish("torch", Ending("blocked", "failed"), "exit 1")
    found = await world.why(task_id)
    assert (found["reason"], found["details"]["also"]) == ("awaiting_approval", "failed")
    with pytest.raises(Refused):
        await world.queue.approve(task_id)
    first, second = found["released_by"].split(", and then ")
    assert f"novawf retry {root}" in first
    await world.queue.retry(root)
    assert second == f"`novawf approve {task_id}`"
    await world.queue.approve(task_id)


async def test_a_lease_that_ran_out_is_told(world: World) -> None:
    task_id = await world.submit()
    await world.claim("torch")
    world.clock.advance(10_001)
    assert (await world.why(task_id))["reason"] == "lease_expired"


async def test_work_that_waits_for_a_permit_is_told_with_the_limit(world: World) -> None:
    now = world.clock.now_ms()
    grants = {f"p{n}": now - 1000 for n in range(30)}
    await world.redis.zadd(keys.LIMIT_GRANTS, grants)
    task_id = await world.submit()
    await world.claim("torch")
    await world.beat(permit_ms=now)
    for subject in (task_id, "torch"):
        found = await world.why(subject)
        assert (found["reason"], found["details"]["limit"]) == ("api_limit", "minute")
        assert found["until"] is not None


async def test_work_that_a_provider_sent_away_is_told_with_when_it_goes_on(world: World) -> None:
    task_id = await world.submit()
    await world.claim("torch")
    sent_away = Ending("requeue", "", 17.0)
    await world.finish("torch", sent_away, "RateLimited: slow down")
    found = await world.why(task_id)
    assert found["reason"] == "retry_backoff"
    assert "a provider sent it away (RateLimited: slow down)" in found["sentence"]
    assert found["until"] is not None


@pytest.mark.parametrize(
    ("kind", "key", "field", "said"),
    [
        ("breaker", keys.LIMIT_BREAKERS, "default", "open|5|{until}|1||0"),
        ("provider", keys.LIMIT_ADVICE, "", "{until}|0|0|0|0"),
        ("corrupt", keys.LIMIT_BREAKERS, "default", "nonsense"),
    ],
)
async def test_a_breaker_and_a_provider_are_told_as_what_keeps_a_permit(
    world: World, kind: str, key: str, field: str, said: str
) -> None:
    until_ms = world.clock.now_ms() + 20_000
    await world.redis.hset(key, field, said.format(until=until_ms))
    await world.submit()
    await world.claim("torch")
    await world.beat(permit_ms=world.clock.now_ms())
    found = await world.why("torch")
    assert (found["reason"], found["details"]["limit"]) == ("api_limit", kind)
    word = {"breaker": "breaker of default", "provider": "slow down", "corrupt": "--reset default"}
    assert word[kind] in found["sentence"]


async def test_an_objection_of_safety_is_told_in_its_own_words(world: World) -> None:
    task_id = await world.submit()
    world.clock.advance(1)
    verdict = unsafe("stream_monitor: no answer", world.clock.now_ms() + 60_000)
    await world.gate.refresh(verdict)
    found = await world.why(task_id)
    assert (found["reason"], found["details"]["why"]) == ("unsafe", "no answer")


async def test_a_supervisor_s_hold_on_the_store_tells_starting_from_gone(
    redis: Any, clock: ManualClock
) -> None:
    owner = Owner("run", 77, 1, "boot", "ada", "/home")
    ownership = Ownership(redis, clock, owner)
    await ownership.take(lambda _: False)
    await ownership.renew()  # the first lease is longer: a start takes its time
    world = World(redis, clock)
    task_id = await world.submit()
    assert (await world.why(task_id))["reason"] == "starting"
    clock.advance(10_001)
    assert "pid 77 on ada" in (await world.why(task_id))["sentence"]


# -- Novas, fleet, and what is none ---------------------------------------------------------------


async def test_a_new_supervisor_does_not_speak_for_the_run_that_was_killed(
    world: World, redis: Any
) -> None:
    said = {"state": "running", "run_id": "run-1"}
    await redis.hset(keys.FLEET, "document", json.dumps(said))
    task_id = await world.submit()
    await world.claim("torch")
    await world.beat()
    owner = Owner("run-2", 2, 3, "boot", "machine", "/srv/two")
    await Ownership(redis, world.clock, owner).take(lambda _: True)
    assert (await world.why("torch"))["reason"] == "starting"
    assert (await world.why(None))["reason"] == "starting"
    assert (await world.why(task_id))["reason"] == "owner_lost"


async def test_a_nova_and_its_task_tell_the_same(world: World) -> None:
    task_id = await world.submit()
    assert (await world.why("torch"))["reason"] == "idle"
    await world.claim("torch")
    found = await world.why("torch")
    assert (found["kind"], found["reason"], found["details"]["task"]) == (
        "nova", "working", task_id,
    )  # fmt: skip


async def test_the_fleet_counts_its_pending_tasks_by_reason(world: World) -> None:
    await world.submit(priority="critical")
    await world.claim("torch")
    first = await world.submit()
    for _ in range(3):
        await world.submit()
    await world.submit(nova="echo")
    await world.submit(at=world.in_s(30))
    await world.submit(after=[first])
    await world.submit(approval=True)
    found = await world.why()
    counts = {row["reason"]: row["count"] for row in found["details"]["reasons"]}
    assert counts == {"busy": 4, "nova_unknown": 1, "earliest_start": 1, "dependency": 1}
    assert (found["reason"], found["details"]["blocked"]) == ("busy", {"awaiting_approval": 1})
    assert found["subject"] == "fleet"


async def test_the_fleet_s_answer_is_bounded_and_says_so(world: World) -> None:
    specs = [{"at": world.in_s(60 + n)} for n in range(520)]
    for spec in specs:
        await world.submit(**spec)
    found = await world.why()
    assert found["details"]["cut"] is True
    assert found["details"]["examined"] <= 1000
    assert "the first 500 were examined" in found["sentence"]


async def test_a_name_that_is_none_is_answered_with_the_nearest(world: World) -> None:
    task_id = await world.submit()
    with pytest.raises(NotFound, match="did you mean torch"):
        await world.why("troch")
    with pytest.raises(NotFound, match=f"did you mean {task_id}"):
        await world.why(task_id.lower())
    with pytest.raises(NotFound, match="Novas: torch"):
        await world.why("what-is-this-9")


async def test_a_task_that_changes_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is claimed between the two reads: the answer is about the task as it is afterwards."""
    task_id = await world.submit()
    reader = Reader(world.redis, world.clock)
    fleet = await reader.fleet()
    reads = 0
    real = world.redis.pipeline

    def pipeline() -> Any:
        pipe = real()
        execute = pipe.execute

        async def claimed_before(*args: Any) -> Any:
            nonlocal reads
            reads += 1
            if reads == 2:
                await world.claim("torch")
            return await execute(*args)

        pipe.execute = claimed_before
        return pipe

    monkeypatch.setattr(world.redis, "pipeline", pipeline)
    found = await reader.task(task_id, fleet)
    assert found is not None
    assert (found.state.status, reads) == ("in_progress", 4)


async def test_a_torn_line_of_a_set_is_passed_over(world: World) -> None:
    await world.redis.zadd(keys.PINNED, {"torch|x": 0})
    task_id = await world.submit()
    assert (await world.why(task_id))["reason"] == "ready"


# -- the truth ------------------------------------------------------------------------------------

NOVA = st.sampled_from(NOVAS)
PICK = st.integers(0, 2**16)
STEPS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.fixed_dictionaries(
            {"priority": st.sampled_from(PRIORITIES)},
            optional={
                "nova": st.sampled_from([*NOVAS, "stranger"]),
                "at": st.sampled_from([0.5, 3.0, 40.0]),
                "deadline": st.sampled_from([1.0, 2.0, 90.0]),
                "after": PICK,
                "approval": st.just(True),
            },
        ),
    ),
    st.tuples(st.just("burst"), st.sampled_from([0.5, 1.0]), st.sampled_from([0, 15, 16, 17])),
    st.tuples(st.just("claim"), NOVA),
    st.tuples(st.just("finish"), NOVA, st.sampled_from(["completed", "retry", "blocked"])),
    st.tuples(st.just("advance"), st.sampled_from([1, 500, 1000, 2500, 60_000])),
    st.tuples(st.sampled_from(["cancel", "approve", "retry"]), PICK),
    st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from([*NOVAS, None])),
    st.tuples(st.sampled_from(["stop", "clear", "unsafe", "safe", "sweep"])),
)


SUBMIT = ("submit", {"priority": "low"})
"""A task that any Nova may take."""


async def step(world: World, name: str, *args: Any) -> None:
    """One thing that happens; what is refused changes nothing."""
    if name == "submit":
        fields = dict(args[0])
        for time in ("at", "deadline"):
            if time in fields:
                fields[time] = world.in_s(fields[time])
        if fields.get("deadline", "z") <= fields.get("at", ""):
            del fields["deadline"]
        if "after" in fields:
            pick = fields.pop("after")
            if world.tasks:
                fields["after"] = [world.tasks[pick % len(world.tasks)]]
        await world.submit(**fields)
    elif name == "burst":
        # More come due at once than one claim lets join; which of them is urgent decides.
        for n in range(18):
            priority = "critical" if n == args[1] else "low"
            await world.submit(at=world.in_s(args[0] + n / 1000), priority=priority)
    elif name == "claim" and args[0] not in world.held:
        await world.claim(args[0])
    elif name == "finish" and args[0] in world.held:
        outcome = {"completed": "succeeded", "retry": "", "blocked": "failed"}[args[1]]
        await world.finish(args[0], Ending(args[1], outcome, 2.0), "exit 1")
    elif name == "advance":
        world.clock.advance(args[0])
        for nova, claim in list(world.held.items()):  # who lives renews its lease
            await world.claimants[nova].beat("{}", "ACTIVE", claim, ("a", "b"))
    elif name in ("cancel", "approve", "retry") and world.tasks:
        change = getattr(world.queue, name)
        try:
            await change(world.tasks[args[0] % len(world.tasks)])
        except Exception as error:
            assert type(error).__name__ == "Refused"
    elif name in ("pause", "resume"):
        await getattr(world.gate, name)(args[0])
    elif name == "stop":
        await world.gate.stop("drill", "tester")
    elif name == "clear":
        await world.gate.clear_stop("tester")
    elif name in ("safe", "unsafe"):
        verdict = {"safe": safe, "unsafe": unsafe}[name]("drill", world.clock.now_ms() + 10**9)
        await world.gate.refresh(verdict)
    elif name == "sweep":
        await world.queue.sweep_deadlines()
        await world.queue.sweep_cascade()


async def ready_for(world: World, nova: str) -> list[str]:
    """The tasks of which it is said that a claim by this Nova takes them."""
    await world.beat()
    reader = Reader(world.redis, world.clock)
    fleet = await reader.fleet(permits=False)
    said = []
    for task_id in world.tasks:
        task = await reader.task(task_id, fleet)
        assert task is not None
        found = explain_task(task, fleet, reader.moment())
        if found.reason == "ready" and nova in found.details["novas"]:
            said.append(task_id)
    return said


async def check_claims(world: World) -> int:
    """Each free Nova claims; what it gets is what was said. Answers how many got something."""
    takers = 0
    for nova in NOVAS:
        if nova not in world.held:
            said = await ready_for(world, nova)
            taken = await world.claim(nova)
            assert said == ([taken] if taken else []), (nova, said, taken)
            takers += taken is not None
    return takers


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@example([("submit", {"priority": "low", "nova": "echo"}), SUBMIT])
@example([SUBMIT, ("submit", {"priority": "low", "nova": "echo"})])
@example([("submit", {"priority": "high", "deadline": 1.0}), SUBMIT, ("advance", 1000)])
@example([("submit", {"priority": "high", "nova": "torch", "at": 0.5}), SUBMIT, ("advance", 500)])
@example([("burst", 0.5, 15), ("advance", 1000)])
@example([("burst", 0.5, 16), ("advance", 1000)])
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_what_is_said_to_be_ready_is_what_a_claim_takes_and_nothing_else(
    valkey_server: StoreAddress, steps: list[tuple[Any, ...]]
) -> None:
    async def check() -> None:
        redis: Any = connect(valkey_server, single=True)
        try:
            await redis.flushall()
            world = await World(redis, ManualClock()).start(*NOVAS)
            for one in steps:
                await step(world, *one)
            await check_claims(world)
            for opening in (("clear",), ("safe",), ("resume", None), ("advance", 1500)):
                world.clock.advance(1)
                await step(world, *opening)
            for nova in list(world.held):
                await world.finish(nova, Ending("completed", "succeeded"))
            for _ in range(6):
                await check_claims(world)
                for nova in list(world.held):
                    await world.finish(nova, Ending("completed", "succeeded"))
        finally:
            await redis.aclose()

    asyncio.run(check())
