"""API guardian: a call without a permit halts everything; a spent budget lets nothing start."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.safety.api_guardian import ApiFacts, ApiGuardian, GuardianMemory, Spent
from novawf.safety.config import GuardianSettings
from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, SafetyLevel

NOW_MS = 1_700_000_000_000


async def nothing() -> ApiFacts:
    return ApiFacts()


GUARDIAN = ApiGuardian(GuardianSettings(), 6.0, nothing)


def hammering(at_ms: int = NOW_MS, number: int = 0) -> SafetyEvent:
    return SafetyEvent(Kind.API_HAMMERING, "gateway", "no permit", "", at_ms, f"{at_ms}-{number}")


def judge(
    *events: SafetyEvent,
    facts: ApiFacts | None = None,
    memory: GuardianMemory | None = None,
    now_ms: int = NOW_MS,
) -> Judgement[GuardianMemory]:
    observation = Observation(now_ms, facts or ApiFacts(), events)
    return GUARDIAN.evaluate(observation, memory or GuardianMemory(), now_ms)


def test_a_call_without_a_permit_is_one_emergency_that_ends_by_itself() -> None:
    found = judge(hammering(), hammering(number=1))
    assert found.verdict.recommended_action is Action.HALT
    assert found.verdict.safety_level is SafetyLevel.EMERGENCY
    assert found.verdict.until_ms == NOW_MS + 300_000
    assert [violation.kind for violation in found.violations] == [Kind.EMERGENCY]
    more = judge(hammering(NOW_MS + 1000), memory=found.memory, now_ms=NOW_MS + 1000)
    assert not more.violations, "more of the same is the same emergency"
    assert more.verdict.until_ms == NOW_MS + 301_000
    after = judge(memory=more.memory, now_ms=NOW_MS + 301_000)
    assert after.verdict.is_safe
    again = judge(hammering(NOW_MS + 302_000), memory=more.memory, now_ms=NOW_MS + 302_000)
    assert [violation.kind for violation in again.violations] == [Kind.EMERGENCY]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.API_HAMMERING])
def test_other_violations_are_none_of_its_business(kind: Kind) -> None:
    found = judge(SafetyEvent(kind, "x", "y", "torch", NOW_MS, "1-1"))
    assert found.verdict.is_safe
    assert found.memory == GuardianMemory()


def test_a_spent_budget_of_the_fleet_pauses_it_until_the_window_ends() -> None:
    spent = Spent("", "the fleet's budget for this day is spent", NOW_MS + 5000)
    found = judge(facts=ApiFacts(spent=(spent,)))
    assert found.verdict.recommended_action is Action.PAUSE
    assert found.verdict.until_ms == NOW_MS + 5000
    assert found.verdict.reason == spent.sentence


def test_of_two_spent_budgets_the_one_that_lasts_longer_is_named() -> None:
    day, total = Spent("", "day", NOW_MS + 5000), Spent("", "total", 0)
    assert judge(facts=ApiFacts(spent=(day, total))).verdict.reason == "total"


def test_a_spent_budget_of_a_nova_holds_that_nova() -> None:
    found = judge(facts=ApiFacts(spent=(Spent("torch", "spent", NOW_MS + 5000),)))
    assert found.verdict.is_safe
    assert found.holds["torch"].recommended_action is Action.PAUSE


def test_an_open_breaker_is_a_caution() -> None:
    found = judge(facts=ApiFacts(broken=("anthropic",)))
    assert found.verdict.is_safe
    assert found.verdict.safety_level is SafetyLevel.CAUTION
    assert "anthropic" in found.verdict.reason


def test_what_it_remembers_survives_the_store() -> None:
    memory = GuardianMemory(5, "why")
    assert GUARDIAN.parse(json.loads(json.dumps(GUARDIAN.dump(memory)))) == memory


@pytest.mark.parametrize("memory", [1, "x", [], {}, {"until": "x", "why": ""}])
def test_what_it_did_not_write_it_does_not_read(memory: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        GUARDIAN.parse(memory)
