"""Really Chill Willy: meditation after too much, and a pause while the machine is overloaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.safety.config import WillySettings
from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.readings import Readings, read_machine
from novawf.safety.really_chill_willy import ReallyChillWilly, WillyMemory
from novawf.safety.verdict import Action

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000
CALM = Readings(0.5, 0.6, 0.0)
WILLY = ReallyChillWilly(WillySettings(), 6.0, lambda: CALM)


def event(kind: Kind, at_ms: int, number: int = 0) -> SafetyEvent:
    return SafetyEvent(kind, "test", "it happened", "", at_ms, f"{at_ms}-{number}")


def judge(
    *events: SafetyEvent,
    seen: Readings = CALM,
    memory: WillyMemory | None = None,
    now_ms: int = NOW_MS,
) -> Judgement[WillyMemory]:
    observation = Observation(now_ms, seen, events)
    return WILLY.evaluate(observation, memory or WillyMemory(), now_ms)


@pytest.mark.parametrize(
    ("kind", "count", "meditates"),
    [
        (Kind.EMERGENCY, 5, False),
        (Kind.EMERGENCY, 6, True),
        (Kind.SYSTEM_OVERLOAD, 6, True),
        (Kind.STACKED_COOLDOWN, 3, False),
        (Kind.STACKED_COOLDOWN, 4, True),
        (Kind.API_HAMMERING, 20, False),
        (Kind.HOOK_FAILURE, 20, False),
    ],
)
def test_more_than_five_emergencies_or_three_stacked_cooldowns_in_an_hour(
    kind: Kind, count: int, meditates: bool
) -> None:
    found = judge(*(event(kind, NOW_MS - 59 * MINUTE_MS, n) for n in range(count)))
    assert found.verdict.is_safe is not meditates
    if meditates:
        assert found.verdict.recommended_action is Action.PAUSE
        assert found.verdict.until_ms == NOW_MS + 30 * MINUTE_MS


def test_what_is_older_than_an_hour_does_not_count() -> None:
    old = judge(*(event(Kind.EMERGENCY, NOW_MS - 60 * MINUTE_MS, n) for n in range(5)))
    assert judge(event(Kind.EMERGENCY, NOW_MS), memory=old.memory).verdict.is_safe


def test_it_counts_over_several_rounds() -> None:
    memory = WillyMemory()
    for number in range(6):
        found = judge(event(Kind.EMERGENCY, NOW_MS, number), memory=memory)
        memory = found.memory
    assert not found.verdict.is_safe


def test_a_meditation_ends_by_itself_and_the_counts_begin_anew() -> None:
    found = judge(*(event(Kind.EMERGENCY, NOW_MS, n) for n in range(6)))
    end_ms = found.verdict.until_ms
    assert not judge(memory=found.memory, now_ms=end_ms - 1).verdict.is_safe
    after = judge(event(Kind.EMERGENCY, end_ms, 9), memory=found.memory, now_ms=end_ms)
    assert after.verdict.is_safe


@pytest.mark.parametrize(
    "seen", [Readings(101.0, 0.6), Readings(1.0, 0.02), Readings(1.0, 0.6, 70.0)],
    ids=["load", "memory", "pressure"],
)  # fmt: skip
def test_an_overload_that_lasts_pauses_the_fleet_and_counts_once(seen: Readings) -> None:
    first = judge(seen=seen)
    assert first.verdict.is_safe
    second = judge(seen=seen, memory=first.memory, now_ms=NOW_MS + 5000)
    assert second.verdict.recommended_action is Action.PAUSE
    assert [violation.kind for violation in second.violations] == [Kind.SYSTEM_OVERLOAD]
    third = judge(seen=seen, memory=second.memory, now_ms=NOW_MS + 7000)
    assert not third.verdict.is_safe
    assert not third.violations
    assert judge(memory=third.memory, now_ms=NOW_MS + 9000).verdict.is_safe


def test_an_overload_that_passes_is_none() -> None:
    first = judge(seen=Readings(101.0, 0.6))
    second = judge(memory=first.memory, now_ms=NOW_MS + 4000)
    third = judge(seen=Readings(101.0, 0.6), memory=second.memory, now_ms=NOW_MS + 6000)
    assert third.verdict.is_safe


def test_an_overload_is_over_only_well_inside_its_bound() -> None:
    memory = WillyMemory(overloaded=True)
    assert not judge(seen=Readings(90.0, 0.6), memory=memory).verdict.is_safe
    assert judge(seen=Readings(75.0, 0.6), memory=memory).verdict.is_safe


def test_a_machine_that_does_not_tell_is_not_overloaded() -> None:
    assert judge(seen=Readings(1.0, None, None)).verdict.is_safe


def test_this_machine_gives_readings() -> None:
    seen = read_machine()
    assert seen.load_per_core >= 0
    assert seen.memory_left_share is None or 0 < seen.memory_left_share <= 1


def test_what_it_remembers_survives_the_store() -> None:
    memory = WillyMemory((1, 2), (3,), 4, "why", 5, True)
    assert WILLY.parse(json.loads(json.dumps(WILLY.dump(memory)))) == memory


@pytest.mark.parametrize("memory", [1, "x", [], {}, {"bangs": "x"}])
def test_what_it_did_not_write_it_does_not_read(memory: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        WILLY.parse(memory)
