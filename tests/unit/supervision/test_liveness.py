"""What lives is judged by its signs: silent, deaf or stuck, against the limit of its state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.supervision.config import StuckSettings, SupervisionSettings
from novawf.supervision.liveness import Signs, fault
from novawf.workflow.states import State

SETTINGS = SupervisionSettings(
    silent_s=60, deaf_s=40, stuck=StuckSettings(work_discovery=100, task_execution=20)
)
NOW = 1_000_000_000


def ago(seconds: float) -> int:
    return NOW - round(seconds * 1000)


def judged(signs: Signs, fair_s: float = 9e5, **pauses_s: float) -> str | None:
    return fault(signs, NOW, ago(fair_s), SETTINGS, pauses_s)


def moving(state: str = "work_discovery") -> Signs:
    return Signs(state, seen_ms=ago(1), moved_ms=ago(1))


FAULTS = {
    "well": (moving(), None),
    "a heartbeat just in time": (Signs("work_discovery", ago(59.9), ago(1)), None),
    "no heartbeat": (Signs("work_discovery", ago(60), ago(60)), "no heartbeat for 60 s"),
    "an order read just in time": (Signs("work_discovery", ago(1), ago(1), ago(39.9)), None),
    "orders not read": (
        Signs("work_discovery", ago(1), ago(1), ago(40)),
        "deaf: its orders were not read for 40 s",
    ),
    "a cycle just in time": (Signs("work_discovery", ago(1), ago(99.9)), None),
    "no cycle": (
        Signs("work_discovery", ago(1), ago(100)),
        "stuck: work_discovery has not moved for 100 s",
    ),
    "output just in time": (Signs("task_execution", ago(1), ago(19.9)), None),
    "no output": (
        Signs("task_execution", ago(1), ago(20)),
        "stuck: task_execution has not moved for 20 s",
    ),
    "waiting for a permit": (
        Signs("task_execution", ago(1), ago(5000), waits_for_permit=True),
        None,
    ),
    "a state of a later version": (Signs("dreaming", ago(1), ago(5000)), None),
}


@pytest.mark.parametrize(("signs", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_each_silence_has_its_limit(signs: Signs, expected: str | None) -> None:
    assert judged(signs) == expected


@pytest.mark.parametrize("signs", [Signs("work_discovery", 0, 0), Signs("initializing", 0, 0, 1)])
def test_no_silence_counts_in_which_nobody_could_have_spoken(signs: Signs) -> None:
    """Just started, back from an outage or from sleep: the full limit begins anew."""
    assert judged(signs, fair_s=39.9) is None
    assert judged(signs, fair_s=60) is not None


def test_a_rest_by_configuration_is_no_silence() -> None:
    signs = Signs("completion_routine", ago(1), ago(150))
    assert judged(signs) == "stuck: completion_routine has not moved for 150 s"
    assert judged(signs, completion_routine=3600) is None


def test_a_limit_of_zero_is_none() -> None:
    never = SupervisionSettings(silent_s=0, deaf_s=0, stuck=StuckSettings(work_discovery=0))
    assert fault(Signs("work_discovery", 1, 1, 1), NOW, 0, never, {}) is None


def test_every_state_has_a_limit() -> None:
    assert set(StuckSettings.model_fields) == {state.value for state in State}


def test_work_is_never_ended_by_default_for_being_quiet() -> None:
    signs = Signs("task_execution", ago(1), ago(9e5))
    assert fault(signs, NOW, 0, SupervisionSettings(), {}) is None


@given(
    silences=st.lists(st.floats(0, 19.9), min_size=1, max_size=50),
    look_s=st.floats(0.5, 5),
)
def test_what_moves_is_never_ended_however_slow(silences: list[float], look_s: float) -> None:
    """Silent up to just under the limit, again and again, looked at at any time."""
    moved_s, now_s = 1000.0, 1000.0
    for silence in silences:
        while now_s < moved_s + silence:
            signs = Signs("task_execution", round(now_s * 1000), round(moved_s * 1000))
            assert fault(signs, round(now_s * 1000), 0, SETTINGS, {}) is None
            now_s += look_s
        moved_s += silence
