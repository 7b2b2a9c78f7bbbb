"""Which tier a wake signal gets: by table, and what holds for every text, sender and hour."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.streams.wake_config import WakeSettings, compile_pattern
from novawf.streams.wake_signals import (
    BUILTIN,
    ORDER,
    TIERS,
    Classification,
    Context,
    Rules,
    classify,
)
from novawf.tasks.model import TIER_MS, Priority

NOON = Context(hour=12)


def rules(**settings: Any) -> Rules:
    return Rules.of(WakeSettings.model_validate(settings))


def tier_of(text: str, sender: str = "someone", context: Context = NOON, **settings: Any) -> str:
    return classify(text, sender, context, rules(**settings)).tier


def test_the_tiers_are_those_of_tasks() -> None:
    """Spelled again in streams so that settings load without the task model."""
    assert set(TIERS) == set(ORDER) == set(BUILTIN) == {p.value for p in Priority} == set(TIER_MS)


# -- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("Database is down", "critical"),
        ("system failure in region 2", "critical"),
        ("EMERGENCY: every agent is stuck", "critical"),
        ("possible data loss on node 4", "critical"),
        ("critical error in the scheduler", "critical"),
        ("Production API returns errors", "high"),
        ("the deploy is broken in production", "high"),
        ("apply the security patch for openssl", "high"),
        ("CVE-2026-12345 concerns us", "high"),
        ("urgent: the customer waits", "high"),
        ("Implement the new parser", "medium"),
        ("Analyze stream coordination patterns", "medium"),
        ("review pull request 12", "medium"),
        ("suggestion: use a cache", "low"),
        ("maybe the logo could be blue", "low"),
        ("hello there", "low"),
        ("Update documentation", "background"),
        ("routine maintenance of the logs", "background"),
        ("clean up old branches", "background"),
    ],
)
def test_the_builtin_patterns_know_the_table_of_the_specification(text: str, tier: str) -> None:
    assert tier_of(text) == tier


@pytest.mark.parametrize(
    ("tier", "delay_s"),
    [("critical", 0), ("high", 30), ("medium", 300), ("low", 1800), ("background", 3600)],
)
def test_each_tier_has_its_delay(tier: str, delay_s: float) -> None:
    found = classify("x", "x", NOON, rules(), priority=tier)
    assert (found.tier, found.delay_s) == (tier, delay_s)


def test_a_delay_can_be_set() -> None:
    assert classify("urgent", "x", NOON, rules(delays={"high_s": 2})).delay_s == 2


def test_your_pattern_comes_before_ours() -> None:
    """Who writes a rule means it, also where a built-in one is more urgent."""
    found = classify("drill: database is down", "x", NOON, rules(patterns={"low": ["^drill:"]}))
    assert (found.tier, found.pattern) == ("low", "^drill:")


def test_the_builtin_patterns_can_be_switched_off() -> None:
    assert tier_of("database is down", builtin_patterns=False) == "low"
    assert tier_of("x", builtin_patterns=False, default_tier="medium") == "medium"


def test_a_pattern_matches_anywhere_and_in_any_case() -> None:
    assert tier_of("well, PAGER 7 rings", patterns={"critical": [r"pager \d"]}) == "critical"


def test_only_the_beginning_of_a_long_text_is_examined() -> None:
    """What is looked at is bounded, whatever a sender writes."""
    assert tier_of("x" * 100 + " emergency", examined_characters=100) == "low"


def test_an_explicit_priority_is_moved_by_nothing() -> None:
    found = classify(
        "database is down",
        "boss",
        Context(3, load=99, repeated=50),
        rules(senders={"boss": 4}, raise_hours=["0-6"]),
        priority="low",
    )
    assert (found.tier, found.rule) == ("low", "its own priority: low")
    assert found.escalations == ()
    assert found.sender_weight == 0


# -- what moves it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "tier"),
    [(-4, "background"), (-1, "low"), (-0.6, "low"), (0, "medium"), (0.4, "medium"),
     (0.5, "high"), (1, "high"), (4, "critical")],
)  # fmt: skip
def test_a_sender_raises_and_lowers(weight: float, tier: str) -> None:
    assert tier_of("Implement it", "ci", senders={"ci": weight}) == tier


def test_the_own_name_of_a_sender_wins_over_patterns_and_the_longest_of_those() -> None:
    senders = {"*": -4.0, "ci-*": 1.0, "ci-main": 2.0}
    weights = [
        classify("x", name, NOON, rules(senders=senders)).sender_weight
        for name in ("ci-main", "ci-other", "alice")
    ]
    assert weights == [2, 1, -4]


@pytest.mark.parametrize(
    ("hour", "tier"), [(21, "medium"), (22, "high"), (5, "high"), (6, "medium")]
)
def test_hours_raise_over_midnight_too(hour: int, tier: str) -> None:
    assert tier_of("Implement it", context=Context(hour), raise_hours=["22-6"]) == tier


def test_hours_lower() -> None:
    assert tier_of("Implement it", context=Context(9), lower_hours=["9-17"]) == "low"


def test_a_text_that_comes_often_is_raised() -> None:
    found = [tier_of("Implement it", context=Context(12, 0, n), repeat_count=3) for n in (1, 2, 3)]
    assert found == ["medium", "medium", "high"]
    assert tier_of("Implement it", context=Context(12, 0, 99), repeat_count=0) == "medium"


def test_load_lowers_what_is_low_and_nothing_else() -> None:
    busy = Context(12, load=2.5)
    assert tier_of("hello", context=busy) == "background"
    assert tier_of("Implement it", context=busy) == "medium"
    assert tier_of("database is down", context=busy) == "critical"
    assert tier_of("hello", context=Context(12, load=2.0)) == "low"


def test_the_answer_says_what_decided_and_what_moved_it() -> None:
    found = classify(
        "Implement it",
        "ci-7",
        Context(23, 0.0, 4),
        rules(senders={"ci-*": -1}, raise_hours=["22-6"], patterns={"medium": ["implement"]}),
    )
    assert found.tier == "high"
    assert found.summary() == (
        "medium pattern implement; sender ci-* -1; hour +1 (at 23:00 signals are raised); "
        "repetition +1 (the same text came 4 times)"
    )
    assert [step["cause"] for step in found.to_dict()["escalations"]] == ["hour", "repetition"]


# -- what holds for all ---------------------------------------------------------------------------

WORDS = ["database", "down", "production", "update", "docs", "maybe", "emergency", "urgent"]
texts = st.text(max_size=200) | st.lists(st.sampled_from(WORDS)).map(" ".join)
contexts = st.builds(
    Context, st.integers(0, 23), st.floats(0, 64, allow_nan=False), st.integers(1, 50)
)
weights = st.floats(-4, 4, allow_nan=False)
RULES = {"raise_hours": ["22-6"], "lower_hours": ["9-17"]}


@given(text=texts, sender=st.text(max_size=50), context=contexts, weight=weights)
def test_every_signal_has_one_tier_and_always_the_same(
    text: str, sender: str, context: Context, weight: float
) -> None:
    """Total and deterministic."""
    made = rules(senders={"*": weight}, **RULES)
    found: Classification = classify(text, sender, context, made)
    assert found.tier in TIERS
    assert found.delay_s == made.delays_s[found.tier]
    assert classify(text, sender, context, made) == found


@given(text=texts, context=contexts, one=weights, other=weights)
def test_a_heavier_sender_is_never_less_urgent(
    text: str, context: Context, one: float, other: float
) -> None:
    light, heavy = sorted((one, other))
    tiers = [
        TIERS.index(tier_of(text, context=context, senders={"*": weight}, **RULES))
        for weight in (light, heavy)
    ]
    assert tiers[0] <= tiers[1]


@given(text=texts, context=contexts, more=st.integers(0, 50))
def test_repeating_never_makes_it_less_urgent(text: str, context: Context, more: int) -> None:
    oftener = context._replace(repeated=context.repeated + more)
    assert TIERS.index(tier_of(text, context=context)) <= TIERS.index(
        tier_of(text, context=oftener)
    )


@pytest.mark.parametrize("tier", TIERS)
def test_the_builtin_patterns_keep_the_rule_for_yours(tier: str) -> None:
    for text in BUILTIN[tier]:
        compile_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["prod " * 800, "issue " * 660, "critical " * 440, "security " * 440, "server " * 570,
     "x" * 4000, "clean " * 660, " " * 4000],
)  # fmt: skip
def test_no_text_keeps_the_builtin_patterns_busy(text: str) -> None:
    """Measured at 6 ms at most; the bound leaves room for a busy machine."""
    made = rules()
    classify("warm", "x", NOON, made)
    began = time.process_time()
    classify(text, "x", NOON, made)
    assert time.process_time() - began < 0.25
