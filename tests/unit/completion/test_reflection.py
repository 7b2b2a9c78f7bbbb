"""What is learned from a completed task, rule by rule, and which tasks are reflected on."""

from __future__ import annotations

import pytest

from novawf.completion.evidence import Evidence
from novawf.completion.reflection import reflect, reflects, span

PLAIN = Evidence("T-1-000001", "build", "2026-01-01T00:00:00.000Z", duration_s=2.0)


@pytest.mark.parametrize(
    ("changes", "signs", "lesson", "improvement", "application"),
    [
        ({}, "first_attempt", "done at the first attempt", "", ""),
        (
            {"attempts": 2, "errors": ("exit 3",)},
            "retried", "took 2 attempts; the last failure was: exit 3", "guard against: exit 3", "",
        ),
        (
            {"attempts": 2},
            "retried", "took 2 attempts", "find out what made the earlier attempts fail", "",
        ),
        (
            {"attempts": 3, "errors": ("exit 3", "exit 3")},
            "same_failure", "took 3 attempts; the last failure was: exit 3",
            "the same failure came each time: mend its cause, repeating does not", "",
        ),
        (
            {"attempts": 3, "errors": ("exit 3", "a; b")},
            "retried", "took 3 attempts; the last failure was: a, b", "guard against: a, b", "",
        ),
        (
            {"estimated_s": 1.0},
            "first_attempt,slower",
            "done at the first attempt; took 2 s where 1 s were expected",
            "estimate it higher, or split it", "expect 2 s next time",
        ),
        (
            {"estimated_s": 8.0},
            "first_attempt,faster",
            "done at the first attempt; took 2 s where 8 s were expected",
            "", "expect 2 s next time",
        ),
        (
            {"estimated_s": 2.2},
            "first_attempt,as_estimated",
            "done at the first attempt; took about as long as expected", "", "",
        ),
        (
            {"duration_s": 150.0},
            "first_attempt,no_estimate",
            "done at the first attempt; took 2 min, with no estimate", "", "expect 2 min next time",
        ),
        ({"duration_s": None, "estimated_s": 5.0}, "first_attempt", "done at the first attempt",
         "", ""),
        (
            {"waited_s": 400.0},
            "first_attempt,waited",
            "done at the first attempt; waited 7 min for a Nova",
            "more Novas would start such work sooner", "",
        ),
        ({"waited_s": 400.0, "priority": "low"}, "first_attempt", "done at the first attempt",
         "", ""),
        (
            {"output_bytes": 3 << 20},
            "first_attempt,loud",
            "done at the first attempt; wrote 3 MiB of output",
            "write results to a file and only their end to the output", "",
        ),
    ],
)  # fmt: skip
def test_what_is_learned(
    changes: dict, signs: str, lesson: str, improvement: str, application: str
):
    reflection = reflect(PLAIN._replace(**changes))
    assert reflection.signs == signs
    assert reflection.lessons == lesson
    assert reflection.improvements == improvement
    assert reflection.applications == application


def test_the_skill_is_what_did_the_work_and_how_long_it_took():
    assert reflect(PLAIN._replace(skill="command make")).skill == "command make in 2 s"
    assert reflect(PLAIN._replace(skill="command make", duration_s=None)).skill == "command make"
    assert reflect(PLAIN).skill == ""


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_share_that_is_reflected_on_is_the_profiles(share: float):
    """Over consecutive ids as the queue gives them, to within five standard deviations."""
    number = 4000
    chosen = sum(reflects("torch", f"FLEET-1700000000-{n:06x}", share) for n in range(number))
    allowed = 5 * (share * (1 - share) * number) ** 0.5
    assert abs(chosen - share * number) <= allowed


def test_a_resumed_nova_reflects_on_the_same_tasks():
    first = [reflects("helix", f"T-{n}", 0.7) for n in range(100)]
    assert first == [reflects("helix", f"T-{n}", 0.7) for n in range(100)]
    assert first != [reflects("echo", f"T-{n}", 0.7) for n in range(100)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.34, "340 ms"), (12.0, "12 s"), (150.0, "2 min"), (9000.0, "2.5 h")],
)
def test_spans_are_for_people(seconds: float, text: str):
    assert span(seconds) == text
