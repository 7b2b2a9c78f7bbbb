"""The safety orchestrator on a real store: it fails closed, whatever fails, and forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

from novawf.clock import ManualClock
from novawf.errors import Fenced
from novawf.safety.assembly import mechanisms_of, orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.safety.gate import Gate
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.memory import Remembered, reset
from novawf.safety.orchestrator import SafetyOrchestrator
from novawf.safety.verdict import Action, Verdict, safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

SETTINGS = SafetySettings()
QUICK = SafetySettings(refresh_s=0.05, valid_s=0.2)
FIVE = ["frosty", "really_chill_willy", "hook_health", "api_guardian", "stream_monitor"]


async def sees() -> str:
    return "something"


@dataclass
class Scripted:
    """A mechanism that does what the test says; the interface is public, so this is no mock."""

    look: Callable[[], Awaitable[str]] = sees
    judge: Callable[[int], Verdict] = field(default=lambda now_ms: safe("fine", now_ms + 6000))
    name: str = "scripted"
    deadline_s: float = 0.02
    heard: list[str] = field(default_factory=list)
    holds: dict[str, Verdict] = field(default_factory=dict)

    async def observe(self) -> str:
        return await self.look()

    def evaluate(self, observation: Observation[str], state: int, now_ms: int) -> Judgement[int]:
        self.heard += [event.detail for event in observation.events]
        return Judgement(self.judge(now_ms), state + len(observation.events), self.holds)

    def parse(self, memory: Any) -> int:
        return int(memory or 0)

    def dump(self, memory: int) -> Any:
        return memory


def hammering(detail: str = "no permit", nova: str = "") -> SafetyEvent:
    return SafetyEvent(Kind.API_HAMMERING, "test", detail, nova)


async def why(redis: Redis, clock: ManualClock, nova: str = "torch") -> str:
    return (await Gate(redis, clock).read()).blocking_reason(nova, clock.now_ms()) or ""


async def test_a_round_of_all_five_opens_the_gate_for_as_long_as_a_verdict_holds(
    redis: Redis, clock: ManualClock
) -> None:
    status = await orchestrator_of(redis, clock, SETTINGS).round()
    assert status.verdict is not None
    assert status.verdict.is_safe, status.verdict.reason
    assert list(status.mechanisms) == FIVE
    view = await Gate(redis, clock).read()
    assert view.blocking_reason("torch", clock.now_ms()) is None
    assert view.valid_until_ms == clock.now_ms() + 6000


async def test_without_mechanisms_nothing_starts(redis: Redis, clock: ManualClock) -> None:
    await SafetyOrchestrator(redis, clock, SETTINGS, []).round()
    assert "no safety mechanism" in await why(redis, clock)


async def raises() -> str:
    raise ZeroDivisionError("broken check")


async def hangs() -> str:
    await asyncio.Event().wait()
    raise AssertionError


def raises_too(now_ms: int) -> Verdict:
    raise ZeroDivisionError("broken judgement")


@pytest.mark.parametrize("fault", ["observe raises", "evaluate raises", "hangs", "stale"])
async def test_a_mechanism_that_fails_counts_as_unsafe_though_the_others_agree(
    redis: Redis, clock: ManualClock, fault: str
) -> None:
    async def old() -> str:
        clock.advance(6001)
        return "what was"

    mechanism, words = {
        "observe raises": (Scripted(raises), "broken check"),
        "evaluate raises": (Scripted(sees, raises_too), "broken judgement"),
        "hangs": (Scripted(hangs), "no answer within 0.02 s"),
        "stale": (Scripted(old, deadline_s=1), "stale"),
    }[fault]
    others = mechanisms_of(redis, clock, SETTINGS, "its URL")
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [*others, mechanism])
    status = await orchestrator.round()
    if fault != "stale":  # that one made all input old
        assert status.mechanisms["stream_monitor"].is_safe
        assert "held for safety: scripted:" in await why(redis, clock)
    assert words in status.mechanisms["scripted"].reason
    assert not await may_start(redis, clock)


async def may_start(redis: Redis, clock: ManualClock) -> bool:
    return not await why(redis, clock)


async def test_a_mechanism_that_hung_is_asked_again_once_it_let_go(
    redis: Redis, clock: ManualClock
) -> None:
    answers = [hangs]

    async def recovers() -> str:
        return await answers.pop()() if answers else "fine"

    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [Scripted(recovers)])
    first, second = await orchestrator.round(), await orchestrator.round()
    assert first.verdict is not None
    assert second.verdict is not None
    assert (first.verdict.is_safe, second.verdict.is_safe) == (False, True)


async def test_a_store_that_takes_no_writes_leaves_the_gate_to_expire_and_then_recovers(
    redis: Redis, clock: ManualClock
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    await orchestrator.round()
    await redis.execute_command("CONFIG", "SET", "maxmemory", "1")
    try:
        clock.advance(2000)
        status = await orchestrator.round()
        assert "takes no writes" in (status.renewal.fault or "")
    finally:
        await redis.execute_command("CONFIG", "SET", "maxmemory", "0")
    clock.advance(4001)
    assert "expired" in await why(redis, clock)
    held = await orchestrator.round()
    assert held.verdict is not None
    assert "the last renewal failed" in held.verdict.reason
    last = await orchestrator.round()
    assert last.verdict is not None
    assert last.verdict.is_safe


async def test_a_store_that_is_gone_is_unsafe_and_ends_no_round(
    tmp_path: object, clock: ManualClock
) -> None:
    address = StoreAddress.unix(f"{tmp_path}/gone.sock")
    client = connect(address)
    status = await orchestrator_of(client, clock, SETTINGS, address).round()
    await client.aclose()
    assert status.verdict is not None
    assert not status.verdict.is_safe
    assert all("does not answer" in verdict.reason for verdict in status.mechanisms.values())
    assert "does not answer" in (status.renewal.fault or "")


async def test_it_renews_until_it_is_cancelled(redis: Redis, clock: ManualClock) -> None:
    orchestrator = orchestrator_of(redis, clock, QUICK)
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


# -- events ------------------------------------------------------------------------------------


async def test_every_mechanism_hears_of_every_violation_once(
    redis: Redis, clock: ManualClock
) -> None:
    one, other = Scripted(), Scripted(name="other")
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [one, other])
    await orchestrator.round()
    for detail in "abc":
        await report(redis, clock, hammering(detail))
    await orchestrator.round()
    await orchestrator.round()
    assert one.heard == other.heard == ["a", "b", "c"]


async def test_one_that_failed_hears_later_what_it_missed(redis: Redis, clock: ManualClock) -> None:
    broken = [True]

    async def looks() -> str:
        return await raises() if broken else "fine"

    one, other = Scripted(looks), Scripted(name="other")
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [one, other])
    await report(redis, clock, hammering("a"))
    await orchestrator.round()
    broken.clear()
    await report(redis, clock, hammering("b"))
    await orchestrator.round()
    assert one.heard == other.heard == ["a", "b"]


async def test_a_new_life_goes_on_with_what_the_last_remembered(
    redis: Redis, clock: ManualClock
) -> None:
    await report(redis, clock, hammering())
    assert not (await orchestrator_of(redis, clock, SETTINGS).round()).mechanisms["frosty"].is_safe
    clock.advance(2000)
    again = await orchestrator_of(redis, clock, SETTINGS).round()
    assert again.mechanisms["api_guardian"].recommended_action is Action.HALT
    assert again.mechanisms["frosty"].recommended_action is Action.DELAY


async def test_what_a_mechanism_finds_reaches_the_others_in_the_next_round(
    redis: Redis, clock: ManualClock
) -> None:
    """Six emergencies within an hour, each told by the guardian: then Willy meditates."""
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    for _ in range(6):
        await report(redis, clock, hammering())
        await orchestrator.round()
        clock.advance(301_000)
    last = await orchestrator.round()
    willy = last.mechanisms["really_chill_willy"]
    assert willy.recommended_action is Action.PAUSE
    assert "6 emergencies" in willy.reason


async def test_each_violation_is_posted_once_where_its_nova_reads_and_counted(
    redis: Redis, clock: ManualClock
) -> None:
    noted: list[tuple[str, ...]] = []
    orchestrator = orchestrator_of(redis, clock, SETTINGS, noted=lambda *said: noted.append(said))
    await report(redis, clock, hammering("a", "torch"))
    await report(redis, clock, hammering("b"))
    for _ in range(3):
        await orchestrator.round()
        clock.advance(2000)
    ((_, post),) = await redis.xrange(keys.safety("torch"))
    assert (post["kind"], post["detail"]) == ("api_hammering", "a")
    posted = [fields["kind"] for _, fields in await redis.xrange(keys.safety("fleet"))]
    assert posted == ["api_hammering", "emergency"]
    assert await redis.hget(keys.SAFETY_COUNTS, "violation:api_hammering") == "2"
    assert [said[0] for said in noted if said[0] == "safety.api_hammering"] != []
    assert len([said for said in noted if said[0] == "safety.api_hammering"]) == 2


async def test_a_reply_that_is_lost_counts_no_event_twice(redis: Redis, clock: ManualClock) -> None:
    """The round was written, and its orchestrator does not know: it reads again what is there."""
    one = Scripted()
    first = SafetyOrchestrator(redis, clock, SETTINGS, [one])
    await report(redis, clock, hammering("a"))
    await first.round()
    await SafetyOrchestrator(redis, clock, SETTINGS, [one]).round()
    assert one.heard == ["a"]
    field_ = await redis.hget(keys.SAFETY_STATE, "scripted")
    assert Remembered.parse("scripted", field_).memory == 1


@pytest.mark.parametrize(
    "fields",
    [{"x": "y"}, {"kind": "nonsense", "source": "a", "detail": "b", "at": "1"},
     {"kind": "emergency", "source": "a", "detail": "b", "at": "soon"},
     {"kind": "emergency", "source": "a", "detail": "b", "at": "1", "nova": "No Nova!"}],
)  # fmt: skip
async def test_an_event_that_cannot_be_read_blocks_nothing(
    redis: Redis, clock: ManualClock, fields: dict[str, str]
) -> None:
    one = Scripted()
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [one])
    await redis.xadd(keys.SAFETY_EVENTS, fields)
    await report(redis, clock, hammering("a"))
    assert (await orchestrator.round()).verdict is not None
    assert one.heard == ["a"]
    assert await may_start(redis, clock)


async def test_a_flood_of_events_is_judged_over_several_rounds(
    redis: Redis, clock: ManualClock
) -> None:
    one = Scripted()
    orchestrator = SafetyOrchestrator(redis, clock, SETTINGS, [one])
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1200):
            fields = hammering(str(number)).fields() | {"at": str(clock.now_ms())}
            pipe.xadd(keys.SAFETY_EVENTS, fields)  # type: ignore[arg-type]
        await pipe.execute()
    for _ in range(3):
        await orchestrator.round()
    assert one.heard == [str(number) for number in range(1200)]


# -- holds -------------------------------------------------------------------------------------


async def test_what_holds_one_nova_holds_it_alone_and_ends_with_its_cause(
    redis: Redis, clock: ManualClock
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    event = SafetyEvent(Kind.HOOK_FAILURE, "stop.sh", "it loops", "torch")
    await report(redis, clock, event)
    status = await orchestrator.round()
    assert list(status.holds) == ["torch"]
    assert "hook_health: its hook stop.sh is shut off" in await why(redis, clock, "torch")
    assert not await why(redis, clock, "echo")
    clock.advance(300_000)
    await orchestrator.round()
    assert not await why(redis, clock, "torch")


# -- fences, and state that is broken ----------------------------------------------------------


async def test_one_that_was_taken_for_dead_writes_nothing_any_more(
    redis: Redis, clock: ManualClock
) -> None:
    old = orchestrator_of(redis, clock, SETTINGS)
    await old.round()
    await orchestrator_of(redis, clock, SETTINGS).round()
    before = await redis.hgetall(keys.GATE)
    clock.advance(1000)
    with pytest.raises(Fenced):
        await old.round()
    assert await redis.hgetall(keys.GATE) == before


async def test_one_that_was_taken_for_dead_is_fenced_though_the_hash_was_removed(
    redis: Redis, clock: ManualClock
) -> None:
    old = orchestrator_of(redis, clock, SETTINGS)
    await old.round()
    await redis.delete(keys.SAFETY_STATE)
    clock.advance(1000)
    new = orchestrator_of(redis, clock, SETTINGS)
    await new.round()
    with pytest.raises(Fenced):
        await old.round()
    assert (await new.round()).renewal.fault is None


async def test_its_own_token_comes_back_to_a_hash_that_was_removed(
    redis: Redis, clock: ManualClock
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    await orchestrator.round()
    token = await redis.hget(keys.SAFETY_STATE, "epoch")
    await redis.delete(keys.SAFETY_STATE)
    await orchestrator.round()
    assert await redis.hget(keys.SAFETY_STATE, "epoch") == token


async def test_one_that_wakes_up_between_reading_and_writing_is_refused(
    redis: Redis, clock: ManualClock
) -> None:
    slept, woken = asyncio.Event(), asyncio.Event()

    async def sleeps() -> str:
        slept.set()
        await woken.wait()
        return "old"

    old = SafetyOrchestrator(redis, clock, SETTINGS, [Scripted(sleeps, deadline_s=2)])
    dozing = asyncio.create_task(old.round())
    await slept.wait()
    await until(lambda: old._rounds._epoch != 0)
    await orchestrator_of(redis, clock, SETTINGS).round()
    woken.set()
    with pytest.raises(Fenced):
        await dozing
    assert await may_start(redis, clock)


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize(
    "text",
    ["garbage", "[]", '{"v":1}', '{"v":99,"cursor":"0-0","memory":null}',
     '{"v":1,"cursor":"soon","memory":null}', '{"v":1,"cursor":"0-0","memory":"garbage"}'],
)  # fmt: skip
async def test_a_memory_that_cannot_be_read_holds_all_and_names_its_repair(
    redis: Redis, clock: ManualClock, name: str, text: str
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    await orchestrator.round()
    await redis.hset(keys.SAFETY_STATE, name, text)
    await orchestrator.round()
    said = await why(redis, clock)
    assert f"{name}: what {name} remembers cannot be read" in said
    assert f"`novawf safety reset {name}`" in said
    assert await redis.hget(keys.SAFETY_STATE, name) == text, "it is evidence"
    await reset(redis, name)
    await orchestrator.round()
    assert await may_start(redis, clock)


@pytest.mark.parametrize("key", [keys.SAFETY_STATE, keys.SAFETY_EVENTS])
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_key_of_another_type_holds_all_and_names_its_repair(
    redis: Redis, clock: ManualClock, key: str, fresh: bool
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    if not fresh:
        await orchestrator.round()
    await redis.delete(key)
    await redis.set(key, "garbage")
    await orchestrator.round()
    assert "`novawf safety reset all`" in await why(redis, clock)
    for name in FIVE:
        await reset(redis, name)
    fresh_one = orchestrator_of(redis, clock, SETTINGS)
    assert (await fresh_one.round()).renewal.fault is None
    assert await may_start(redis, clock)


async def test_a_mechanism_that_was_reset_does_not_hear_the_past_again(
    redis: Redis, clock: ManualClock
) -> None:
    orchestrator = orchestrator_of(redis, clock, SETTINGS)
    await report(redis, clock, hammering())
    await orchestrator.round()
    await orchestrator.round()
    for name in FIVE:
        await reset(redis, name)
    await orchestrator.round()
    assert await may_start(redis, clock)


@pytest.mark.parametrize("key", [keys.GATE])
async def test_a_gate_of_another_type_lets_nothing_start(
    redis: Redis, clock: ManualClock, key: str
) -> None:
    await redis.set(key, "garbage")
    status = await orchestrator_of(redis, clock, SETTINGS).round()
    assert status.renewal.fault is not None
