"""Hook health: the Nova whose hook is shut off waits, and nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.safety.config import HookHealthSettings
from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.hook_health import HookHealth, HookMemory, ShutOff
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, SafetyLevel

NOW_MS = 1_700_000_000_000
HEALTH = HookHealth(HookHealthSettings(), 6.0)


def failure(nova: str = "", at_ms: int = NOW_MS) -> SafetyEvent:
    return SafetyEvent(Kind.HOOK_FAILURE, "stop.sh", "it loops", nova, at_ms, f"{at_ms}-0")


def judge(
    *events: SafetyEvent, memory: HookMemory | None = None, now_ms: int = NOW_MS
) -> Judgement[HookMemory]:
    return HEALTH.evaluate(Observation(now_ms, None, events), memory or HookMemory(), now_ms)


def test_a_hook_of_a_nova_holds_that_nova_for_five_minutes() -> None:
    found = judge(failure("torch"))
    assert found.verdict.is_safe
    assert found.verdict.safety_level is SafetyLevel.CAUTION
    hold = found.holds["torch"]
    assert (hold.recommended_action, hold.until_ms) == (Action.PAUSE, NOW_MS + 300_000)
    assert "stop.sh" in hold.reason
    assert judge(memory=found.memory, now_ms=NOW_MS + 299_999).holds
    assert not judge(memory=found.memory, now_ms=NOW_MS + 300_000).holds


def test_a_hook_of_nobody_holds_nobody() -> None:
    found = judge(failure())
    assert found.verdict.is_safe
    assert not found.holds


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HOOK_FAILURE])
def test_other_violations_are_none_of_its_business(kind: Kind) -> None:
    found = judge(SafetyEvent(kind, "x", "y", "torch", NOW_MS, "1-1"))
    assert not found.holds
    assert found.memory == HookMemory()


def test_what_it_remembers_survives_the_store() -> None:
    memory = HookMemory({"a": ShutOff(1, "torch", "why")})
    assert HEALTH.parse(json.loads(json.dumps(HEALTH.dump(memory)))) == memory


@pytest.mark.parametrize("memory", [1, "x", [], {}, {"off": 1}, {"off": {"a": [1]}}])
def test_what_it_did_not_write_it_does_not_read(memory: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        HEALTH.parse(memory)
