"""Pauses as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.personality.config import CompletionSettings
from novawf.personality.profiles import PROFILES
from novawf.personality.rhythm import completion_pause_s, idle_pause_s

TORCH = PROFILES["torch"]


@pytest.mark.parametrize(
    ("pace", "load", "hour", "pause_s"),
    [
        (1.0, 0.0, 12, 25.0),
        (1.0, 1.0, 12, 25.0),
        (1.0, 1.5, 12, 37.5),
        (1.0, 9.0, 12, 50.0),
        (1.0, 0.5, 0, 37.5),
        (1.0, 0.5, 5, 37.5),
        (1.0, 0.5, 6, 25.0),
        (1.0, 2.0, 3, 75.0),
        (0.5, 0.0, 12, 12.5),
        (0.0, 9.0, 3, 0.0),
        (1000.0, 1.0, 12, 600.0),
    ],
)
def test_an_idle_pause_follows_cycle_pace_load_and_night(
    pace: float, load: float, hour: int, pause_s: float
):
    assert idle_pause_s(TORCH, pace, load, hour) == pytest.approx(pause_s)


def test_a_load_that_cannot_be_told_counts_as_none():
    assert idle_pause_s(TORCH, 1.0, math.nan, 12) == 25.0


@given(
    st.sampled_from(list(PROFILES.values())),
    st.floats(0, 1e6),
    st.floats(),
    st.integers(0, 23),
)
def test_an_idle_pause_stays_within_its_bounds(profile, pace: float, load: float, hour: int):
    assert 0.0 <= idle_pause_s(profile, pace, load, hour) <= 600.0


def test_the_completion_pause_is_ten_seconds_by_default():
    assert completion_pause_s(CompletionSettings(), 1.0, work_waiting=False) == 10.0


def test_work_that_waits_ends_the_completion_pause():
    assert completion_pause_s(CompletionSettings(), 1.0, work_waiting=True) == 0.0


@pytest.mark.parametrize(("pace", "pause_s"), [(0.0, 0.0), (0.5, 5.0), (3.0, 10.0)])
def test_pace_shortens_the_completion_pause_and_cannot_stretch_it(pace: float, pause_s: float):
    assert completion_pause_s(CompletionSettings(), pace, work_waiting=False) == pause_s


def test_pauses_below_the_cap_are_added_up():
    settings = CompletionSettings(celebration_s=1, reflection_s=2, planning_s=0.5)
    assert completion_pause_s(settings, 1.0, work_waiting=False) == 3.5


def test_a_cap_of_zero_removes_the_pause():
    assert completion_pause_s(CompletionSettings(max_pause_s=0), 1.0, work_waiting=False) == 0.0
