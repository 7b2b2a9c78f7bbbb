"""How many short tasks are worth one call to the store."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.executors.base import Outcome
from novawf.tasks.claims import Claim
from novawf.workflow.attempt import Attempt
from novawf.workflow.series import CAUTION, MOST, Tempo

GROUP_S = 0.002


def attempt(duration_s: float, ok: bool = True, **spec: Any) -> Attempt:
    spec = spec or {"callable": "jobs:short"}
    claim = Claim("t", 1, 1, 4, 0, "", {"title": "t", **spec})
    return Attempt(claim, outcome=Outcome(ok=ok, duration_s=duration_s))


def test_the_group_doubles_while_tasks_are_short() -> None:
    tempo = Tempo(GROUP_S)
    assert [tempo.note(attempt(0.0001)) for _ in range(6)] == [1, 2, 4, MOST, MOST, MOST]


@pytest.mark.parametrize("duration_s", [0.0001, 0.0004, 0.0009, 0.0019])
def test_a_group_is_never_more_work_than_allowed(duration_s: float) -> None:
    tempo = Tempo(GROUP_S)
    group = max(tempo.note(attempt(duration_s)) for _ in range(50))
    assert 1 <= group <= MOST
    assert group * duration_s <= GROUP_S


@pytest.mark.parametrize(
    "other",
    [
        attempt(GROUP_S * 1.01),
        attempt(0.0001, ok=False),
        attempt(0.0001, argv=["true"]),
    ],
    ids=["long", "failed", "command"],
)
def test_what_is_not_a_short_callable_done_starts_anew(other: Attempt) -> None:
    tempo = Tempo(GROUP_S)
    for _ in range(5):
        tempo.note(attempt(0.0001))
    assert tempo.note(other) == 0
    assert tempo.note(attempt(0.0001)) == 1


def test_an_attempt_with_an_acceptance_check_or_an_interruption_is_none() -> None:
    checked, cut = attempt(0.0001), attempt(0.0001)
    checked.acceptance = Outcome(ok=True)
    cut.interrupt("cancelled")
    assert [Tempo(GROUP_S).note(checked), Tempo(GROUP_S).note(cut)] == [0, 0]


def test_longer_tasks_make_smaller_groups() -> None:
    tempo = Tempo(GROUP_S)
    for _ in range(5):
        tempo.note(attempt(0.0001))
    groups = [tempo.note(attempt(0.0015)) for _ in range(10)]
    assert groups == sorted(groups, reverse=True)
    assert groups[-1] == 1


def test_it_can_be_switched_off() -> None:
    assert Tempo(0.0).note(attempt(0.0)) == 0


def short_ones(tempo: Tempo, most: int = 10 * CAUTION) -> int:
    """How many short tasks are told of by themselves before some are taken ahead."""
    for told in range(most):
        if tempo.note(attempt(0.0001)):
            return told
    return most


def test_more_short_tasks_are_asked_for_each_time_that_some_were_taken_in_vain() -> None:
    tempo = Tempo(GROUP_S)
    asked = []
    for _ in range(6):
        asked.append(short_ones(tempo))
        tempo.note(attempt(0.03), in_vain=True)
    assert asked == [0, CAUTION // 8, CAUTION // 4, CAUTION // 2, CAUTION, CAUTION]


def test_a_long_run_of_short_tasks_ends_all_caution() -> None:
    tempo = Tempo(GROUP_S)
    for _ in range(3):
        tempo.note(attempt(0.03), in_vain=True)
    for _ in range(2 * CAUTION):
        tempo.note(attempt(0.0001))
    tempo.note(attempt(0.03), in_vain=True)
    assert short_ones(tempo) == 0


def test_a_machine_that_stalls_is_no_reason_for_caution() -> None:
    """The task itself was short: what waited behind it was given back for want of a processor."""
    tempo = Tempo(GROUP_S)
    tempo.note(attempt(0.0001), in_vain=True)
    tempo.note(attempt(0.03))
    assert short_ones(tempo) == 0
