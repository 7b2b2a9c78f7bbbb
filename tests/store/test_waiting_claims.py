"""A claim that waits behind the blocking read: quick, and no way around safety."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

from novawf.clock import ManualClock
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.claims import Claim, Claimant, Halted, Nothing, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker
from novawf.workflow.waking import ASK_ANEW, WorkWaiter

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Bench:
    def __init__(self, redis: Redis, clock: ManualClock, store: StoreAddress) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.store = store
        self.queue = TaskQueue(redis, clock, TaskSettings())
        self.tracker = TaskTracker(redis, clock)

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "t", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def nova(self) -> Claimant:
        epoch = await take_identity(self.redis, "torch")
        claimant = Claimant(self.redis, self.clock, TaskSettings(), "torch", epoch)
        await claimant.claim()  # the script is known to the store
        return claimant

    async def asked(self, asked: tuple[Any, Any, Any]) -> list[Any]:
        """What the store answers to a waiting claim, now."""
        sha1, claim_keys, arguments = asked
        reply = await self.redis.evalsha(sha1, len(claim_keys), *claim_keys, *arguments)
        return list(reply)

    async def orchestrator_wrote(self, ago_s: float) -> None:
        """As if its last verdict were older by the store's clock."""
        at, iso, at_us = (await self.redis.hget(keys.GATE, "clock")).split("|")
        now_s, now_us = await self.redis.time()
        at_us = now_s * 1_000_000 + now_us - round(ago_s * 1_000_000)
        await self.redis.hset(keys.GATE, "clock", f"{at}|{iso}|{at_us}")

    async def status(self, task_id: str) -> str:
        return str((await self.tracker.task(task_id))["status"])

    async def waiting(self) -> None:
        """Until somebody waits by a blocking read."""

        async def blocked() -> bool:
            return any("b" in c["flags"] for c in await self.redis.client_list())

        await until(blocked, what="a blocking read")


@pytest.fixture
async def bench(redis: Any, clock: ManualClock, valkey_server: StoreAddress) -> Bench:
    await Gate(redis, clock).refresh(safe("drill", clock.now_ms() + 6000))
    return Bench(redis, clock, valkey_server)


async def test_token_and_task_come_with_one_answer(bench: Bench) -> None:
    nova = await bench.nova()
    waiter = WorkWaiter(connect(bench.store, block_s=60, name="waiting"), "torch", nova.ask)
    waits = asyncio.create_task(waiter.wait(5, asyncio.Event()))
    await bench.waiting()
    assert waiter.asked
    task_id = await bench.submit()
    assert await waits
    answer = waiter.take_answer()
    assert answer is not None
    taken = nova.answered(answer)
    assert isinstance(taken, tuple)
    assert [claim.task_id for claim in taken] == [task_id]
    assert waiter.take_answer() is None
    await waiter.redis.aclose()


async def test_a_waiting_claim_goes_by_the_time_at_its_end(bench: Bench) -> None:
    """The verdict was good when the claim was sent, and is not when the task comes."""
    nova = await bench.nova()
    asked = nova.ask()
    task_id = await bench.submit()
    await bench.orchestrator_wrote(ago_s=7)
    reply = nova.answered(await bench.asked(asked))
    assert reply == Halted("unsafe", "the safety verdict has expired")
    assert await bench.status(task_id) == "pending"


async def test_its_lease_counts_from_then(bench: Bench) -> None:
    nova = await bench.nova()
    asked = nova.ask()
    task_id = await bench.submit()
    await bench.orchestrator_wrote(ago_s=3)
    assert isinstance(nova.answered(await bench.asked(asked)), tuple)
    lease_ms = await bench.redis.zscore(keys.LEASES, task_id)
    late_ms = lease_ms - bench.clock.now_ms() - TaskSettings().lease_s * 1000
    assert 3000 <= late_ms < 3500


async def test_it_takes_nothing_when_it_cannot_know_the_time(bench: Bench) -> None:
    nova = await bench.nova()
    task_id = await bench.submit()
    for ago_s in (11, -1):  # the orchestrator is silent, or the store's clock was set back
        await bench.orchestrator_wrote(ago_s)
        assert await bench.asked(nova.ask()) == [ASK_ANEW]
    for wrong in ("", "nonsense"):
        await bench.redis.hset(keys.GATE, "clock", wrong)
        assert await bench.asked(nova.ask()) == [ASK_ANEW]
    assert await bench.status(task_id) == "pending"
    assert isinstance(await nova.claim(), Claim)


async def test_the_only_attempt_is_not_used_up_by_who_may_be_stopped(bench: Bench) -> None:
    nova = await bench.nova()
    task_id = await bench.submit(retries=0)
    assert await bench.asked(nova.ask()) == [ASK_ANEW]
    assert await bench.status(task_id) == "pending"
    assert isinstance(await nova.claim(), Claim)


@pytest.mark.parametrize("shut", [{"stop": "1"}, {"paused": "1"}, {"verdict": "unsafe"}])
async def test_it_is_refused_while_the_gate_is_shut(bench: Bench, shut: dict[str, str]) -> None:
    nova = await bench.nova()
    asked = nova.ask()
    await bench.redis.hset(keys.GATE, mapping=shut)
    task_id = await bench.submit()
    assert isinstance(nova.answered(await bench.asked(asked)), Halted)
    assert await bench.status(task_id) == "pending"


async def test_one_that_nobody_listens_to_any_more_takes_nothing(bench: Bench) -> None:
    """Its connection was given up, and the store has not noticed yet."""
    nova = await bench.nova()
    asked = nova.ask()
    assert isinstance(await nova.claim(again=True), Nothing)  # what became of it: nothing
    task_id = await bench.submit()
    assert (await bench.asked(asked))[0] == 0
    claim = await nova.claim()
    assert isinstance(claim, Claim)
    assert claim.task_id == task_id
    await bench.submit()
    assert (await bench.asked(asked))[0] == 0  # and not while a later one has its task either


async def test_who_gave_up_its_connection_hears_of_the_task_by_asking_again(bench: Bench) -> None:
    nova = await bench.nova()
    asked = nova.ask()
    task_id = await bench.submit()
    await bench.asked(asked)  # carried out, its answer lost
    claim = await nova.claim(again=True)
    assert isinstance(claim, Claim)
    assert (claim.task_id, claim.attempt) == (task_id, 1)


async def test_a_waiting_claim_of_an_old_life_is_fenced(bench: Bench) -> None:
    nova = await bench.nova()
    asked = nova.ask()
    await take_identity(bench.redis, "torch")
    task_id = await bench.submit()
    assert (await bench.asked(asked))[0] == -5
    assert await bench.status(task_id) == "pending"


async def test_a_store_that_forgot_the_script_costs_a_second_question(bench: Bench) -> None:
    nova = await bench.nova()
    await bench.redis.script_flush()
    waiter = WorkWaiter(connect(bench.store, block_s=60, name="waiting"), "torch", nova.ask)
    waits = asyncio.create_task(waiter.wait(5, asyncio.Event()))
    await bench.waiting()
    await bench.submit()
    assert await waits
    answer = waiter.take_answer()
    assert answer is not None
    assert nova.answered(answer) is None
    assert isinstance(await nova.claim(), Claim)
    await waiter.redis.aclose()
