"""The five profiles and who gets which."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from novawf.personality.config import ProfileSettings
from novawf.personality.profiles import PROFILES, profile_for

SPECIFIED = """
torch 25 0.3 sustained_energy builder_focused direct_collaborative
echo 15 0.5 burst_energy coordinator_focused collaborative_facilitating
helix 45 0.7 measured_energy strategist_focused analytical_thoughtful
vaeris 60 0.4 constant_energy guardian_focused protective_supportive
synergy 20 0.6 adaptive_energy harmonizer_focused empathetic_adaptive
"""


@pytest.mark.parametrize("row", SPECIFIED.split("\n")[1:-1])
def test_each_profile_is_the_one_of_the_specification(row: str):
    name, cycle_s, share, celebration, style, communication = row.split()
    profile = profile_for(name)
    assert (profile.cycle_s, profile.reflection_share) == (float(cycle_s), float(share))
    assert (profile.celebration, profile.work_style) == (celebration, style)
    assert profile.communication == communication
    assert 0 < profile.dream_probability < 1


def test_there_are_five_profiles():
    assert list(PROFILES) == ["torch", "echo", "helix", "vaeris", "synergy"]


def test_an_unknown_nova_gets_the_profile_of_torch():
    assert profile_for("zephyr") == PROFILES["torch"]


def test_settings_change_only_what_they_name():
    changed = profile_for("helix", {"helix": ProfileSettings(cycle_s=5)})
    assert changed == PROFILES["helix"].model_copy(update={"cycle_s": 5})
    assert PROFILES["helix"].cycle_s == 45


def test_a_nova_from_the_settings_builds_on_torch():
    settings = {"nimbus": ProfileSettings(work_style="gardener_focused")}
    assert profile_for("nimbus", settings).work_style == "gardener_focused"
    assert profile_for("nimbus", settings).cycle_s == PROFILES["torch"].cycle_s


@pytest.mark.parametrize(
    "wrong",
    [{"cycle_s": -1}, {"cycle_s": 601}, {"reflection_share": 1.1}, {"work_style": "Big Words"}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        ProfileSettings.model_validate(wrong)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValidationError):
        PROFILES["torch"].cycle_s = 1  # type: ignore[misc]
