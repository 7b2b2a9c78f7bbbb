"""How completed tasks are celebrated: by worth, effort, what was overcome, and the Nova's style."""

from __future__ import annotations

import pytest

from novawf.completion.celebration import IMPACTS, LEVELS, celebrate, celebrate_burst
from novawf.completion.evidence import Evidence
from novawf.personality.profiles import PROFILES

PLAIN = Evidence("T-1-000001", "build", "2026-01-01T00:00:00.000Z", duration_s=1.0)
STYLES = [profile.celebration for profile in PROFILES.values()]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "quiet"),
        ({"priority": "background"}, "quiet"),
        ({"priority": "high"}, "warm"),
        ({"priority": "critical"}, "bright"),
        ({"attempts": 2}, "warm"),
        ({"attempts": 3}, "bright"),
        ({"attempts": 9}, "bright"),
        ({"duration_s": 60.0}, "warm"),
        ({"duration_s": 3600.0}, "bright"),
        ({"duration_s": None}, "quiet"),
        ({"priority": "critical", "attempts": 3, "duration_s": 7200.0}, "grand"),
    ],
)
def test_level_by_evidence_in_the_plain_style(changes: dict, level: str):
    assert celebrate(PLAIN._replace(**changes), "sustained_energy").level == level


@pytest.mark.parametrize(
    ("style", "changes", "level"),
    [
        ("constant_energy", {"priority": "critical"}, "warm"),
        ("constant_energy", {}, "warm"),
        ("burst_energy", {"priority": "critical"}, "grand"),
        ("burst_energy", {"priority": "high"}, "warm"),
        ("measured_energy", {"priority": "critical"}, "warm"),
        ("measured_energy", {}, "quiet"),
        ("adaptive_energy", {"attempts": 2}, "bright"),
        ("adaptive_energy", {"estimated_s": 10.0}, "warm"),
        ("adaptive_energy", {"estimated_s": 1.5}, "quiet"),
        ("a_style_of_ones_own", {"priority": "high"}, "warm"),
    ],
)
def test_a_style_colours_the_level(style: str, changes: dict, level: str):
    assert celebrate(PLAIN._replace(**changes), style).level == level


@pytest.mark.parametrize("style", [*STYLES, "unknown"])
@pytest.mark.parametrize("priority", [*IMPACTS, "no tier"])
def test_every_style_and_priority_has_a_level_and_an_impact(style: str, priority: str):
    celebration = celebrate(PLAIN._replace(priority=priority), style)
    assert celebration.level in LEVELS
    assert celebration.impact == (priority if priority in IMPACTS else "medium")


@pytest.mark.parametrize(
    ("count", "level"), [(1, "quiet"), (10, "warm"), (100, "bright"), (10_000, "grand")]
)
def test_a_burst_is_celebrated_by_its_size(count: int, level: str):
    assert celebrate_burst(count, "sustained_energy").level == level
