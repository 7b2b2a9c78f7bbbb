"""What the gate holds, in the claim script itself: the fleet, one Nova, and what goes on all the
same in a cooldown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from novawf.clock import ManualClock
from novawf.ids import request_id
from novawf.safety.gate import Gate, Hold
from novawf.safety.verdict import Action, Verdict, safe, unsafe
from novawf.store import keys
from novawf.tasks.claims import Claim, Claimant, Halted, Nothing, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Bench:
    def __init__(self, redis: Redis, clock: ManualClock) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.gate = Gate(redis, clock)
        self.queue = TaskQueue(redis, clock, TaskSettings())

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "t", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def nova(self, name: str = "torch") -> Claimant:
        epoch = await take_identity(self.redis, name)
        return Claimant(self.redis, self.clock, TaskSettings(), name, epoch)

    async def verdict(self, action: Action, reason: str = "frosty: cools down") -> Verdict:
        until_ms = self.clock.now_ms() + 60_000
        allow = action is Action.ALLOW
        verdict = safe("fine", until_ms) if allow else unsafe(reason, until_ms, action)
        await self.gate.refresh(verdict)
        return verdict

    async def hold(self, nova: str, action: Action) -> None:
        text = Hold(action.word, 0, "hook_health: its hook is off").text()
        await self.redis.hset(keys.GATE, f"hold:{nova}", text)


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    return Bench(redis, clock)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("priority", ["critical", "medium"])
@pytest.mark.parametrize("pinned", [True, False])
async def test_each_action_lets_through_what_it_should(
    bench: Bench, action: Action, priority: str, pinned: bool
) -> None:
    """Critical work bypasses every cooldown (spec §3), and nothing else."""
    await bench.verdict(action)
    target = {"nova": "torch"} if pinned else {}
    task_id = await bench.submit(priority=priority, **target)
    reply = await (await bench.nova()).claim()
    allowed = action is Action.ALLOW or (action is Action.DELAY and priority == "critical")
    if allowed:
        assert isinstance(reply, Claim)
        assert reply.task_id == task_id
    else:
        assert reply == Halted("unsafe", "frosty: cools down")


@pytest.mark.parametrize("action", [Action.DELAY, Action.PAUSE, Action.HALT])
async def test_what_holds_one_nova_lets_another_take_the_task(bench: Bench, action: Action) -> None:
    await bench.verdict(Action.ALLOW)
    await bench.hold("torch", action)
    await bench.submit()
    assert await (await bench.nova("torch")).claim() == Halted(
        "unsafe", "hook_health: its hook is off"
    )
    assert isinstance(await (await bench.nova("echo")).claim(), Claim)


async def test_a_pause_of_its_own_is_stronger_than_the_fleet_s_cooldown(bench: Bench) -> None:
    await bench.verdict(Action.DELAY)
    await bench.hold("torch", Action.PAUSE)
    await bench.submit(priority="critical")
    assert isinstance(await (await bench.nova("torch")).claim(), Halted)


async def test_a_critical_task_is_found_behind_others_that_wait(bench: Bench) -> None:
    await bench.verdict(Action.DELAY)
    for _ in range(40):
        await bench.submit()
    bench.clock.advance(400_000)  # the medium ones are first in line by now
    await bench.verdict(Action.DELAY)
    task_id = await bench.submit(priority="critical")
    reply = await (await bench.nova()).claim()
    assert isinstance(reply, Claim)
    assert reply.task_id == task_id
    assert isinstance(await (await bench.nova()).claim(), Halted)


async def test_a_pause_by_hand_holds_critical_work_in_a_cooldown_too(bench: Bench) -> None:
    await bench.verdict(Action.DELAY)
    await bench.gate.pause("torch")
    await bench.submit(priority="critical")
    assert await (await bench.nova()).claim() == Halted("paused", "this Nova is paused")


async def test_an_emergency_stop_holds_critical_work(bench: Bench) -> None:
    await bench.verdict(Action.DELAY)
    await bench.gate.stop("drill", "me")
    await bench.submit(priority="critical")
    assert isinstance(await (await bench.nova()).claim(), Halted)


@pytest.mark.parametrize("quiet", [True, False], ids=["pulse", "beat"])
async def test_a_nova_hears_of_critical_work_in_a_cooldown(bench: Bench, quiet: bool) -> None:
    await bench.verdict(Action.DELAY)
    nova = await bench.nova()

    async def against() -> str | None:
        beat = await nova.beat('{"cycles":1,"seen_ms":1,"progress_ms":1}', "ACTIVE", None, ())
        if quiet:
            pulse = await nova.pulse(1, 1, "ACTIVE")
            assert pulse is not None
            beat = pulse
        return beat.against

    await bench.submit()
    assert await against() == "frosty: cools down"
    await bench.submit(priority="critical", nova="torch")
    assert await against() is None
    await bench.verdict(Action.PAUSE, "willy: meditates")
    assert await against() == "willy: meditates"


async def test_a_claim_that_is_asked_again_in_a_cooldown_keeps_only_critical_work(
    bench: Bench,
) -> None:
    await bench.verdict(Action.ALLOW)
    await bench.submit()
    nova = await bench.nova()
    assert isinstance(await nova.claim(), Claim)
    await bench.verdict(Action.DELAY)
    assert isinstance(await nova.claim(again=True), Halted), "its reply was lost: not begun"
    await bench.verdict(Action.ALLOW)
    assert isinstance(await nova.claim(), Claim)
    await bench.submit(priority="critical")
    other = await bench.nova("echo")
    taken = await other.claim()
    await bench.verdict(Action.DELAY)
    assert await other.claim(again=True) == taken


async def test_nothing_waits_in_a_cooldown_either(bench: Bench) -> None:
    await bench.verdict(Action.DELAY)
    assert not isinstance(await (await bench.nova()).claim(), Nothing | Claim)
