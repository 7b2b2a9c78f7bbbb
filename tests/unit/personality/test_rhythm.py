"""Pauses as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.personality.profiles import PROFILES
from novawf.personality.rhythm import idle_pause_s

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
