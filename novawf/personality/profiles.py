"""The five profiles (spec §9) and which one a Nova gets.

Data and one look-up. What follows from a profile is elsewhere: pauses in `rhythm.py`, dreams and
celebrations in the packages that have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field

from novawf.personality.config import CYCLE_MAX_S, ProfileSettings


class Profile(BaseModel):
    """The character of one Nova."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle_s: float = Field(ge=0, le=CYCLE_MAX_S, description="Pause between two idle cycles.")
    reflection_share: float = Field(ge=0, le=1, description="Share of completions reflected on.")
    celebration: str
    work_style: str
    communication: str
    dream_probability: float = Field(
        ge=0, le=1, description="Chance that an idle cycle turns into a dream."
    )


DEFAULT_NOVA = "torch"
"""Whose profile an unknown Nova gets."""

# The sources give no dream probabilities: half the reflection share is our choice.
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "torch": Profile(
            cycle_s=25,
            reflection_share=0.3,
            celebration="sustained_energy",
            work_style="builder_focused",
            communication="direct_collaborative",
            dream_probability=0.15,
        ),
        "echo": Profile(
            cycle_s=15,
            reflection_share=0.5,
            celebration="burst_energy",
            work_style="coordinator_focused",
            communication="collaborative_facilitating",
            dream_probability=0.25,
        ),
        "helix": Profile(
            cycle_s=45,
            reflection_share=0.7,
            celebration="measured_energy",
            work_style="strategist_focused",
            communication="analytical_thoughtful",
            dream_probability=0.35,
        ),
        "vaeris": Profile(
            cycle_s=60,
            reflection_share=0.4,
            celebration="constant_energy",
            work_style="guardian_focused",
            communication="protective_supportive",
            dream_probability=0.2,
        ),
        "synergy": Profile(
            cycle_s=20,
            reflection_share=0.6,
            celebration="adaptive_energy",
            work_style="harmonizer_focused",
            communication="empathetic_adaptive",
            dream_probability=0.3,
        ),
    }
)
"""Nova → profile, as in the table of spec §9."""


def profile_for(nova: str, settings: Mapping[str, ProfileSettings] | None = None) -> Profile:
    """The profile of `nova`: its own or torch's, with what `[personality.NOVA]` changes."""
    profile = PROFILES.get(nova, PROFILES[DEFAULT_NOVA])
    changes = (settings or {}).get(nova)
    if changes is None:
        return profile
    return profile.model_copy(update=changes.model_dump(exclude_none=True))
