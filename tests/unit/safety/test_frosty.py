"""Frosty: a cooldown for each violation, longer each time, never longer than its cap."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.safety.config import FrostySettings
from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.frosty import Cooling, Frosty, FrostyMemory, cooled
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action

NOW_MS = 1_700_000_000_000
SETTINGS = FrostySettings()
FROSTY = Frosty(SETTINGS, 6.0)


def event(kind: Kind, nova: str = "", at_ms: int = NOW_MS, number: int = 1) -> SafetyEvent:
    return SafetyEvent(kind, "test", "it happened", nova, at_ms, f"{at_ms}-{number}")


def judge(
    *events: SafetyEvent, memory: FrostyMemory | None = None, now_ms: int = NOW_MS
) -> Judgement[FrostyMemory]:
    observation = Observation(now_ms, None, events)
    return FROSTY.evaluate(observation, memory or FrostyMemory(), now_ms)


@pytest.mark.parametrize(
    ("kind", "nova", "action", "held"),
    [
        (Kind.API_HAMMERING, "", Action.DELAY, {}),
        (Kind.API_HAMMERING, "torch", Action.ALLOW, {"torch"}),
        (Kind.SYSTEM_OVERLOAD, "", Action.DELAY, {}),
        (Kind.HOOK_FAILURE, "torch", Action.ALLOW, {"torch"}),
        (Kind.HOOK_FAILURE, "", Action.ALLOW, {}),
        (Kind.STACKED_COOLDOWN, "", Action.ALLOW, {}),
        (Kind.EMERGENCY, "", Action.ALLOW, {}),
    ],
)
def test_each_violation_cools_whoever_did_it(
    kind: Kind, nova: str, action: Action, held: set[str]
) -> None:
    found = judge(event(kind, nova))
    assert found.verdict.recommended_action is action
    assert set(found.holds) == set(held)
    assert all(hold.recommended_action is Action.DELAY for hold in found.holds.values())


def test_without_a_violation_it_has_no_objection() -> None:
    assert judge().verdict.is_safe


def test_a_cooldown_ends_by_itself() -> None:
    found = judge(event(Kind.API_HAMMERING))
    later = judge(memory=found.memory, now_ms=found.verdict.until_ms)
    assert NOW_MS + 15_000 <= found.verdict.until_ms <= NOW_MS + 30_000
    assert later.verdict.is_safe


@given(st.lists(st.integers(0, 4_000_000), min_size=1, max_size=30))
def test_no_cooldown_is_longer_than_the_cap_nor_shorter_than_half_the_base(
    pauses: list[int],
) -> None:
    cooling, at_ms = Cooling(), NOW_MS
    for number, pause_ms in enumerate(pauses):
        at_ms += pause_ms
        before = cooling
        cooling = cooled(before, event(Kind.API_HAMMERING, "", at_ms, number), at_ms, SETTINGS)
        assert cooling.until_ms - at_ms <= SETTINGS.cap_s * 1000
        assert cooling.until_ms >= max(before.until_ms, at_ms + SETTINGS.base_s * 500)


def test_each_further_one_is_longer_until_half_an_hour_of_peace() -> None:
    cooling, lengths, at_ms = Cooling(), [], NOW_MS
    for number in range(12):
        cooling = cooled(cooling, event(Kind.API_HAMMERING, "", at_ms, number), at_ms, SETTINGS)
        lengths.append(cooling.until_ms - at_ms)
        at_ms = cooling.until_ms
    assert lengths[3] > lengths[0] * 2
    assert cooling.level == 12
    at_ms += round(SETTINGS.forget_s * 1000)
    after = cooled(cooling, event(Kind.API_HAMMERING, "", at_ms), at_ms, SETTINGS)
    assert after.level == 1
    assert after.until_ms - at_ms <= SETTINGS.base_s * 1000


def test_one_during_another_is_told_to_all() -> None:
    found = judge(event(Kind.API_HAMMERING, number=1), event(Kind.API_HAMMERING, number=2))
    assert [violation.kind for violation in found.violations] == [Kind.STACKED_COOLDOWN]


def test_an_event_from_the_future_counts_as_from_now() -> None:
    found = judge(event(Kind.API_HAMMERING, at_ms=NOW_MS + 10**9))
    assert found.verdict.until_ms <= NOW_MS + 30_000


def test_it_judges_the_same_event_the_same_way_again() -> None:
    assert judge(event(Kind.API_HAMMERING)) == judge(event(Kind.API_HAMMERING))


def test_it_counts_for_ever_what_happened_at_which_hour() -> None:
    found = judge(event(Kind.API_HAMMERING))
    later = judge(memory=found.memory, now_ms=NOW_MS + 10**9)
    assert later.memory.scopes == {}
    assert later.memory.counts == {"api_hammering@22": 1}


def test_what_it_remembers_survives_the_store() -> None:
    memory = judge(event(Kind.API_HAMMERING), event(Kind.HOOK_FAILURE, "torch")).memory
    assert FROSTY.parse(json.loads(json.dumps(FROSTY.dump(memory)))) == memory


@pytest.mark.parametrize("memory", [1, "x", [], {}, {"scopes": 1, "counts": {}}, {"scopes": {}}])
def test_what_it_did_not_write_it_does_not_read(memory: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        FROSTY.parse(memory)
