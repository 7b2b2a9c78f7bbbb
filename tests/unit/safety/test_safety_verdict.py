"""All mechanisms must agree; whatever is missing, expired or strong counts against work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.safety.verdict import (
    Action,
    SafetyLevel,
    Verdict,
    combine,
    safe,
    strongest_per_nova,
    unsafe,
)

NOW_MS = 1_000_000
UNTIL_MS = NOW_MS + 6000
GOOD = safe("fine", UNTIL_MS)
COOL = unsafe("too warm", UNTIL_MS, Action.DELAY, NOW_MS + 30_000)
BAD = unsafe("slow", UNTIL_MS)
GRAVE = unsafe("on fire", UNTIL_MS, Action.HALT)
CAUTIOUS = safe("busy", UNTIL_MS, SafetyLevel.CAUTION)
EXPIRED = safe("was fine", NOW_MS)


@pytest.mark.parametrize(
    ("verdicts", "action", "level", "words"),
    [
        ({}, Action.PAUSE, SafetyLevel.UNSAFE, "no safety mechanism is at work"),
        ({"a": GOOD}, Action.ALLOW, SafetyLevel.NORMAL, "a: safe"),
        ({"a": GOOD, "b": GOOD}, Action.ALLOW, SafetyLevel.NORMAL, "a, b: safe"),
        ({"a": GOOD, "b": CAUTIOUS}, Action.ALLOW, SafetyLevel.CAUTION, "a, b: safe"),
        ({"a": GOOD, "b": COOL}, Action.DELAY, SafetyLevel.UNSAFE, "b: too warm"),
        ({"a": BAD, "b": COOL}, Action.PAUSE, SafetyLevel.UNSAFE, "a: slow"),
        ({"a": BAD, "b": GRAVE}, Action.HALT, SafetyLevel.EMERGENCY, "b: on fire"),
        ({"a": GRAVE, "b": BAD}, Action.HALT, SafetyLevel.EMERGENCY, "a: on fire"),
        ({"a": GOOD, "b": EXPIRED}, Action.PAUSE, SafetyLevel.UNSAFE, "b: its verdict has expired"),
        ({"a": COOL, "b": EXPIRED}, Action.PAUSE, SafetyLevel.UNSAFE, "b: its verdict has expired"),
    ],
    ids=[
        "nobody looked",
        "one agrees",
        "all agree",
        "a caution is no objection",
        "one cools down",
        "a pause is stronger than a delay",
        "a halt is stronger than a pause (last)",
        "a halt is stronger than a pause (first)",
        "an expired one objects",
        "an expired one is stronger than a delay",
    ],
)
def test_the_strongest_wins(
    verdicts: dict[str, Verdict], action: Action, level: SafetyLevel, words: str
) -> None:
    combined = combine(verdicts, NOW_MS, UNTIL_MS)
    found = (combined.recommended_action, combined.safety_level, combined.reason)
    assert found == (action, level, words)
    assert combined.expires_at_ms == UNTIL_MS
    assert combined.is_safe is (action is Action.ALLOW)


VERDICTS = st.dictionaries(
    st.sampled_from("abcde"),
    st.builds(
        Verdict,
        st.sampled_from(Action),
        st.just("said"),
        st.sampled_from(SafetyLevel),
        st.integers(NOW_MS - 10, NOW_MS + 10),
        st.integers(0, NOW_MS * 2),
    ),
    min_size=1,
)


@given(VERDICTS)
def test_nothing_is_stronger_than_what_they_say_together(verdicts: dict[str, Verdict]) -> None:
    combined = combine(verdicts, NOW_MS, UNTIL_MS)
    for verdict in verdicts.values():
        assert combined.recommended_action >= verdict.recommended_action
        if verdict.expires_at_ms <= NOW_MS:
            assert combined.recommended_action >= Action.PAUSE
    assert combined.expires_at_ms <= UNTIL_MS


def test_agreement_ends_with_the_first_verdict_that_expires() -> None:
    combined = combine({"a": GOOD, "b": safe("fine", NOW_MS + 10)}, NOW_MS, UNTIL_MS)
    assert combined.expires_at_ms == NOW_MS + 10


def test_an_objection_tells_when_it_is_expected_to_end() -> None:
    assert combine({"a": GOOD, "b": COOL}, NOW_MS, UNTIL_MS).until_ms == NOW_MS + 30_000


def test_of_what_holds_one_nova_the_strongest_counts() -> None:
    held = strongest_per_nova(
        {"frosty": {"torch": COOL, "echo": COOL}, "hook_health": {"torch": BAD, "helix": GOOD}},
        UNTIL_MS,
    )
    assert {nova: verdict.reason for nova, verdict in held.items()} == {
        "torch": "hook_health: slow",
        "echo": "frosty: too warm",
    }
