"""The gate on a real store: what stops a claim, what survives what, and that repeats are harmless.

Claims are the queue's; the check here reads the same fields as `novawf/tasks/scripts/claiming.lua`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from novawf.clock import ManualClock
from novawf.errors import CorruptState, StoreUnreachable
from novawf.safety.gate import Gate, GateView
from novawf.safety.verdict import safe, unsafe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

VALID_MS = 6000


@pytest.fixture
async def gate(redis: Redis, clock: ManualClock) -> Gate:
    """A gate that holds a fresh safe verdict, before a fleet of torch and echo."""
    gate = Gate(redis, clock)
    await redis.hset(keys.NOVAS, mapping={"torch": "{}", "echo": "{}"})
    await gate.refresh(safe("all well", clock.now_ms() + VALID_MS))
    return gate


async def why_not(gate: Gate, clock: ManualClock, nova: str | None = "torch") -> str | None:
    return (await gate.read()).blocking_reason(nova, clock.now_ms())


async def test_an_untouched_gate_lets_nothing_start(redis: Redis, clock: ManualClock) -> None:
    assert await why_not(Gate(redis, clock), clock) == "No safety verdict has been given yet."


async def test_a_fresh_safe_verdict_lets_work_start(gate: Gate, clock: ManualClock) -> None:
    assert await why_not(gate, clock) is None


async def test_a_verdict_that_is_not_renewed_blocks_once_it_expired(
    gate: Gate, clock: ManualClock
) -> None:
    clock.advance(VALID_MS)
    assert await why_not(gate, clock) is None
    clock.advance(1)
    assert "expired" in (await why_not(gate, clock) or "")


async def test_an_unsafe_verdict_blocks_with_its_reason(gate: Gate, clock: ManualClock) -> None:
    await gate.refresh(unsafe("store: slow", clock.now_ms() + VALID_MS))
    assert await why_not(gate, clock) == "The fleet is held for safety: store: slow."


async def test_a_verdict_that_was_overtaken_changes_nothing(gate: Gate, clock: ManualClock) -> None:
    evaluated_ms = clock.now_ms()
    clock.advance(100)
    assert await gate.refresh(unsafe("store: gone", clock.now_ms() + VALID_MS))
    late = safe("all well", evaluated_ms + VALID_MS)
    assert not await gate.refresh(late, evaluated_ms)
    assert "store: gone" in (await why_not(gate, clock) or "")


async def test_after_the_clock_was_set_back_verdicts_are_taken_again(
    gate: Gate, clock: ManualClock
) -> None:
    clock.advance(-3_600_000)
    assert await gate.refresh(unsafe("store: slow", clock.now_ms() + VALID_MS))
    assert "store: slow" in (await why_not(gate, clock) or "")


async def test_a_stop_holds_every_nova_and_says_who_and_why(gate: Gate, clock: ManualClock) -> None:
    acknowledged_s = await gate.stop("runaway spend", "ada")
    assert acknowledged_s == clock.wall_s()
    view = await gate.read()
    assert view.stopped
    assert view.stop_at_ms == clock.now_ms()
    for nova in ("torch", "echo", None):
        reason = view.blocking_reason(nova, clock.now_ms())
        assert (
            reason == "The fleet is stopped since 2023-11-14T22:13:20.000Z by ada: runaway spend."
        )


async def test_a_stop_survives_a_renewed_safe_verdict(gate: Gate, clock: ManualClock) -> None:
    await gate.stop("runaway spend", "ada")
    clock.advance(1000)
    await gate.refresh(safe("all well", clock.now_ms() + VALID_MS))
    assert "stopped" in (await why_not(gate, clock) or "")


async def test_a_pause_survives_a_renewed_safe_verdict(gate: Gate, clock: ManualClock) -> None:
    await gate.pause("torch")
    clock.advance(1000)
    await gate.refresh(safe("all well", clock.now_ms() + VALID_MS))
    assert "paused" in (await why_not(gate, clock) or "")


async def test_a_repeated_stop_keeps_the_first_ones_data(gate: Gate, clock: ManualClock) -> None:
    await gate.stop("first", "ada")
    before = await gate.read()
    clock.advance(1000)
    await gate.stop("second", "bob")
    assert await gate.read() == before


async def test_a_stop_tells_every_nova_in_its_inbox(gate: Gate, redis: Redis) -> None:
    await gate.stop("runaway spend", "ada")
    for nova in ("torch", "echo"):
        orders = await redis.lrange(keys.inbox(nova), 0, -1)
        assert orders == ['{"op":"stop","n":1,"drains":false}']


async def test_a_stop_may_let_running_work_finish_and_a_plain_one_ends_that(gate: Gate) -> None:
    first = await gate.shut("maintenance", "ada", drains=True)
    assert (first.drains, first.changed) == (True, True)
    assert (await gate.read()).stop_drains
    second = await gate.shut("fire", "bob")
    assert (second.drains, second.changed) == (False, True)
    view = await gate.read()
    assert (view.stop_drains, view.stop_reason, view.stop_by) == (False, "maintenance", "ada")
    third = await gate.shut("maintenance", "ada", drains=True)
    assert third == (second.number, False, False, third.after)
    await gate.clear_stop("ada")
    assert not (await gate.read()).stop_drains


async def test_an_inbox_nobody_reads_stays_bounded(gate: Gate, redis: Redis) -> None:
    for _ in range(300):
        await gate.stop("runaway spend", "ada")
    assert await redis.llen(keys.inbox("torch")) == 256


async def test_clearing_lets_work_start_and_wakes_everybody(
    gate: Gate, clock: ManualClock, redis: Redis
) -> None:
    await gate.stop("runaway spend", "ada")
    assert await gate.clear_stop("bob")
    assert await why_not(gate, clock) is None
    assert (await gate.read()).stop_reason == ""
    for key in (keys.WAKE_ANY, keys.wake("torch"), keys.wake("echo")):
        assert await redis.llen(key) == 1


async def test_clearing_twice_changes_nothing_the_second_time(gate: Gate) -> None:
    await gate.stop("runaway spend", "ada")
    await gate.clear_stop("bob")
    before = await gate.read()
    assert not await gate.clear_stop("bob")
    assert await gate.read() == before


async def test_a_pause_of_one_nova_holds_that_one_alone(gate: Gate, clock: ManualClock) -> None:
    assert await gate.pause("torch")
    assert await why_not(gate, clock, "torch") == (
        "torch is paused; `novawf resume torch` lets it go on."
    )
    assert await why_not(gate, clock, "echo") is None


async def test_a_pause_of_the_fleet_holds_everybody(gate: Gate, clock: ManualClock) -> None:
    assert await gate.pause()
    assert "fleet is paused" in (await why_not(gate, clock, "echo") or "")


async def test_resuming_the_fleet_leaves_a_nova_that_was_paused_by_name(
    gate: Gate, clock: ManualClock
) -> None:
    await gate.pause()
    await gate.pause("torch")
    assert await gate.resume()
    assert await why_not(gate, clock, "echo") is None
    assert "torch is paused" in (await why_not(gate, clock, "torch") or "")


async def test_resuming_a_nova_wakes_it_alone(gate: Gate, redis: Redis, clock: ManualClock) -> None:
    await gate.pause("torch")
    assert await gate.resume("torch")
    assert await why_not(gate, clock, "torch") is None
    assert await redis.llen(keys.wake("torch")) == 1
    assert await redis.llen(keys.wake("echo")) == 0
    assert await redis.llen(keys.WAKE_ANY) == 0


async def test_resuming_the_fleet_wakes_everybody(gate: Gate, redis: Redis) -> None:
    await gate.pause()
    await gate.resume()
    for key in (keys.WAKE_ANY, keys.wake("torch"), keys.wake("echo")):
        assert await redis.llen(key) == 1


async def test_wake_lists_nobody_reads_stay_bounded(gate: Gate, redis: Redis) -> None:
    for _ in range(70):
        await gate.resume()
    for key in (keys.WAKE_ANY, keys.wake("torch")):
        assert await redis.llen(key) == 64


@pytest.mark.parametrize("nova", [None, "torch"])
async def test_repeated_pauses_and_resumes_change_nothing(gate: Gate, nova: str | None) -> None:
    await gate.pause(nova)
    paused = await gate.read()
    assert not await gate.pause(nova)
    assert await gate.read() == paused
    await gate.resume(nova)
    resumed = await gate.read()
    assert not await gate.resume(nova)
    assert await gate.read() == resumed


async def test_the_epoch_counts_changes_of_stop_and_pause_and_nothing_else(
    gate: Gate, clock: ManualClock
) -> None:
    await gate.stop("r", "ada")
    await gate.stop("r", "ada")
    await gate.pause("torch")
    await gate.refresh(safe("all well", clock.now_ms() + VALID_MS))
    await gate.resume("torch")
    await gate.clear_stop("ada")
    assert (await gate.read()).epoch == 4


async def test_a_gate_with_a_foreign_value_is_reported_not_guessed(
    gate: Gate, redis: Redis
) -> None:
    await redis.hset(keys.GATE, "valid_until", "tomorrow")
    with pytest.raises(CorruptState, match="tomorrow"):
        await gate.read()


async def test_a_store_that_is_gone_is_our_error(tmp_path: object, clock: ManualClock) -> None:
    address = StoreAddress.unix(f"{tmp_path}/gone.sock")
    client = connect(address)
    try:
        with pytest.raises(StoreUnreachable, match=r"gone\.sock"):
            await Gate(client, clock, address).stop("r", "ada")
    finally:
        await client.aclose()


NOW_MS = 1_000_000
SAFE = {"is_safe": True, "valid_until_ms": NOW_MS + 1}
STOP = {"stopped": True, "stop_by": "ada", "stop_reason": "fire"}


@pytest.mark.parametrize(
    ("fields", "nova", "reason"),
    [
        (SAFE, "torch", None),
        (SAFE, None, None),
        (SAFE | {"valid_until_ms": NOW_MS}, "torch", None),
        ({}, "torch", "No safety verdict has been given yet."),
        (
            SAFE | {"valid_until_ms": NOW_MS - 1500},
            "torch",
            "The safety verdict expired 1.5 s ago; the orchestrator must renew it.",
        ),
        (
            SAFE | {"is_safe": False, "reason": "store: slow"},
            "torch",
            "The fleet is held for safety: store: slow.",
        ),
        (
            SAFE | {"fleet_paused": True},
            None,
            "The fleet is paused; `novawf resume` lets it go on.",
        ),
        (
            SAFE | {"paused_novas": frozenset({"torch"})},
            "torch",
            "torch is paused; `novawf resume torch` lets it go on.",
        ),
        (SAFE | {"paused_novas": frozenset({"torch"})}, "echo", None),
        (SAFE | {"paused_novas": frozenset({"torch"})}, None, None),
        (
            SAFE | STOP | {"fleet_paused": True},
            "torch",
            "The fleet is stopped since 1970-01-01T00:00:00.000Z by ada: fire.",
        ),
    ],
)
def test_the_reason_that_blocks_in_one_sentence(
    fields: dict[str, object], nova: str | None, reason: str | None
) -> None:
    assert GateView(**fields).blocking_reason(nova, NOW_MS) == reason  # type: ignore[arg-type]
