"""Series under faults: what is in hand while the store, an order or a long job comes between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import executor_jobs
import pytest
from losing_proxy import LosingProxy
from nova_world import DONE, DONE_STEADILY, Jobs, World
from process_world import keeper_server
from redis.exceptions import NoScriptError, RedisError
from waiting import until

from novawf.clock import ManualClock, monotonic_s
from novawf.errors import Refused
from novawf.executors.base import Outcome, Report, Work
from novawf.executors.config import ExecutorSettings, PythonSettings
from novawf.executors.registry import build_executors
from novawf.ids import request_id
from novawf.processes.keeper import KeeperClient
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.tasks import claims
from novawf.tasks.claims import Claim, Claimant, Ended, Halted, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.protocol import validate
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker
from novawf.workflow import series
from novawf.workflow.attempt import Attempt
from novawf.workflow.config import PhaseSettings
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.states import State

MANY = 40
ONE_EACH = Outcome(ok=True, duration_s=0.0015)
"""So long that every end is a call of its own, beside the next task."""


async def one_each(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
    return ONE_EACH


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    for script in (claims._CLAIM, claims._FINISH):
        await world.redis.script_load(script.source)
    yield world
    await world.close()


@pytest.fixture
async def proxy(world: World, tmp_path: Path) -> AsyncIterator[LosingProxy]:
    proxy = LosingProxy(world.store, tmp_path)
    await proxy.start()
    yield proxy
    await proxy.close()


async def history(world: World, task_id: str) -> list[str]:
    packed = await world.redis.hget(keys.TASK_STATE, task_id)
    return [line.split("|")[1] for line in packed.split("\n")[1:-1]]


async def counted(world: World, what: str) -> int:
    return int(await world.redis.hget(keys.TASK_COUNTS, what) or 0)


def held(nova: NovaRuntime) -> list[str]:
    return [claim.task_id for claim in nova.steps.in_hand.held]


def losing(world: World, proxy: LosingProxy, jobs: Jobs) -> None:
    """A job `lose`: the call that tells of its end brings tasks, and its answer is lost."""

    async def lose(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        nova = world.lost_by
        recording = nova.steps.series._recording
        if recording is not None:
            await asyncio.wait({recording})
        proxy.lose(claims._FINISH.sha1)
        return ONE_EACH

    jobs.jobs |= {"lose": lose, "one": one_each}


async def lost_before(world: World, proxy: LosingProxy, jobs: Jobs, last: str) -> list[str]:
    """A Nova at `last`, in a series, while the answer that brings more is lost; then 20 more."""
    losing(world, proxy, jobs)
    ids = [await world.submit("one") for _ in range(5)]
    ids += [await world.submit("lose"), await world.submit(last)]
    ids += [await world.submit("one") for _ in range(20)]
    world.lost_by = await world.nova(jobs=jobs, store=proxy.address)
    return ids


# -- a job that goes on ---------------------------------------------------------------------------


async def test_what_a_repeated_call_brings_beside_a_long_job_is_let_go_too(
    world: World, proxy: LosingProxy
) -> None:
    """Nobody renews its lease: it would cost an attempt, and the others their time."""
    jobs = Jobs()
    ids = await lost_before(world, proxy, jobs, "hold")
    nova = world.lost_by
    world.run(nova)

    async def let_go() -> bool:
        states = await world.redis.hmget(keys.TASK_STATE, ids[7:])
        done = [state.split("|")[0] for state in await world.redis.hmget(keys.TASK_STATE, ids[:6])]
        return done == ["completed"] * 6 and all(state.startswith("pending|") for state in states)

    async def holds() -> bool:
        return bool(jobs.ran) and jobs.ran[-1][0] == ids[6]

    await until(holds, what="the long job")
    await until(let_go, 2.0, what="the others to be free")
    assert proxy.lost.is_set()
    assert held(nova) == []
    jobs.go.set()
    for task_id in ids:
        assert (await world.ended(task_id))["status"] == "completed"
    assert len(jobs.ran) == len(ids)


async def test_whatever_takes_long_in_a_series_is_shown_and_its_lease_renewed(
    world: World,
) -> None:
    """Also when nothing waits behind it: the pause between heartbeats may be an idle Nova's."""
    jobs, commands, settled = Jobs(one=one_each), Jobs(), []
    commands.jobs[""] = commands.hold
    ids = [await world.submit("one") for _ in range(MANY)]
    ids.append(await world.submit(argv=["true"], callable=None))
    nova = await world.nova(jobs=jobs)
    nova.executors["command"] = commands
    tell = nova.steps.series.settled

    def settles() -> None:
        settled.append(len(commands.ran))
        tell()

    nova.steps.series.settled = settles
    world.run(nova)

    async def told() -> bool:
        return 1 in settled

    await until(told, 2.0, what="word of the long job")
    commands.go.set()
    assert (await world.ended(ids[-1]))["status"] == "completed"


async def test_a_nova_that_is_ended_beside_a_failed_call_ends(
    world: World, proxy: LosingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "SLOW_S", 60.0)
    jobs = Jobs()
    ids = await lost_before(world, proxy, jobs, "hold")
    nova = world.lost_by
    running = world.run(nova)

    async def failed() -> bool:
        recording = nova.steps.series._recording
        return jobs.ran[-1:] == [(ids[6], 1)] and recording is not None and recording.done()

    await until(failed, what="the failed call")
    running.cancel()
    await asyncio.wait({running}, timeout=2.0)
    assert running.cancelled()


async def test_tasks_that_have_become_longer_wait_for_few_of_them(world: World) -> None:
    """Sixteen of nineteen milliseconds would be kept from others for a third of a second."""
    behind: list[int] = []

    async def longer(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        behind.append(len(held(nova)))
        await asyncio.sleep(0.016)
        return Outcome(ok=True, duration_s=0.016)

    for _ in range(MANY):
        await world.submit()
    ids = [await world.submit("longer") for _ in range(12)]
    nova = await world.nova(jobs=Jobs(longer=longer))
    world.run(nova)
    for task_id in ids:
        await world.ended(task_id)
    assert behind[0] > 4
    assert not any(behind[2:])
    assert (await history(world, ids[-1])).count("claimed") <= 2


@pytest.mark.parametrize("short", [1, 4, 12])
async def test_a_mix_of_short_and_long_tasks_is_not_taken_and_given_back_again_and_again(
    world: World, short: int
) -> None:
    async def long(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        await asyncio.sleep(0.03)
        return Outcome(ok=True, duration_s=0.03)

    ids = []
    for _ in range(12):
        ids += [await world.submit() for _ in range(short)]
        ids.append(await world.submit("long"))
    nova = await world.nova(jobs=Jobs(long=long))
    world.run(nova)
    await world.ended(ids[-1])
    given_back = await counted(world, "ended:requeue")
    assert given_back <= 4 * series.MOST
    assert [(await history(world, task_id)).count("claimed") for task_id in ids] < [5] * len(ids)


async def test_what_is_given_back_keeps_to_the_protocol_and_says_why(world: World) -> None:
    jobs = Jobs()
    for _ in range(MANY):
        await world.submit()
    await world.submit("hold")
    behind = [await world.submit() for _ in range(MANY)]
    nova = await world.nova(jobs=jobs)
    world.run(nova)

    async def given_back() -> int:
        return await counted(world, "ended:requeue")

    await until(given_back, what="what is given back")
    records = [fields for _, fields in await world.redis.xrange(keys.progress("torch"))]
    for record in records:
        validate("progress", record, "torch")
    back = [record for record in records if record["status"] == "pending"]
    assert {record["task_id"] for record in back} <= set(behind)
    assert {record["update"] for record in back} == {"not begun"}
    jobs.go.set()


# -- calls and their numbers ----------------------------------------------------------------------


def over(nova: NovaRuntime, **outcome: Any) -> str:
    """The next task in hand is over."""
    attempt = nova.steps.in_hand.begin()
    assert attempt is not None
    attempt.begun = True
    attempt.outcome = Outcome(**{"ok": True, **outcome})
    nova.steps.in_hand.end(0.0)
    return attempt.claim.task_id


async def test_what_came_with_a_repeat_lets_nothing_unfit_come_behind_it(
    world: World, proxy: LosingProxy
) -> None:
    nova = await world.nova(store=proxy.address)
    hand = nova.steps.in_hand
    ids = [await world.submit() for _ in range(4)]
    unfit = await world.submit(retries=0)
    await hand.take()
    over(nova)
    await hand.record(2)
    over(nova)
    proxy.lose(claims._FINISH.sha1)
    with pytest.raises((RedisError, OSError)):
        await hand.record(1, behind=True)
    over(nova)
    await hand.record(1)
    assert held(nova) == [ids[3]]
    assert await world.status(unfit) == ("pending", None)


async def test_a_lost_claim_is_asked_for_before_its_number_is_gone(
    world: World, proxy: LosingProxy
) -> None:
    """Nothing that it told of is in hand any more, so its repeat does not bring what it took."""
    world.settings = world.settings.model_copy(update={"backoff_base_s": 0.0})
    nova = await world.nova(store=proxy.address)
    hand = nova.steps.in_hand
    ids = [await world.submit() for _ in range(3)]
    await hand.take()
    over(nova)
    await hand.record(2)
    over(nova, ok=False, cause="failed", error="exit 1")
    proxy.lose(claims._FINISH.sha1)
    with pytest.raises((RedisError, OSError)):
        await hand.record(1, behind=True)  # the same task, for its second attempt
    over(nova)
    await world.submit()
    await hand.record(1)
    assert held(nova)[0] == ids[1]
    assert await world.status(ids[2]) == ("completed", "succeeded")


async def test_a_refusal_of_a_repeat_passes_the_word_on(world: World, proxy: LosingProxy) -> None:
    """What the lost call had taken is back in the queue: an idle Nova must hear of it."""
    nova = await world.nova(store=proxy.address)
    hand = nova.steps.in_hand
    await world.submit()
    second = await world.submit()
    await hand.take()
    over(nova)
    proxy.lose(claims._FINISH.sha1)
    with pytest.raises((RedisError, OSError)):
        await hand.record(1)
    await world.gate.pause("torch")
    await world.redis.delete(keys.WAKE_ANY)
    await hand.record(1)
    assert await world.status(second) == ("pending", None)
    assert hand.woken


async def test_a_fault_of_who_is_told_of_completions_loses_no_task(world: World) -> None:
    nova = await world.nova()
    hand = nova.steps.in_hand
    ids = [await world.submit() for _ in range(3)]
    await hand.take()
    over(nova)

    def fails(attempt: Any) -> None:
        raise RuntimeError("drill")

    hand.completed = fails
    with pytest.raises(RuntimeError):
        await hand.record(2)
    assert held(nova) == ids[1:]


class Caller:
    """A Nova's calls alone, under a clock that the test moves."""

    def __init__(self, redis: Any, clock: ManualClock, epoch: int) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = TaskSettings()
        self.queue = TaskQueue(redis, clock, self.settings)
        self.nova = Claimant(redis, clock, self.settings, "torch", epoch)

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "t", "callable": "m:f", **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def take(self, **how: Any) -> list[Claim]:
        taken = await self.nova.take(**how)
        assert isinstance(taken, tuple)
        return list(taken)

    async def record(self, claim: Claim, want: int, **how: Any) -> list[Claim]:
        """It is completed; what comes next."""
        recording = await self.nova.record(
            [Ended(claim, Ending("completed", "succeeded"))], want=want, **how
        )
        following = recording.following
        return list(following) if isinstance(following, tuple) else []


@pytest.fixture
async def caller(redis: Any, clock: ManualClock) -> Caller:
    await Gate(redis, clock).refresh(safe("drill", clock.now_ms() + 10**6))
    return Caller(redis, clock, await take_identity(redis, "torch"))


async def test_a_repeat_does_not_make_a_claim_younger(caller: Caller) -> None:
    """Its lease counts from the first call: what is near its end must not be begun."""
    await caller.submit()
    began_ms = caller.clock.now_ms()
    await caller.take()
    caller.clock.advance(9000)
    (claim,) = await caller.take(again=True)
    assert claim.taken_ms == began_ms


async def test_neither_does_an_answer_that_is_read_late(caller: Caller) -> None:
    """Who waited for work may have been stopped since the store gave it."""
    await caller.submit()
    sha1, claim_keys, arguments = caller.nova.ask()
    with contextlib.suppress(NoScriptError):
        await caller.nova.redis.script_load(claims._CLAIM.source)
    began_ms = caller.clock.now_ms()
    reply = await caller.redis.evalsha(sha1, len(claim_keys), *claim_keys, *arguments)
    caller.clock.advance(9000)
    taken = caller.nova.answered(reply)
    assert isinstance(taken, tuple)
    assert began_ms <= taken[0].taken_ms < began_ms + 5000


async def test_what_waits_is_not_what_is_shown_as_in_hand(caller: Caller) -> None:
    for _ in range(3):
        await caller.submit()
    (first,) = await caller.take()
    following = await caller.record(first, 1, state=("task_in_hand", ""))
    await caller.record(following[0], 1, behind=True, state=("task_in_hand", "another"))
    kept = await caller.redis.hget(keys.workflow_state("torch"), "task_in_hand")
    assert kept == "another"


async def test_a_spec_that_cannot_be_read_ends_a_group_before_it(caller: Caller) -> None:
    """The tasks before it are taken once, and no record of one is without its claim."""
    ids = [await caller.submit() for _ in range(4)]
    await caller.redis.hset(keys.TASK_SPEC, ids[2], "{")
    (first,) = await caller.take()
    (second,) = await caller.record(first, 8)
    assert second.task_id == ids[1]
    assert await caller.redis.xlen(keys.progress("torch")) == 2
    recording = await caller.nova.record([Ended(second, Ending("completed", "succeeded"))], want=8)
    assert isinstance(recording.following, Halted)
    assert ids[2] in recording.following.reason


async def test_a_pinned_entry_that_names_no_task_is_dropped(caller: Caller) -> None:
    await caller.redis.zadd(keys.PINNED, {"torch|what": 0})
    task_id = await caller.submit(nova="torch")
    assert [claim.task_id for claim in await caller.take()] == [task_id]


async def test_a_task_given_back_over_and_over_keeps_a_bounded_history(caller: Caller) -> None:
    """And all of its attempts, and the pause before a second try that it would have had."""
    task_id = await caller.submit()
    for _ in range(150):
        (claim,) = await caller.take()
        await caller.nova.record([Ended(claim, Ending("requeue", ""), "", "not begun")], want=0)
    (claim,) = await caller.take()
    packed = await caller.redis.hget(keys.TASK_STATE, task_id)
    assert len(packed) < 9000
    assert claim.limit - claim.attempt == caller.settings.retries
    attempt = Attempt(claim, outcome=Outcome(ok=False, cause="failed", error="exit 1"))
    ending = attempt.ending(caller.settings, 1.0)
    assert (ending.verdict, ending.delay_s) == ("retry", caller.settings.backoff_base_s)
    counts = await TaskTracker(caller.redis, caller.clock).counts()
    assert (counts["in_progress"], counts["pending"]) == (1, 0)


# -- orders and phases ----------------------------------------------------------------------------


async def test_a_task_cancelled_while_its_nova_tells_of_another_ends_at_once(
    world: World,
) -> None:
    """Nothing else is in hand afterwards that would take its end along."""
    last = ""

    async def cancels(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        assert held(nova) == [last]
        assert await world.queue.cancel(last) == "cancelling"
        epoch = (await world.redis.hget(keys.TASK_STATE, last)).split("|")[4]
        ordered.append(asyncio.ensure_future(order(epoch)))
        return DONE_STEADILY

    async def order(epoch: str) -> None:
        while nova.data.current_state is not State.PROGRESS_UPDATE or hand._call is None:
            await asyncio.sleep(0)
        obey({"op": "cancel", "task": last, "epoch": epoch})

    ordered: list[asyncio.Future[None]] = []
    jobs = Jobs(cancel=cancels)
    for _ in range(MANY):
        await world.submit()
    await world.submit("cancel")
    last = await world.submit()
    nova = await world.nova(jobs=jobs)
    hand = nova.steps.in_hand
    obey, nova._obey = nova._obey, lambda order: None  # the order arrives when the test says
    world.run(nova)
    ended = await world.ended(last, 2.0)
    assert (ended["status"], ended["outcome"]) == ("blocked", "cancelled")


async def test_work_that_waits_ends_a_personal_phase_at_once(world: World) -> None:
    """Also when no token tells of it."""
    ids = [await world.submit() for _ in range(MANY)]
    await world.redis.delete(keys.WAKE_ANY)
    nova = await world.nova(
        phases=PhaseSettings(tasks_per_phase=10, personal_every=1, personal_s=60.0), pace=1.0
    )
    began_s = monotonic_s()
    world.run(nova)
    for task_id in ids:
        await world.ended(task_id)
    assert monotonic_s() - began_s < 3


# -- everything at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_comes_together_each_task_ends_once(
    world: World, proxy: LosingProxy, seed: int
) -> None:
    """Two Novas, tasks of all kinds, answers and requests lost, cancellations, pauses."""
    rng = random.Random(seed)
    world.settings = world.settings.model_copy(
        update={"backoff_base_s": 0.0, "lease_s": 1.0, "idle_wait_s": 0.2}
    )
    world.queue.settings = world.settings

    async def nap(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        nap_s = rng.choice([0.0, 0.001, 0.005, 0.019, 0.03])
        await asyncio.sleep(nap_s)
        return Outcome(ok=True, duration_s=nap_s, results="x" * rng.choice([0, 0, 1000, 100_000]))

    async def fails(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return DONE if work.attempt > 1 else Outcome(ok=False, cause="failed", error="exit 1")

    async def raises(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        if work.attempt > 1:
            return DONE
        raise RuntimeError("drill")

    async def tells(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        report.progress(50, "half")
        return DONE

    kinds = {"nap": nap, "fail": fails, "raise": raises, "tell": tells}
    novas, every = [], {}
    for name in ("torch", "echo"):
        every[name] = Jobs(**kinds)
        novas.append(await world.nova(name, every[name], store=proxy.address))
    for nova in novas:
        world.run(nova)
    ids: list[str] = []
    for _ in range(12):
        for _ in range(rng.randrange(40)):
            job = rng.choice(["quick"] * 12 + list(kinds))
            more: dict[str, Any] = rng.choice([{}] * 8 + [{"nova": "torch"}, {"retries": 9}])
            ids.append(await world.submit(job, **more))
        what = rng.choice(["reply", "request", "reply", "pause", "cancel", "cancel", "none"])
        if what in ("reply", "request"):
            proxy.lose(rng.choice([claims._FINISH, claims._CLAIM]).sha1, what)
        elif what == "pause":
            await world.gate.pause("torch")
            await asyncio.sleep(0.02)
            await world.gate.resume("torch")
        elif what == "cancel" and ids:
            with contextlib.suppress(Refused):  # it has ended
                await world.queue.cancel(rng.choice(ids))
        await asyncio.sleep(rng.random() * 0.05)
        await world.queue.release_expired()
    for task_id in ids:
        await world.ended(task_id, 10.0)
    counts = await world.tracker.counts()
    assert (counts["in_progress"], counts["pending"]) == (0, 0)
    assert counts["completed"] + counts["blocked"] == len(ids)
    ends: list[str] = []
    for stream, kind in ((keys.progress, "progress"), (keys.completed, "completed")):
        for name in ("torch", "echo", "fleet"):
            for _, record in await world.redis.xrange(stream(name)):
                validate(kind, record)
                if kind == "completed":
                    ends.append(record["task_id"])
    assert sorted(ends) == sorted(ids)
    assert await world.redis.zcard(keys.LEASES) == 0
    ran = [run for jobs in every.values() for run in jobs.ran]
    assert len(set(ran)) == len(ran)


async def test_a_real_worker_in_a_series_does_each_task_once(world: World, tmp_path: Path) -> None:
    """Results of a megabyte, exceptions, and a worker that dies in the middle."""
    with keeper_server(tmp_path / "run") as server:
        python = PythonSettings(path=(str(Path(executor_jobs.__file__).parent),))
        nova = await world.nova()
        nova.executors = build_executors(
            KeeperClient(Path(server.socket_path)),
            ExecutorSettings(python=python),
            dict(os.environ),
            {},
            60.0,
        )
        world.settings = world.settings.model_copy(update={"backoff_base_s": 0.0})
        ids, after = [], []
        for i in range(150):
            work = {40: ("huge", [1_000_000]), 41: ("huge", [1_000_000]), 80: ("fail", [])}
            name, args = work.get(i, ("noop", []))
            task = await world.submit(
                callable=f"executor_jobs:{name}", args=args, retries=0 if name == "fail" else 3
            )
            (after if name == "fail" else ids).append(task)
        died = await world.submit(callable="executor_jobs:die", args=[3], retries=0)
        ids += [await world.submit(callable="executor_jobs:noop") for _ in range(30)]
        world.run(nova)
        for task_id in ids:
            assert (await world.ended(task_id))["status"] == "completed"
            assert (await history(world, task_id))[-1] == "completed"
        for task_id in [*after, died]:
            assert (await world.ended(task_id))["outcome"] == "failed"
        for running in world.running:
            running.cancel()
        await asyncio.wait(world.running)
