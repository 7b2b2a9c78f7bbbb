"""All mechanisms must agree; whatever is missing, expired or grave counts against starting work."""

from __future__ import annotations

import pytest

from novawf.safety.orchestrator import RenewalState
from novawf.safety.store_monitor import StoreObservation, judge
from novawf.safety.verdict import Action, SafetyLevel, Verdict, combine, safe, unsafe

NOW_MS = 1_000_000
UNTIL_MS = NOW_MS + 6000
GOOD = safe("fine", UNTIL_MS)
BAD = unsafe("slow", UNTIL_MS)
GRAVE = unsafe("on fire", UNTIL_MS, SafetyLevel.EMERGENCY)
CAUTIOUS = Verdict(True, "busy", Action.PROCEED, SafetyLevel.CAUTION, UNTIL_MS)
EXPIRED = safe("was fine", NOW_MS)


@pytest.mark.parametrize(
    ("verdicts", "is_safe", "level", "words"),
    [
        ({}, False, SafetyLevel.UNSAFE, "no safety mechanism is at work"),
        ({"a": GOOD}, True, SafetyLevel.NORMAL, "a: safe"),
        ({"a": GOOD, "b": GOOD}, True, SafetyLevel.NORMAL, "a, b: safe"),
        ({"a": GOOD, "b": CAUTIOUS}, True, SafetyLevel.CAUTION, "a, b: safe"),
        ({"a": GOOD, "b": BAD}, False, SafetyLevel.UNSAFE, "b: slow"),
        ({"a": BAD, "b": GRAVE}, False, SafetyLevel.EMERGENCY, "b: on fire"),
        ({"a": GRAVE, "b": BAD}, False, SafetyLevel.EMERGENCY, "a: on fire"),
        ({"a": GOOD, "b": EXPIRED}, False, SafetyLevel.UNSAFE, "b: its verdict has expired"),
    ],
    ids=[
        "nobody looked",
        "one agrees",
        "all agree",
        "a caution is no objection",
        "one objects",
        "the gravest speaks (last)",
        "the gravest speaks (first)",
        "an expired one objects",
    ],
)
def test_all_must_agree(
    verdicts: dict[str, Verdict], is_safe: bool, level: SafetyLevel, words: str
) -> None:
    combined = combine(verdicts, NOW_MS, UNTIL_MS)
    assert (combined.is_safe, combined.safety_level, combined.reason) == (is_safe, level, words)
    assert combined.expires_at_ms == UNTIL_MS


def test_agreement_ends_with_the_first_verdict_that_expires() -> None:
    combined = combine({"a": GOOD, "b": safe("fine", NOW_MS + 10)}, NOW_MS, UNTIL_MS)
    assert combined.expires_at_ms == NOW_MS + 10


def test_an_emergency_recommends_to_stop() -> None:
    assert combine({"a": GRAVE}, NOW_MS, UNTIL_MS).recommended_action is Action.STOP


@pytest.mark.parametrize(
    ("ping_fault", "renewal_fault", "is_safe", "words"),
    [
        (None, None, True, "answers"),
        ("does not answer", None, False, "does not answer"),
        (None, "read-only", False, "the last renewal failed: read-only"),
        ("does not answer", "read-only", False, "does not answer"),
    ],
)
def test_the_store_must_answer_and_take_writes(
    ping_fault: str | None, renewal_fault: str | None, is_safe: bool, words: str
) -> None:
    verdict = judge(
        StoreObservation(NOW_MS - 5, ping_fault), RenewalState(0, renewal_fault), NOW_MS, 6000
    )
    assert verdict.is_safe is is_safe
    assert words in verdict.reason
