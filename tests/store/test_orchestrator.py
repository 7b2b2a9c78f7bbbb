"""The safety orchestrator on a real store: it fails closed, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from waiting import until

from novawf.clock import ManualClock
from novawf.safety.config import SafetySettings
from novawf.safety.gate import Gate
from novawf.safety.orchestrator import Mechanism, RenewalState, SafetyOrchestrator
from novawf.safety.store_monitor import StoreObservation, StoreReachable
from novawf.safety.verdict import Verdict, safe
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

SETTINGS = SafetySettings()
QUICK = SafetySettings(refresh_s=0.05, valid_s=0.2)


@dataclass
class Scripted:
    """A mechanism that does what the test says; the interface is public, so this is no mock."""

    look: Callable[[], Awaitable[StoreObservation]]
    judge: Callable[[int], Verdict] = field(default=lambda now_ms: safe("fine", now_ms + 6000))
    name: str = "scripted"
    deadline_s: float = 0.02

    async def observe(self) -> StoreObservation:
        return await self.look()

    def evaluate(self, observation: StoreObservation, state: RenewalState, now_ms: int) -> Verdict:
        return self.judge(now_ms)


def store_reachable(redis: Redis, clock: ManualClock) -> Mechanism[StoreObservation]:
    return StoreReachable(redis, clock, SETTINGS)


async def test_a_round_opens_the_gate_for_as_long_as_a_verdict_holds(
    redis: Redis, clock: ManualClock
) -> None:
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [store_reachable(redis, clock)])
    status = await orchestrator.round()
    assert status.verdict is not None
    assert status.verdict.is_safe
    view = await Gate(redis, clock).read()
    assert view.blocking_reason("torch", clock.now_ms()) is None
    assert view.valid_until_ms == clock.now_ms() + 6000


async def test_without_mechanisms_nothing_starts(redis: Redis, clock: ManualClock) -> None:
    await SafetyOrchestrator(redis, clock, SETTINGS, []).round()
    view = await Gate(redis, clock).read()
    assert "no safety mechanism" in (view.blocking_reason("torch", clock.now_ms()) or "")


async def raises() -> StoreObservation:
    raise ZeroDivisionError("broken check")


async def hangs() -> StoreObservation:
    await asyncio.Event().wait()
    raise AssertionError


def raises_too(now_ms: int) -> Verdict:
    raise ZeroDivisionError("broken judgement")


@pytest.mark.parametrize("fault", ["observe raises", "evaluate raises", "hangs", "stale", "future"])
async def test_a_mechanism_that_fails_counts_as_unsafe_though_the_others_agree(
    redis: Redis, clock: ManualClock, fault: str
) -> None:
    async def looked(ago_ms: int) -> StoreObservation:
        return StoreObservation(clock.now_ms() - ago_ms)

    mechanism, words = {
        "observe raises": (Scripted(raises), "broken check"),
        "evaluate raises": (Scripted(lambda: looked(0), raises_too), "broken judgement"),
        "hangs": (Scripted(hangs), "no answer within 0.02 s"),
        "stale": (Scripted(lambda: looked(6001)), "stale"),
        "future": (Scripted(lambda: looked(-1)), "stale"),
    }[fault]
    orchestrator = SafetyOrchestrator(
        redis, clock, SETTINGS, [store_reachable(redis, clock), mechanism]
    )
    status = await orchestrator.round()
    assert status.mechanisms["store_reachable"].is_safe
    reason = (await Gate(redis, clock).read()).blocking_reason("torch", clock.now_ms()) or ""
    assert "held for safety: scripted:" in reason
    assert words in reason


async def test_a_mechanism_that_hung_is_asked_again_once_it_let_go(
    redis: Redis, clock: ManualClock
) -> None:
    answers = [hangs]

    async def recovers() -> StoreObservation:
        if answers:
            return await answers.pop()()
        return StoreObservation(clock.now_ms())

    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [Scripted(recovers)])
    first, second = await orchestrator.round(), await orchestrator.round()
    assert first.verdict is not None
    assert second.verdict is not None
    assert (first.verdict.is_safe, second.verdict.is_safe) == (False, True)


async def test_a_store_that_takes_no_writes_leaves_the_gate_to_expire_and_then_recovers(
    redis: Redis, valkey_server: StoreAddress, clock: ManualClock
) -> None:
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [store_reachable(redis, clock)])
    await orchestrator.round()
    await redis.execute_command("CONFIG", "SET", "maxmemory", "1")
    try:
        clock.advance(2000)
        status = await orchestrator.round()
        assert "takes no writes" in (status.renewal.fault or "")
    finally:
        await redis.execute_command("CONFIG", "SET", "maxmemory", "0")
    clock.advance(4001)
    view = await Gate(redis, clock).read()
    assert "expired" in (view.blocking_reason("torch", clock.now_ms()) or "")
    held = await orchestrator.round()
    assert held.verdict is not None
    assert "the last renewal failed" in held.verdict.reason
    assert (await orchestrator.round()).verdict == safe(
        "store_reachable: safe", clock.now_ms() + 6000
    )


async def test_a_store_that_is_gone_is_unsafe_and_ends_no_round(
    tmp_path: object, clock: ManualClock
) -> None:
    address = StoreAddress.unix(f"{tmp_path}/gone.sock")
    client = connect(address)
    mechanism = StoreReachable(client, clock, SETTINGS, store=address)
    status = await SafetyOrchestrator(client, clock, SETTINGS, [mechanism], address).round()
    await client.aclose()
    assert status.verdict is not None
    assert not status.verdict.is_safe
    assert "does not answer" in status.verdict.reason
    assert "does not answer" in (status.renewal.fault or "")


async def test_it_renews_until_it_is_cancelled(redis: Redis, clock: ManualClock) -> None:
    orchestrator = SafetyOrchestrator(redis, clock, QUICK, [store_reachable(redis, clock)])
    running = asyncio.create_task(orchestrator.run())
    for _ in range(3):
        clock.advance(100)
        expected_ms = clock.now_ms()
        await until(
            lambda expected_ms=expected_ms: (
                orchestrator.status().renewal.renewed_at_ms == expected_ms
            )
        )
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
